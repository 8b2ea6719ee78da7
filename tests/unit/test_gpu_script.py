"""tests/gpu/run: to its end on a machine without a device, and the table with a device that is played by the CPU."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from agent.commands import benching
from agent.commands.benching import TOGETHER, Bench
from agent.commands.makers import Job, OnnxMaker, Opened, Row
from engines import admit, load
from engines.errors import InferenceError, ModelError
from engines.golden import Golden
from engines.parity import Report, check
from tests.gpu import measure
from tests.gpu.measure import Results

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
    """A GPU backend as the script sees it, on the CPU; the gate is asked about the shape alone."""

    precisions = ("fp32",)

    def __init__(self, folder: Path, *, fault: ModelError | None = None) -> None:
        super().__init__(admit.on_cpu(folder))
        self.backend = "tensorrt"
        self.precisions = ("fp32",)
        self._fault = fault

    def device(self) -> str | None:
        return None

    def judge(self, job: Job, golden: Golden) -> Report:
        return check(self.open(job).run, golden, precision=job.precision, shape=(192, 256))

    def open(self, job: Job, threads: int = 1) -> Opened:
        if self._fault is not None:
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


def timed(model: str, p99_s: float, *, ratio: float | None = None) -> Bench:
    return Bench(
        model=model,
        backend="tensorrt",
        precision="fp16",
        shape=(768, 1024),
        threads=2,
        p50_s=p99_s,
        p99_s=p99_s,
        ratio_to_torch_eager=ratio,
    )


def test_an_aim_is_met_missed_or_not_measured() -> None:
    lines = measure.aims([timed(TOGETHER, 1.5e-3), timed("depth", 1e-3, ratio=2.0)])
    assert any("768x1024" in line and line.endswith("met, 1.50 ms") for line in lines)
    assert any("2048x3072" in line and line.endswith("not measured") for line in lines)
    assert any(line.startswith("depth") and "MISSED, 2.00 times" in line for line in lines)


def test_a_refused_engine_is_marked_beside_its_time() -> None:
    row = Row(model="depth", precision="fp16", shape=(768, 1024), backend="tensorrt", ok=True, parity=False)
    text = told(Results({}, built=[row], timed=[timed("depth", 1e-3)]))
    assert "REFUSED" in text
