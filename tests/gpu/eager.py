"""torch on the GPU as a yardstick: eager, and the same work captured in one CUDA graph. Upload and outputs included."""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

from agent.commands.yardstick import Picture, Read, condition_of, network, tensor_of, whole_float32

EAGER = "fp32 eager"
WARM_UP = 3  # runs before a capture: kernels are chosen and memory is taken in them


def missing() -> str | None:
    """Why torch cannot be asked here, or None."""
    if find_spec("torch") is None:
        return "torch is not installed"
    try:
        import torch
    except Exception as error:  # noqa: BLE001 - its libraries may not fit, each in its own way
        return f"torch cannot be imported: {error}"
    if not torch.version.cuda:
        return f"torch {torch.__version__} was built without CUDA"
    return None if torch.cuda.is_available() else "torch finds no CUDA device"


def makers(task: str, picture: Picture) -> dict[str, Callable[[], Read]]:
    """Precision and manner -> what makes one reading; float32 is whole, as our engines have it."""
    whole_float32()
    net = network(task).cuda()
    return {
        EAGER: partial(eager, net, task, picture),
        "fp32 graph": partial(captured, net, task, picture, half=False),
        "fp16 graph": partial(captured, net, task, picture, half=True),
    }


def eager(net: Any, task: str, picture: Picture) -> Read:
    import torch

    source, told = tensor_of(task, picture), torch.from_numpy(condition_of(task, picture))[None].cuda()

    def read() -> object:
        with torch.inference_mode():
            image = source.cuda()
            return [output.cpu() for output in net(image, told)]

    return read


def captured(net: Any, task: str, picture: Picture, *, half: bool) -> Read:
    """half: convolutions in float16, as the FP16 twins have them."""
    import torch

    source = tensor_of(task, picture).contiguous()
    staged = torch.empty_like(source).pin_memory()
    image, told = source.cuda(), torch.from_numpy(condition_of(task, picture))[None].cuda()

    def work() -> Any:
        with torch.inference_mode(), torch.autocast("cuda", torch.float16, enabled=half):
            return net(image, told)

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = work()
    back = [torch.empty_like(output, device="cpu").pin_memory() for output in outputs]

    def read() -> object:
        staged.copy_(source)
        with torch.inference_mode():
            image.copy_(staged, non_blocking=True)
            graph.replay()
            for target, output in zip(back, outputs, strict=True):
                target.copy_(output, non_blocking=True)
        torch.cuda.current_stream().synchronize()
        return back

    return read
