"""Which ONNX file ONNX Runtime may run here: a twin in fewer bits where the parity gate passed it, else float32.

A verdict holds for one machine and one version of ONNX Runtime: processors without VNNI add eight-bit products in
another way, and a kernel may change with a version. `beamside engines build` gives it, in seconds, on this PC.
"""

import contextlib
import platform
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import msgspec
import onnxruntime as ort

from engines.durable import locked, write_whole
from engines.manifest import Manifest, read_twin

VERDICT = ".verdict"
CPU_INFO = Path("/proc/cpuinfo")
FULL = "fp32"
CPU, CUDA = "onnxruntime", "onnxruntime_cuda"
TWINS = {CPU: "int8", CUDA: "fp16"}  # what each is faster with


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """onnxruntime-<key>.verdict: what the gate said, and of what."""

    key: str
    model: str  # name@sha
    precision: str
    backend: str
    machine: str  # processor or GPU
    onnxruntime: str
    passed: bool
    report: msgspec.Raw


@dataclass(frozen=True)
class Here:
    """Where ONNX Runtime runs, and where its verdicts are kept."""

    backend: str
    machine: str
    folder: Path

    def path(self, manifest: Manifest, precision: str) -> Path:
        return self.folder / f"onnxruntime-{self.key(manifest, precision)[:32]}{VERDICT}"

    def key(self, manifest: Manifest, precision: str) -> str:
        file = manifest.sha256 if precision == FULL else manifest.twins[precision]
        return sha256(
            "\n".join((file, manifest.sha256, self.backend, self.machine, ort.__version__)).encode()
        ).hexdigest()


@dataclass(frozen=True)
class Admitted:
    """What to load."""

    model: bytes
    precision: str
    why: str  # half a line


def on_cpu(folder: Path) -> Here:
    return Here(CPU, processor(), folder)


def on_cuda(folder: Path, device: str) -> Here:
    """device: name and driver."""
    return Here(CUDA, device, folder)


def admitted(package: Path, manifest: Manifest, model: bytes, here: Here | None) -> Admitted:
    """`here` None: nothing is known of this machine. Raises PackageError where the twin was changed."""
    twin = TWINS[here.backend] if here else TWINS[CPU]
    if here is None or twin not in manifest.twins:
        return Admitted(model, FULL, f"no {twin} twin" if here else "no folder of verdicts was named")
    verdict = read_verdict(here, manifest, twin)
    if verdict is None:
        return Admitted(model, FULL, f"the {twin} twin was not yet checked on this machine: beamside engines build")
    if not verdict.passed:
        return Admitted(model, FULL, f"the {twin} twin did not pass the parity gate on this machine")
    return Admitted(read_twin(package, manifest, twin), twin, "passed the parity gate on this machine")


def read_verdict(here: Here, manifest: Manifest, precision: str) -> Verdict | None:
    """None where there is none, or none that can be read."""
    try:
        verdict = msgspec.json.decode(here.path(manifest, precision).read_bytes(), type=Verdict)
    except (OSError, msgspec.MsgspecError):
        return None
    return verdict if (verdict.key, verdict.precision) == (here.key(manifest, precision), precision) else None


def keep_verdict(here: Here, manifest: Manifest, precision: str, *, report: bytes, passed: bool) -> Path:
    """Whole or not at all. Raises CacheError."""
    verdict = Verdict(
        key=here.key(manifest, precision),
        model=manifest.label,
        precision=precision,
        backend=here.backend,
        machine=here.machine,
        onnxruntime=ort.__version__,
        passed=passed,
        report=msgspec.Raw(report),
    )
    path = here.path(manifest, precision)
    with locked(here.folder):
        _sweep(here.folder)
        write_whole(path, msgspec.json.encode(verdict))
    return path


def _sweep(folder: Path) -> None:
    """Debris of verdicts that were cut off; we alone write now."""
    for path in folder.glob(f"*{VERDICT}.*"):
        with contextlib.suppress(OSError):
            path.unlink()


def processor() -> str:
    """Its name and whether it multiplies eight bits without saturating."""
    try:
        lines = CPU_INFO.read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    dot = " ".join(flag for flag in ("avx2", "avx512_vnni", "avx_vnni", "asimddp") if flag in _flags(facts))
    return f"{facts.get('model name', platform.machine())} {dot}".strip()


def _flags(facts: dict[str, str]) -> list[str]:
    return (facts.get("flags") or facts.get("Features") or "").split()
