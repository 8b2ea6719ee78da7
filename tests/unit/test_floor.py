"""The least time thinkable: operations and bytes of a model, over what a device says of itself."""

import ctypes
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from agent.commands import floor
from calibration.cost import cost
from engines.load import MODELS

H200 = {  # as the driver's attributes tell them
    floor.CLOCK_KHZ: 1_980_000,
    floor.MEMORY_CLOCK_KHZ: 3_201_000,
    floor.BUS_BITS: 6144,
    floor.SM_COUNT: 132,
    floor.MAJOR: 9,
    floor.MINOR: 0,
}


class PlayedDriver:
    """The three calls of the driver's library that are made."""

    def __init__(self, facts: dict[int, int], error: int = 0) -> None:
        self._facts, self._error = facts, error

    def cuInit(self, flags: int) -> int:
        return self._error

    def cuDeviceGet(self, device: Any, ordinal: int) -> int:
        return 0

    def cuDeviceGetAttribute(self, value: Any, which: int, device: Any) -> int:
        ctypes.cast(value, ctypes.POINTER(ctypes.c_int))[0] = self._facts[which]
        return 0


def one_convolution() -> bytes:
    """8 kernels of 3x3 over one channel, stride 1, no padding."""
    ends = [
        helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 1, "h", "w"]),
        helper.make_tensor_value_info("condition", TensorProto.FLOAT, [1, 2]),
    ]
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 8, "a", "b"])
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["pixels", "weight"], ["out"]),
    ]
    weight = numpy_helper.from_array(np.ones((8, 1, 3, 3), np.float32), "weight")
    graph = helper.make_graph(nodes, "one", ends, [out], [weight])
    return bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]).SerializeToString())


def test_a_convolution_costs_two_operations_for_each_weight_at_each_place() -> None:
    needed = cost(one_convolution(), (34, 66))
    assert needed.operations == 2.0 * 8 * 32 * 64 * 9
    assert needed.bytes == 34 * 66 + 2 * 4 + 8 * 32 * 64 * 4 + 8 * 9 * 4


@pytest.mark.parametrize("task", ["autofocus", "depth", "defects"])
def test_the_shipped_models_cost_more_with_the_picture(task: str) -> None:
    model = (MODELS / task / "model.onnx").read_bytes()
    small, large = cost(model, (192, 256)), cost(model, (768, 1024))
    assert 15.9 <= large.operations / small.operations <= 24.0  # without padding a small one loses more
    assert large.bytes > small.bytes


def test_a_known_device_has_the_peak_of_its_data_sheet() -> None:
    found = floor.peak(lambda name: PlayedDriver(H200))
    assert found is not None
    assert found.bytes_per_s == pytest.approx(4.9e12, rel=0.02)
    assert found.operations_per_s["fp16"] == pytest.approx(1.07e15, rel=0.02)  # 989e12 at the lower clock of the sheet


def test_the_slower_of_both_is_the_floor() -> None:
    device = floor.Peak({"fp32": 1e12}, 1e9)
    assert device.floor_s(2e12, 1e6, "fp32") == 2.0
    assert device.floor_s(1e6, 3e9, "fp32") == 3.0


@pytest.mark.parametrize(
    "facts", [H200 | {floor.MAJOR: 99}, H200 | {floor.BUS_BITS: 0}, H200 | {floor.MEMORY_CLOCK_KHZ: 0}]
)
def test_of_an_unknown_device_nothing_is_claimed(facts: dict[int, int]) -> None:
    assert floor.peak(lambda name: PlayedDriver(facts)) is None
    assert floor.floor_s(one_convolution(), (64, 64), "fp32", None) is None


def test_without_a_driver_or_with_one_that_fails_there_is_no_peak() -> None:
    def missing(name: str) -> Any:
        raise OSError(name)

    assert floor.peak(missing) is None
    assert floor.peak(lambda name: PlayedDriver(H200, error=999)) is None
