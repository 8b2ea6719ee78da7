"""tests/gpu/run: to its end on a machine without a device, and the table with a device that is played by the CPU."""

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from agent.commands import bench_table, benching, yardstick
from agent.commands.benching import TOGETHER, Bench
from agent.commands.building import TASKS
from agent.commands.makers import Job, OnnxMaker, Opened
from engines import admit, load
from engines.errors import InferenceError
from engines.golden import Golden
from engines.parity import Report, check
from tests.gpu import measure
from tests.gpu.measure import Results

Names = tuple[str, ...]
HOUSE = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(not isinstance(load.device(), str), reason="a device answers here: run tests/gpu/run itself")
def test_without_a_device_it_ends_well_and_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(HOUSE / "tests/gpu/run"), "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "no device answers" in done.stdout and "nothing was measured" in done.stdout
    for name in measure.ON_GPU:
        assert f"absent: {name}: " in done.stdout
    kept = json.loads((tmp_path / "results.json").read_text())
    assert kept["timed"] == [] and kept["built"] == [] and "no device answers" in kept["machine"]["GPU"]


class PlayedMaker(OnnxMaker):
    """A GPU backend as the script sees it, on the CPU; the gate is asked about a shape and few pictures."""

    precisions = ("fp32",)

    def __init__(
        self, folder: Path, *, fault: Exception | None = None, broken: Names = TASKS, refused: Names = ()
    ) -> None:
        super().__init__(admit.on_cpu(folder))
        self.backend = "tensorrt"
        self.precisions = ("fp32",)
        self._fault, self.broken, self.refused = fault, broken, refused

    def device(self) -> str | None:
        return None

    def judge(self, job: Job, golden: Golden) -> Report:
        few = replace(golden, image=golden.image[:4], condition=golden.condition[:4])
        report = check(self.open(job).run, few, precision=job.precision, shape=(192, 256))
        passed = report.passed and job.manifest.name not in self.refused
        admit.keep_verdict(self._here, job.manifest, job.precision, report=report.json(), passed=passed)
        return msgspec.structs.replace(report, passed=passed)

    def open(self, job: Job, threads: int = 1) -> Opened:
        if self._fault is not None and job.manifest.name in self.broken:
            raise self._fault
        return super().open(job, threads)


def told(results: Results) -> str:
    text = io.StringIO()
    measure.tell(results, Console(file=text, width=160))
    return text.getvalue()


def test_with_a_device_there_is_one_table_with_the_aims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benching, "torch_readers", lambda task, picture, *, cuda: {})
    results = Results({"GPU": "played"}, absent={"torch": "not asked here"})
    measure.measure(results, [PlayedMaker(tmp_path)], runs=2, shapes=((192, 256),))
    assert results.failed == []
    text = told(results)
    assert {row.model for row in results.timed} == {"autofocus", "depth", "defects", TOGETHER}
    assert TOGETHER in text and "192x256" in text
    assert "three models at 2048x3072: p99 at most 8 ms on an H200: not measured" in text


def test_a_backend_that_fails_is_told_and_the_next_one_follows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benching, "torch_readers", lambda task, picture, *, cuda: {})
    results = Results({"GPU": "played"}, absent={"torch": "not asked here"})
    broken = PlayedMaker(tmp_path, fault=InferenceError("the GPU fell off the bus"))
    measure.measure(results, [broken, PlayedMaker(tmp_path)], runs=2, shapes=((192, 256),))
    text = told(results)
    assert "the GPU fell off the bus" in text and TOGETHER in text


@pytest.mark.parametrize("fault", [InferenceError("out of memory"), TypeError("nullptr"), MemoryError()])
def test_an_engine_that_fails_costs_no_other_and_each_step_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    monkeypatch.setattr(benching, "torch_readers", lambda task, picture, *, cuda: {})
    results = Results({"GPU": "played"}, absent={"torch": "not asked here"})
    maker = PlayedMaker(tmp_path / "engines", fault=fault, broken=("depth",))
    written: list[int] = []
    keep = measure.keep
    monkeypatch.setattr(measure, "keep", lambda *a: (keep(*a), written.append(len(a[0].timed))))
    measure.measure(results, [maker], runs=2, shapes=((192, 256),), out=tmp_path / "out")
    assert [row.model for row in results.timed] == ["autofocus", "defects"]
    assert any("depth fp32" in line for line in results.failed)
    assert 1 in written  # after the first row, not at the end alone
    kept = json.loads((tmp_path / "out" / "results.json").read_text())
    assert len(kept["timed"]) == 2 and kept["failed"]


