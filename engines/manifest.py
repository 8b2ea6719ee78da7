"""What a model package says of itself: read, validated and matched against model.onnx before anything runs it.

A package is a folder with model.onnx and manifest.json. `sha256` binds the manifest to the model's bytes and `seal`
binds the manifest to itself, so that neither can be edited without the loader saying so. Twins in fewer bits may stand
beside the model, as model.fp16.onnx and model.int8.onnx; only those that the manifest names exist for the loader.
`golden_sha256` binds the golden set; a manifest without it, as an older version wrote it, vouches for none: its package
serves, and its set is held to the name of its model alone until `beamside calibrate golden` writes both again.
"""

import hashlib
from pathlib import Path

import msgspec

from engines.errors import PackageError

MODEL_FILE = "model.onnx"
IMAGE = "image"  # the input that is the picture
MANIFEST_FILE = "manifest.json"
NAME_DIGITS = 8  # of the sha256 in `name@sha`: enough to tell two trainings apart in a log


class Tensor(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One input or output of the graph. A shape entry is a number, or the name of a dimension free at run time."""

    name: str
    dtype: str  # uint8, float32
    shape: tuple[int | str, ...]
    unit: str
    meaning: str


class Training(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How the weights came about, enough to do it again. Defaults are left out: the seal of an older manifest holds."""

    data: str
    labels: dict[str, str]  # output -> definition of its label
    seed: int
    command: str
    date: str  # ISO 8601, UTC
    samples: int
    steps: int
    parameters: int
    start: str = ""  # sha256 of the model whose weights were the first; empty: from nothing
    learnt: float = 1.0  # share of the way from those weights to the ones learnt, the best on a tuning set


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
    variants: dict[str, str] | msgspec.UnsetType = msgspec.UNSET  # precision of a twin -> sha256 of its file
    golden_sha256: str | msgspec.UnsetType = msgspec.UNSET  # of golden.npz
    seal: str = ""  # sha256 of this manifest with an empty seal

    @property
    def label(self) -> str:
        """name@sha, as it travels on the wire."""
        return f"{self.name}@{self.sha256[:NAME_DIGITS]}"

    @property
    def channels(self) -> int:
        """Of the picture: 1, the frame alone; 2, the frame and its reference. 0 where the manifest tells no number."""
        shape = next((tensor.shape for tensor in self.inputs if tensor.name == IMAGE), ())
        return shape[1] if len(shape) == 4 and isinstance(shape[1], int) else 0

    @property
    def twins(self) -> dict[str, str]:
        """Precision -> sha256 of model.<precision>.onnx; empty where there are none."""
        return {} if isinstance(self.variants, msgspec.UnsetType) else self.variants


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _seal(manifest: Manifest) -> str:
    bare = msgspec.structs.replace(manifest, seal="")
    return digest(msgspec.json.encode(bare, order="sorted"))


def read(package: Path) -> tuple[Manifest, bytes]:
    """The manifest and the bytes of the model it vouches for. Raises PackageError."""
    manifest = _decode(package / MANIFEST_FILE)
    return manifest, _checked(package / MODEL_FILE, manifest.sha256)


def read_twin(package: Path, manifest: Manifest, precision: str) -> bytes:
    """The model in another precision, fp16 or int8. Raises PackageError, also where the manifest names none."""
    path = package / twin_file(precision)
    if precision not in manifest.twins:
        raise PackageError(f"{package}: the package has no {precision} twin; beamside calibrate variants writes it")
    return _checked(path, manifest.twins[precision])


def twin_file(precision: str) -> str:
    return f"model.{precision}.onnx"


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


def _checked(path: Path, expected: str) -> bytes:
    data = _bytes(path)
    found = digest(data)
    if found != expected:
        raise PackageError(
            f"{path}: sha256 is {found[:12]}.., the manifest says {expected[:12]}..; "
            "the model or its manifest was changed: install the package again"
        )
    return data


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise PackageError(f"{path}: missing from the model package") from error
    except OSError as error:
        raise PackageError(f"{path}: {error.strerror}") from error
