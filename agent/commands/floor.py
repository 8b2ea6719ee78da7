"""How fast a GPU could be at best: what a model must do, over what the device's own numbers allow.

The network alone: the way over PCIe, which every measured reading holds too, is no part of it, for no driver tells its
speed. A share of the floor is therefore understated, by the transfers' share of the reading.
"""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from engines.cuda import LIBRARY

CLOCK_KHZ, MEMORY_CLOCK_KHZ, BUS_BITS, SM_COUNT, MAJOR, MINOR = 13, 36, 37, 16, 75, 76  # CUdevice_attribute
TRANSFERS = 2  # of a memory clock
# Operations of one SM in one clock, dense, by compute capability: float32 outside and float16 inside the tensor cores
# (NVIDIA's white papers of Turing, Ampere, Ada, Hopper). For other devices nothing is claimed.
OPERATIONS = {
    (7, 5): {"fp32": 128, "fp16": 1024},
    (8, 0): {"fp32": 128, "fp16": 2048},
    (8, 6): {"fp32": 256, "fp16": 1024},
    (8, 9): {"fp32": 256, "fp16": 1024},
    (9, 0): {"fp32": 256, "fp16": 4096},
}


@dataclass(frozen=True)
class Peak:
    """Of one device, at its highest clocks."""

    operations_per_s: dict[str, float]  # by precision
    bytes_per_s: float

    def floor_s(self, operations: float, moved: float, precision: str) -> float:
        return max(operations / self.operations_per_s[precision], moved / self.bytes_per_s)


def peak(open_library: Callable[[str], Any] = ctypes.CDLL) -> Peak | None:
    """Of the first device; None where none answers or it is not in the table."""
    try:
        library = open_library(LIBRARY)
        facts = _facts(library)
    except (OSError, AttributeError):
        return None
    if facts is None or (facts[MAJOR], facts[MINOR]) not in OPERATIONS:
        return None
    if min(facts[each] for each in (BUS_BITS, CLOCK_KHZ, MEMORY_CLOCK_KHZ, SM_COUNT)) < 1:
        return None  # a driver may answer with zeros for what it no longer tells
    clocks_per_s = facts[SM_COUNT] * facts[CLOCK_KHZ] * 1e3
    by_precision = OPERATIONS[facts[MAJOR], facts[MINOR]]
    return Peak(
        {precision: each * clocks_per_s for precision, each in by_precision.items()},
        TRANSFERS * facts[MEMORY_CLOCK_KHZ] * 1e3 * facts[BUS_BITS] / 8.0,
    )


def floor_s(model: bytes, shape: tuple[int, int], precision: str, device: Peak | None) -> float | None:
    """Seconds that no engine can go below; None where the device or the package onnx is missing."""
    if device is None or precision not in device.operations_per_s or find_spec("onnx") is None:
        return None
    from calibration.cost import cost

    try:
        needed = cost(model, shape)
    except ValueError:
        return None
    return device.floor_s(needed.operations, needed.bytes, precision)


def _facts(library: Any) -> dict[int, int] | None:
    device = ctypes.c_int(0)
    if library.cuInit(0) or library.cuDeviceGet(ctypes.byref(device), 0):
        return None
    found: dict[int, int] = {}
    for which in (CLOCK_KHZ, MEMORY_CLOCK_KHZ, BUS_BITS, SM_COUNT, MAJOR, MINOR):
        value = ctypes.c_int(0)
        if library.cuDeviceGetAttribute(ctypes.byref(value), which, device):
            return None
        found[which] = value.value
    return found