def test_a_trio_with_a_refused_engine_meets_no_aim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benching, "torch_readers", lambda task, picture, *, cuda: {})
    monkeypatch.setattr(measure, "AIMS_S", {(192, 256): 1e9})
    for refused, outcome in (((), ": met, "), (("depth",), "not measured")):
        results = Results({"GPU": "played"}, absent={"torch": "not asked here"})
        folder = tmp_path / "_".join(("engines", *refused))
        measure.measure(results, [PlayedMaker(folder, refused=refused)], runs=2, shapes=((192, 256),))
        (trio,) = (row for row in results.timed if row.model == TOGETHER)
        assert trio.parity is (not refused)
        assert outcome in measure.aims(results.timed)[0]
        assert ("REFUSED" in told(results)) is bool(refused)


def test_a_manner_of_torch_that_fails_costs_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def makers(task: str, picture: object) -> dict[str, object]:
        def broken() -> object:
            raise RuntimeError("operation not permitted when stream is capturing")

        return {"fp32 eager": lambda: lambda: None, "fp32 graph": broken, "fp16 graph": lambda: lambda: None}

    monkeypatch.setattr(measure.eager, "makers", makers)
    results = Results({"GPU": "played"})
    measure.torch_rows(results, (64, 96), runs=2)
    manners = {(row.model, row.precision, row.backend) for row in results.timed}
    assert {(TOGETHER, "fp32", "torch eager"), (TOGETHER, "fp16", "torch graph")} <= manners
    assert not [row for row in results.timed if (row.precision, row.backend) == ("fp32", "torch graph")]
    assert len(results.failed) == 3 and "stream is capturing" in results.failed[0]


def test_torch_is_given_whole_float32_as_our_engines_have_it() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    try:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
        yardstick.whole_float32()
        assert torch.backends.cudnn.conv.fp32_precision != "tf32"
        assert torch.backends.cuda.matmul.fp32_precision != "tf32"
        with torch.backends.cudnn.flags(enabled=False):  # as the exporter does: it refuses a mixture of settings
            pass
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def timed(model: str, p99_s: float, *, ratio: float | None = None, parity: bool | None = True) -> Bench:
    return Bench(
        model=model,
        backend="tensorrt",
        precision="fp16",
        shape=(768, 1024),
        threads=2,
        p50_s=p99_s,
        p99_s=p99_s,
        ratio_to_torch_eager=ratio,
        parity=parity,
    )


def test_an_aim_is_met_missed_or_not_measured() -> None:
    lines = measure.aims([timed(TOGETHER, 1.5e-3), timed("depth", 1e-3, ratio=2.0)])
    assert any("768x1024" in line and line.endswith("met, 1.50 ms") for line in lines)
    assert any("2048x3072" in line and line.endswith("not measured") for line in lines)
    assert any(line.startswith("depth") and "MISSED, 2.00 times" in line for line in lines)


def test_a_refused_engine_is_marked_beside_its_time() -> None:
    text = told(Results({}, timed=[timed("depth", 1e-3, parity=False)]))
    assert "REFUSED" in text


@pytest.mark.parametrize("parity", [False, None])
def test_an_engine_that_may_not_serve_meets_no_aim(parity: bool | None) -> None:
    lines = measure.aims([timed(TOGETHER, 1e-3, parity=parity), timed("depth", 1e-3, ratio=9.0, parity=parity)])
    assert len(lines) == 5 and all(line.endswith("not measured") for line in lines)


def test_a_table_of_a_gpu_shows_the_share_of_the_floor_and_a_missing_graph() -> None:
    rows = [msgspec.structs.replace(timed("depth", 1e-3), share_of_floor=0.42, graph=graph) for graph in (True, False)]
    text = io.StringIO()
    Console(file=text, width=160).print(bench_table.table(rows))
    assert text.getvalue().count("42%") == 2 and "of floor" in text.getvalue()
    assert "yes" in text.getvalue() and "NO" in text.getvalue()
    assert "transfers" in text.getvalue()  # they are in the reading and not in the floor
