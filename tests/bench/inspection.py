"""How long one frame to inspect takes: detector, reference and cascade as the agent asks them, and the nuisance filter.

The frame is made for the clock: lines in noise with bright spots, so that something repeats and there are finds to
judge. Focus and depth are not in it. A models folder may be given beside the shipped packages.
"""

from pathlib import Path
from time import perf_counter, process_time

import numpy as np
from numpy.typing import NDArray

from agent.control.inspecting import told
from agent.control.recipe import Recipe
from agent.messages import Findings, Frame, Lane, Optics, Wanted
from agent.perceive import Perceiver
from calibration.evaluate.defects_latency import frame as made
from engines.cascade import load_cascade
from engines.defects import TASK, DefectFinder
from engines.load import MODELS, load

SHAPE = (768, 1024)
RUNS, WARM_UP = 60, 3  # buffers are bound and arenas grown in the first
THREADS = 2  # engines.threads
RECIPE = Recipe(name="bench")  # its nuisance filter is on, as in any recipe that does not say otherwise
STAGES = ("convert", "reference", "defects", "cascade")

Rows = list[dict[str, object]]


def measure(runs: int = RUNS, other: Path | None = None) -> Rows:
    """other: a models folder with a defect package, a cascade, or both; what it lacks is the shipped one's."""
    return [row for folder in (MODELS, other) if folder is not None for row in _of(folder, runs)]


def _of(folder: Path, runs: int) -> Rows:
    models = folder if (folder / TASK).is_dir() else MODELS
    finder = DefectFinder(load(TASK, models=models, backend="onnxruntime", threads=THREADS))
    perceiver = Perceiver(None, None, finder, cascade=load_cascade(folder))
    picture, took, used, finds = made(SHAPE), list[dict[str, float]](), list[float](), 0
    for run in range(runs + WARM_UP):
        before = process_time()
        findings, seconds = _once(perceiver, picture ^ np.uint8(run & 1))  # never the same pixels twice running
        finds = len(findings.defects or ())
        if run >= WARM_UP:
            took.append(seconds)
            used.append(process_time() - before)
    about = {"models": ", ".join(perceiver.models), "shape": list(SHAPE), "threads": THREADS, "finds": finds}
    rows: Rows = [{**about, "stage": stage, **_figures([each[stage] for each in took])} for stage in took[0]]
    rows[-1]["cpu_p50_ms"] = 1e3 * float(np.median(used))  # of all threads: what a busy machine leaves comparable
    return rows


def _once(perceiver: Perceiver, picture: NDArray[np.uint8]) -> tuple[Findings, dict[str, float]]:
    """Seconds by stage; `frame` is all of them."""
    frame = Frame(number=1, pixels=picture, optics=Optics(pixel_size_m=3e-9), lane=Lane.INSPECT, received_ns=0)
    began = perf_counter()
    findings = perceiver.look(frame, Wanted(inspection=True, nuisances=True))
    looked = perf_counter()
    told(frame, findings, RECIPE, own_threshold=0.0)
    ended = perf_counter()
    stages = {stage: findings.took_s[stage] for stage in STAGES if stage in findings.took_s}
    return findings, stages | {"nuisances": ended - looked, "frame": ended - began}


def _figures(seconds: list[float]) -> dict[str, float]:
    return {f"p{share}_ms": 1e3 * float(np.percentile(seconds, share)) for share in (50, 99)}
