"""The commands together, each a process: replay into run, and all that must work where nothing of the extras is."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from agent.bridges.files import read_image
from agent.commands.focus import ALPHA
from agent.messages import Optics
from calibration.twin.instrument import MicroscopeSettings
from calibration.twin.microscope import VirtualMicroscope
from tests.loop.harness import ROOT, Process, clean_environment, said, without

DATA = ROOT.parent / "shared" / "data" / "thermo_tiff"
RUN = ROOT / ".venv" / "run" / "bin" / "python"
EXTRAS = ("torch", "scipy", "sklearn", "skimage", "matplotlib", "onnx", "mahotas", "mapfost", "pytest", "tensorrt_rtx")

bare = pytest.mark.skipif(not RUN.exists(), reason="no run-time environment: `make .venv/run/.stamp` makes one")


def told_by(python: Path | str, folder: Path, *arguments: str) -> Any:
    """What one command prints with --json."""
    done = subprocess.run(
        [str(python), "-m", "agent", *arguments, "--json"], env=clean_environment(folder),
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# --- replay into run ---


@pytest.mark.skipif(not DATA.is_dir(), reason="shared/data/thermo_tiff is not on this machine")
def test_real_pictures_replayed_are_all_read_and_without_their_databar(
    launch: Callable[..., Process], folder: Path
) -> None:
    process = launch(produces=False).start()
    played = told_by(sys.executable, folder, "replay", str(DATA), "--rate", "50", "--inspect")
    assert (played["published"], played["skipped"]) == (9, [])
    found = [process.wire.until(said("focus", frame=number)) for number in range(1, 10)]
    assert {told["session"] for told in found} == {played["session"]}
    assert all(told["score"] > 1.0 and told["blur_px"] > 0.0 for told in found)
    for number in range(1, 10):
        inspected = process.wire.until(said("defects", frame=number, lane="inspect"))
        assert all(box[1] < box[3] <= 1024 for box in (each["box_px"] for each in inspected["defects"]))
    books = process.wire.settled_books()
    assert (books["received"], books["processed"]) == (9, 9)
    producer = process.wire.producer = process.wire.produce()
    assert producer.poll(20_000) and producer.recv()
    pixels, optics = read_image(sorted(DATA.glob("*.tif"))[0])
    assert optics.databar_rows and pixels.shape[0] - optics.databar_rows == 1024
    assert (optics.pixel_size_m, optics.working_distance_m) == pytest.approx((65.1e-9, 5e-3), rel=5e-3)
    seen = _score(process, pixels[: -optics.databar_rows], without(optics, "databar_rows", "rows_valid"))
    assert seen == pytest.approx(found[0]["score"], abs=1e-5)
    assert seen != pytest.approx(_score(process, pixels, without(optics, "databar_rows", "rows_valid")), abs=1e-5)


def _score(process: Process, pixels: NDArray[Any], optics: Optics) -> float:
    number = len(process.wire.heard) + 1000
    process.wire.frame(number, pixels, optics)
    score: float = process.wire.until(said("focus", frame=number))["score"]
    return score


# --- where nothing of the extras is ---


@bare
def test_the_run_time_environment_has_nothing_of_the_extras() -> None:
    script = f"from importlib.util import find_spec; print([name for name in {EXTRAS} if find_spec(name)])"
    done = subprocess.run([RUN, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


@bare
def test_check_without_the_extras(folder: Path) -> None:
    told = told_by(RUN, folder, "check")
    assert told["ok"] is True
    results = {row["what"]: row["result"] for row in told["checks"]}
    assert [results[task] for task in ("autofocus", "depth", "defects")] == ["ok"] * 3


@bare
def test_demo_without_the_extras_converges(folder: Path) -> None:
    told = told_by(RUN, folder, "demo", "--episodes", "1", "--seed", "8", "--fields", "1")
    (episode,), (field,) = told["episodes"], told["inspection"]
    assert field["end"] == "inspected" and {"depth", "defects"} <= set(field["took_s"])
    assert episode["end"] == "converged" and episode["frames"] <= 6
    assert abs(episode["residual_m"]) <= episode["half_depth_of_focus_m"]


@bare
def test_focus_without_the_extras(folder: Path) -> None:
    scope = VirtualMicroscope(MicroscopeSettings(specimen="cells", seed=2, start_defocus_m=6e-6))
    with (folder / "series.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "working_distance_m", "stigmator_x", "stigmator_y", "pixel_size_m", ALPHA])
        for n, change_m in enumerate((0.0, -8e-6, 16e-6)):
            scope.set_working_distance(scope.working_distance_m + change_m)
            scope.wait_until(scope.settled_ns)
            assert cv2.imwrite(str(folder / f"{n}.png"), scope.frame()[0])
            rows.writerow([f"{n}.png", scope.working_distance_m, 0.0, 0.0, 10e-9, 5e-3])
    told = told_by(RUN, folder, "focus", str(folder / "series.csv"))
    assert told["abstained"] is False and told["defocus_m"] == pytest.approx(6e-6, abs=0.5e-6)


@bare
def test_run_and_replay_without_the_extras(launch: Callable[..., Process], folder: Path) -> None:
    (folder / "pictures").mkdir()
    rng = np.random.default_rng(1)
    for n in range(3):
        assert cv2.imwrite(str(folder / "pictures" / f"{n}.png"), rng.integers(0, 255, (256, 256), np.uint8))
    process = launch(str(RUN), "-m", "agent", "run", produces=False).start()
    assert told_by(RUN, folder, "replay", str(folder / "pictures"), "--rate", "50", "--inspect")["published"] == 3
    for number in (1, 2, 3):
        assert process.wire.until(said("focus", frame=number))["score"] is not None
    process.popen.terminate()
    assert process.ended()[0] == 0
