"""An ONNX model into a plan, within this process: run by engines/build.py as a child, because builders leak and crash.

python -P -m engines.compiler BACKEND RECIPE HEIGHT WIDTH FD: the model on stdin, JSON lines on stdout, the plan into
the open file FD. Written with the names that tensorrt 10 and 11 and tensorrt_rtx 1.x share. What changes the engines
of an unchanged model must raise REVISION in engines/cache.py.
"""

import contextlib
import os
import sys
from typing import Any

import msgspec

from engines.channels import KNOWN
from engines.errors import BackendMissingError, BuildError
from engines.listener import listener, module

NICE = 10  # the agent may be at work beside
IMAGE = "image"


class Said(msgspec.Struct, omit_defaults=True):
    """One line of the child: how far it is, or how it ended."""

    share: float | None = None
    phase: str = ""
    error: str = ""
    missing: bool = False  # the error is a backend that is not there
    bytes: int = 0


def compiled(trt: Any, model: bytes, *, recipe: str, shape: tuple[int, int]) -> bytes:
    """The plan. Raises BuildError with the parser's or the builder's own words."""
    said = listener(trt)
    try:
        builder = trt.Builder(said)
    except (TypeError, RuntimeError) as error:  # the bindings answer a null pointer with a TypeError
        raise BuildError(f"the builder does not start: {said.last()} ({error})") from error
    # Version 10 builds weakly typed networks unless told; its flag is accepted and without effect in all others.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, said)
    if not parser.parse(model):
        raise BuildError(refusal(parser))
    fix_shape(trt, network, shape)
    check_recipe(trt, network, recipe)
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # ten bits of mantissa: float32 in name only
    config.progress_monitor = monitor(trt)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BuildError(f"the builder gave up: {said.last()}")
    return bytes(memoryview(plan))


def refusal(parser: Any) -> str:
    """What the parser found, with the node and the operator where it names them."""
    found = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        operator, node = error.node_operator(), error.node_name()
        where = f"operator {operator} of node {node!r} (number {error.node()}): " if operator else ""
        found.append(f"{where}{error.code().name}: {' '.join(error.desc().split())}")
    return f"the parser refuses the model: {'; '.join(found) or 'it gives no reason'}"


def fix_shape(trt: Any, network: Any, shape: tuple[int, int]) -> None:
    """One engine, one shape: no kernels for free sizes, and every output's size is known."""
    tensors = {network.get_input(index).name: network.get_input(index) for index in range(network.num_inputs)}
    image = tensors.get(IMAGE)
    if image is None or image.dtype != trt.DataType.UINT8 or len(image.shape) != 4 or image.shape[1] not in KNOWN:
        found = ", ".join(f"{name} {t.dtype.name} {tuple(t.shape)}" for name, t in tensors.items())
        raise BuildError(f"the model must have an input {IMAGE!r} uint8 [1, 1 or 2, h, w]; it has {found or 'none'}")
    whole = (1, image.shape[1], *shape)
    if any(known not in (-1, asked) for known, asked in zip(image.shape, whole, strict=True)):
        raise BuildError(f"the model takes {tuple(image.shape)} only and not {whole}")
    image.shape = whole
    free = [name for name, tensor in tensors.items() if any(size < 0 for size in tensor.shape)]
    free += [t.name for t in map(network.get_output, range(network.num_outputs)) if any(size < 0 for size in t.shape)]
    if free:
        raise BuildError(f"with a {shape[0]}x{shape[1]} image the sizes of {', '.join(free)} are still free")


def check_recipe(trt: Any, network: Any, recipe: str) -> None:
    """Precision is written into the graph; a float32 graph under the name of a faster one would be a lie."""
    sign = {"fp32": None, "fp16": trt.DataType.HALF, "int8": trt.DataType.INT8}
    if recipe not in sign:
        raise BuildError(f"recipe {recipe!r} is unknown; known are {', '.join(sign)}")
    wanted = sign[recipe]
    if wanted is None:
        return
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if any(layer.get_output(each).dtype == wanted for each in range(layer.num_outputs)):
            return
    raise BuildError(f"the model holds no {wanted.name} tensor: recipe {recipe} needs the model's own {recipe} twin")


def monitor(trt: Any) -> Any:
    """Tells the parent how far the outermost phase is."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if not parent_phase:
                self.steps[phase_name] = num_steps

        def phase_finish(self, phase_name: str) -> None:
            if self.steps.pop(phase_name, 0):
                tell(Said(share=1.0, phase=phase_name))

        def step_complete(self, phase_name: str, step: int) -> bool:
            steps = self.steps.get(phase_name, 0)
            if steps:
                tell(Said(share=min((step + 1) / steps, 1.0), phase=phase_name))
            return True  # go on

    return Monitor()


def tell(said: Said) -> None:
    os.write(LINES, msgspec.json.encode(said) + b"\n")


LINES = 1  # stdout, or where main() put it


def main(arguments: list[str]) -> int:
    global LINES
    backend, recipe, height, width, target = arguments
    # Libraries print; what they print must not stand among our lines.
    LINES = os.dup(1)
    os.dup2(2, 1)
    os.nice(NICE)
    try:
        plan = compiled(module(backend), sys.stdin.buffer.read(), recipe=recipe, shape=(int(height), int(width)))
        with os.fdopen(int(target), "wb") as file:
            file.write(plan)
    except (BuildError, BackendMissingError) as error:
        tell(Said(error=str(error), missing=isinstance(error, BackendMissingError)))
    except (MemoryError, OSError) as error:
        tell(Said(error=f"no room for the plan: {str(error) or 'out of memory'}"))
    else:
        tell(Said(bytes=len(plan)))
    return 0


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):  # the parent is gone
        sys.exit(main(sys.argv[1:]))
