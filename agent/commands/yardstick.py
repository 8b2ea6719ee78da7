"""torch eager as a yardstick: the same networks with random weights, whole float32, both memory layouts."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines import autofocus, defects, depth
from engines.autofocus import condition as autofocus_condition
from engines.channels import frame_of
from engines.scene import Scene, condition, levels_of

PIXEL_SIZE_M = 3e-9
SCENE = Scene(pixel_size_m=PIXEL_SIZE_M, electrons_per_pixel=40.0, accelerating_voltage_v=1000.0)
TORCH = "torch"

Picture = NDArray[np.uint8]  # (h, w) or (c, h, w)
Read = Callable[[], object]


def condition_of(task: str, picture: Picture) -> NDArray[np.float32]:
    if task == autofocus.TASK:
        return autofocus_condition(PIXEL_SIZE_M)
    return condition(levels_of(frame_of(picture)), SCENE)


def torch_readers(task: str, picture: Picture, *, cuda: bool) -> dict[str, Read]:
    """torch eager in both layouts, inference mode, upload included; empty where torch or its device is missing."""
    if find_spec(TORCH) is None:
        return {}
    import torch

    if cuda and not torch.cuda.is_available():
        return {}
    torch.set_num_threads(1)
    if cuda:
        whole_float32()
    formats = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}
    device = "cuda" if cuda else "cpu"
    told = torch.from_numpy(condition_of(task, picture))[None].to(device)
    return {
        layout: _eager(network(task).to(device=device, memory_format=form), tensor_of(task, picture), told, form)
        for layout, form in formats.items()
    }


def whole_float32() -> None:
    """torch multiplies with ten bits of mantissa on a GPU unless it is told; our engines do not."""
    import torch

    # torch 2.9 has newer names for these two; whoever uses them makes its exporter, which asks by the old, raise.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def tensor_of(task: str, picture: Picture) -> Any:
    """(1, c, h, w) as the network of the task takes it: where that compares, a frame alone is its own reference."""
    import torch

    from calibration.networks.defects import CHANNELS

    size, channels = picture.shape[-2:], CHANNELS if task == defects.TASK else 1
    return torch.from_numpy(picture).reshape(1, -1, *size).expand(1, channels, *size)


def _eager(net: Any, source: Any, told: Any, form: Any) -> Read:
    import torch

    def ask() -> object:
        with torch.inference_mode():
            image = source.to(told.device).contiguous(memory_format=form)
            return [output.cpu() for output in net(image, told)]

    return ask


def network(task: str) -> Any:
    """With random weights."""
    from calibration.networks.autofocus import AutofocusNet
    from calibration.networks.defects import DefectNet
    from calibration.networks.depth import DepthNet

    return {autofocus.TASK: AutofocusNet, depth.TASK: DepthNet, defects.TASK: DefectNet}[task]().eval()
