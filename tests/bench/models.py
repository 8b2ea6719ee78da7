"""How long each model takes on this machine's processor: ONNX Runtime against torch eager, one thread each, in turns.

torch runs the networks with random weights, for its time does not depend on them. It is given the faster of its two
memory layouts. The three models together are timed as the agent runs them: one frame after the other, two threads.
"""

from collections.abc import Callable
from importlib.util import find_spec
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.commands.yardstick import tensor_of
from engines.autofocus import Autofocus
from engines.autofocus import condition as autofocus_condition
from engines.begun import together
from engines.defects import DefectFinder
from engines.depth import Depth
from engines.load import load
from engines.scene import Scene, condition, levels_of

SHAPES = ((768, 1024), (512, 512))
RUNS, WARM_UP = 40, 2  # buffers are bound and arenas grown in the first
TOGETHER_THREADS = 2  # engines.threads
PIXEL_SIZE_M = 3e-9
SCENE = Scene(pixel_size_m=PIXEL_SIZE_M, electrons_per_pixel=40.0, accelerating_voltage_v=1000.0)
TASKS = ("autofocus", "depth", "defects")
LAYOUTS = ("contiguous", "channels-last")

Picture = NDArray[np.uint8]
Read = Callable[[], object]
Rows = list[dict[str, object]]


def measure(runs: int = RUNS) -> Rows:
    rows: Rows = []
    for shape in SHAPES:
        picture = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        for task in TASKS:
            rows += _against_torch(task, picture, runs)
        rows.append(_together(picture, runs))
    return rows


def missing() -> str | None:
    """Why there are no rows of torch, or None."""
    return None if find_spec("torch") else "torch is not installed (extra calibrate): no rows of torch, no ratios"


def _against_torch(task: str, picture: Picture, runs: int) -> Rows:
    """One row: ONNX Runtime, and torch where it is installed."""
    reads = {"onnxruntime": reader(task, picture, threads=1)}
    if missing() is None:
        reads |= torch_readers(task, picture)
    took = in_turns(reads, runs)
    ours = figures(took["onnxruntime"])
    row: dict[str, object] = {"model": task, "shape": list(picture.shape), "threads": 1, **ours}
    eager = {layout: figures(took[layout]) for layout in LAYOUTS if layout in took}
    if not eager:
        return [{**row, "torch": missing()}]
    faster = min(eager, key=lambda layout: eager[layout]["p50_ms"])
    told = {"torch": faster, "torch_p50_ms": eager[faster]["p50_ms"], "torch_p99_ms": eager[faster]["p99_ms"]}
    return [{**row, **told, "ratio_to_torch_eager": eager[faster]["p50_ms"] / ours["p50_ms"]}]


def _together(picture: Picture, runs: int) -> dict[str, object]:
    starts = [starter(task, picture, threads=TOGETHER_THREADS) for task in TASKS]
    took = in_turns({"all": lambda: together(starts)}, runs)
    shape = list(picture.shape)
    return {"model": "the three together", "shape": shape, "threads": TOGETHER_THREADS, **figures(took["all"])}


def in_turns(reads: dict[str, Read], runs: int) -> dict[str, list[float]]:
    """Seconds of each, one after the other round and round: whatever else the machine does befalls all alike."""
    took: dict[str, list[float]] = {name: [] for name in reads}
    for run in range(runs + WARM_UP):
        for name, read in reads.items():
            began = perf_counter()
            read()
            if run >= WARM_UP:
                took[name].append(perf_counter() - began)
    return took


def figures(seconds: list[float]) -> dict[str, float]:
    return {f"p{share}_ms": 1e3 * float(np.percentile(seconds, share)) for share in (50, 99)}


def reader(task: str, picture: Picture, *, threads: int) -> Read:
    start = starter(task, picture, threads=threads)
    return lambda: start()()


def starter(task: str, picture: Picture, *, threads: int) -> Callable[[], Read]:
    """The shipped package as the agent asks it: begun, and then called for its answer."""
    loaded = load(task, backend="onnxruntime", threads=threads)
    if task == "autofocus":
        autofocus = Autofocus(loaded)
        return lambda: autofocus.begin(picture, PIXEL_SIZE_M)
    dense = Depth(loaded) if task == "depth" else DefectFinder(loaded)
    levels = levels_of(picture)
    return lambda: dense.begin(picture, SCENE, levels)


def torch_readers(task: str, picture: Picture) -> dict[str, Read]:
    """torch eager in both layouts, one thread, inference mode, from numpy to tensors that could be handed back."""
    import torch

    torch.set_num_threads(1)
    formats = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}
    told = torch.from_numpy(_condition(task, picture))[None]
    return {
        layout: _eager(_network(task).to(memory_format=form), tensor_of(task, picture), told, form)
        for layout, form in formats.items()
    }


def _eager(network: Any, source: Any, told: Any, form: Any) -> Read:
    import torch

    def read() -> object:
        with torch.inference_mode():
            return network(source.contiguous(memory_format=form), told)

    return read


def _condition(task: str, picture: Picture) -> NDArray[np.float32]:
    return autofocus_condition(PIXEL_SIZE_M) if task == "autofocus" else condition(levels_of(picture), SCENE)


def _network(task: str) -> Any:
    from calibration.networks.autofocus import AutofocusNet
    from calibration.networks.defects import DefectNet
    from calibration.networks.depth import DepthNet

    return {"autofocus": AutofocusNet, "depth": DepthNet, "defects": DefectNet}[task]().eval()
