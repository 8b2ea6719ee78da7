"""What a model package says of itself: read, validated and matched against model.onnx before anything runs it.

A package is a folder with model.onnx and manifest.json. `sha256` binds the manifest to the model's bytes and `seal`
binds the manifest to itself, so that neither can be edited without the loader saying so.
"""

import hashlib
from pathlib import Path

import msgspec

from engines.errors import PackageError

MODEL_FILE = "model.onnx"
MANIFEST_FILE = "manifest.json"
NAME_DIGITS = 8  # of the sha256 in `name@sha`: enough to tell two trainings apart in a log


class Tensor(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One input or output of the graph. A shape entry is a number, or the name of a dimension free at run time."""

    name: str
    dtype: str  # uint8, float32
    shape: tuple[int | str, ...]
    unit: str
    meaning: str


class Training(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the weights came about, enough to do it again."""

    data: str
    labels: dict[str, str]  # output -> definition of its label
    seed: int
    command: str
    date: str  # ISO 8601, UTC
    samples: int
    steps: int
    parameters: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """manifest.json, field by field."""

    format: int
    name: str
    task: str
    version: str
    sha256: str  # of model.onnx
    opset: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    training: Training
    metrics: dict[str, dict[str, float]]  # data set or method -> figure -> value
    seal: str = ""  # sha256 of this manifest with an empty seal

    @property
    def label(self) -> str:
        """name@sha, as it travels on the wire."""
        return f"{self.name}@{self.sha256[:NAME_DIGITS]}"


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _seal(manifest: Manifest) -> str:
    bare = msgspec.structs.replace(manifest, seal="")
    return digest(msgspec.json.encode(bare, order="sorted"))


def read(package: Path) -> tuple[Manifest, bytes]:
    """The manifest and the bytes of the model it vouches for. Raises PackageError."""
    manifest = _decode(package / MANIFEST_FILE)
    model = _bytes(package / MODEL_FILE)
    found = digest(model)
    if found != manifest.sha256:
        raise PackageError(
            f"{package / MODEL_FILE}: sha256 is {found[:12]}.., the manifest says {manifest.sha256[:12]}..; "
            "the model or its manifest was changed: install the package again"
        )
    return manifest, model


def write(package: Path, manifest: Manifest) -> None:
    """Seal the manifest and put it beside its model."""
    sealed = msgspec.structs.replace(manifest, seal=_seal(manifest))
    text = msgspec.json.format(msgspec.json.encode(sealed), indent=1)
    partial = package / f"{MANIFEST_FILE}.partial"
    partial.write_bytes(text + b"\n")
    partial.replace(package / MANIFEST_FILE)


def _decode(path: Path) -> Manifest:
    try:
        manifest = msgspec.json.decode(_bytes(path), type=Manifest)
    except msgspec.MsgspecError as error:
        raise PackageError(f"{path}: not a manifest: {error}") from error
    if manifest.format != 1:
        raise PackageError(f"{path}: manifest format {manifest.format}; this version reads format 1")
    if manifest.seal != _seal(manifest):
        raise PackageError(f"{path}: the manifest was edited since it was made: install the package again")
    return manifest


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise PackageError(f"{path}: missing from the model package") from error
    except OSError as error:
        raise PackageError(f"{path}: {error.strerror}") from error
