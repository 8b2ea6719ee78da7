"""How long the focus estimator takes from ready spectra, on one thread. Usage: python -m tests.bench.estimator

Prints JSON. A process of its own, because the number of threads of a numerical library is fixed when it is loaded.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from time import perf_counter, thread_time

import cv2
import numpy as np

from agent.control.estimate import estimate
from agent.control.instrument import Instrument
from agent.evidence import take_evidence
from agent.messages import Evidence, Frame, Lane, Wanted
from calibration.twin.instrument import MicroscopeSettings
from calibration.twin.microscope import VirtualMicroscope
from calibration.twin.specimen import TEXTURED

SHAPES = ((512, 512), (768, 1024))
FRAMES = (2, 3, 4, 5, 6)
REPEATS = 4  # of each of the five textured specimens
STEPS_H = (0.0, 8.0, -8.0, 4.0, -4.0, 12.0)  # of each frame, half depths from where the series began
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


@dataclass(frozen=True)
class Series:
    """Frames as the estimator is given them."""

    evidence: list[Evidence]
    instrument: Instrument


def measure(repeats: int = REPEATS) -> list[dict[str, object]]:
    """In a child with one thread."""
    command = [sys.executable, "-m", "tests.bench.estimator", str(repeats)]
    child = subprocess.run(command, env={**os.environ, **ONE_THREAD}, stdout=subprocess.PIPE, check=True)
    rows: list[dict[str, object]] = json.loads(child.stdout)
    return rows


def series(seed: int, frames: int, shape: tuple[int, int]) -> Series:
    """A specimen somewhere out of focus, seen at known steps."""
    settings = MicroscopeSettings(specimen=TEXTURED[seed % len(TEXTURED)], seed=seed, shape=shape)
    scope = VirtualMicroscope(settings)
    home, known = scope.working_distance_m, scope.certificate()
    evidence = []
    for number, step in enumerate(STEPS_H[:frames]):
        scope.set_working_distance(home + step * settings.half_depth_of_focus_m)
        scope.wait_until(scope.settled_ns)
        pixels, optics = scope.frame()
        frame = Frame(number=number, pixels=pixels, optics=optics, lane=Lane.LIVE, received_ns=0)
        wanted = Wanted(evidence=True, reference_working_distance_m=home, scale_per_m=known.scale_per_m or 0.0)
        taken = take_evidence(frame, pixels, wanted)
        assert taken is not None
        evidence.append(taken)
    instrument = Instrument(
        alpha_rad=known.alpha_rad,
        alpha_sigma_rad=known.alpha_sigma_rad,
        fw50_m=known.fw50_m,
        stigmator_matrix_m=known.stigmator_matrix_m,
        scale_per_m=0.0,
    )
    return Series(evidence, instrument)


def _row(shape: tuple[int, int], frames: int, repeats: int) -> dict[str, object]:
    cases = [series(100 + seed, frames, shape) for seed in range(len(TEXTURED))]
    wall, busy = [], []
    estimate(cases[0].evidence, cases[0].instrument)
    for _ in range(repeats):
        for case in cases:
            began, began_busy = perf_counter(), thread_time()
            estimate(case.evidence, case.instrument)
            wall.append(perf_counter() - began)
            busy.append(thread_time() - began_busy)
    return {
        "shape": list(shape),
        "frames": frames,
        "p50_ms": 1e3 * float(np.percentile(wall, 50)),
        "p99_ms": 1e3 * float(np.percentile(wall, 99)),
        "cpu_p50_ms": 1e3 * float(np.percentile(busy, 50)),
    }


def main() -> None:
    cv2.setNumThreads(1)
    repeats = int(sys.argv[1])
    print(json.dumps([_row(shape, frames, repeats) for shape in SHAPES for frames in FRAMES]))


if __name__ == "__main__":
    main()
