"""What others do, on the same seeds: who they are, how each is made in a process, and what keeps one from running."""

from collections.abc import Callable
from dataclasses import dataclass

from calibration.evaluate import focus_mapfost, focus_sharpness
from calibration.evaluate.focus_method import Method
from calibration.evaluate.focus_search import Searching

MOST_EPISODES = 200  # of each: they are there to compare with


@dataclass(frozen=True)
class Baseline:
    """`missing`: why it cannot run on this machine, empty where it can."""

    name: str
    make: Callable[[], Method]
    missing: Callable[[], str] = lambda: ""


def mapfost() -> Method:
    return Searching("MAPFoSt 4.3.1", focus_mapfost.plan())


def sweep() -> Method:
    return Searching("sweep, two passes", focus_sharpness.sweep)


def brent() -> Method:
    return Searching("Brent on sharpness", focus_sharpness.brent)


BASELINES = (
    Baseline("MAPFoSt 4.3.1", mapfost, focus_mapfost.missing),
    Baseline("sweep, two passes", sweep),
    Baseline("Brent on sharpness", brent),
)
