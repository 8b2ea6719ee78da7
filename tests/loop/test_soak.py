"""Hours in minutes, most of them the three models': memory that stays flat, books that balance and numbers without a
gap over a long stream."""

import gc
import itertools
import tracemalloc
from collections.abc import Callable
from random import Random

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from engines.readings import FocusReading
from tests.fakes.models import Reads
from tests.loop.harness import ROOT, SHAPE, Agent, Message, Process, Stream, Wire, said
from tests.loop.test_agent_bad_input import MALFORMED
from tests.loop.test_agent_models import Pits, Relief

pytestmark = pytest.mark.soak

FRAMES, WARM_UP = 20_000, 4_000
WINDOW = 100  # frames on their way; the inspection lane holds two thousand of these
LIVE_EVERY = 20  # the others are to be inspected, so that each of them is looked at
RESTEP_EVERY = 60  # frames at one working distance: the estimator is asked anew, with spectra kept and dropped
GROWTH_BYTES = 12 << 20  # of resident memory from warm-up to end: 800 bytes a frame would be found
TRACED, TRACED_WARM_UP = 3_000, 1_000
TRACED_BYTES = 64 << 10  # of the agent's own Python objects: 33 bytes a frame would be found
MIXED, MALFORMED_SHARE = 2_000, 0.1


def pictures(count: int) -> list[NDArray[np.uint8]]:
    """Blocks with noise on top: texture enough for the model and the estimator, quick to make."""
    rng = np.random.default_rng(3)
    still = np.kron(rng.integers(60, 200, (SHAPE[0] // 16, SHAPE[1] // 16)), np.ones((16, 16)))
    return [np.clip(still + rng.normal(0.0, 12.0, SHAPE), 1, 254).astype(np.uint8) for _ in range(count)]


class Long:
    """A producer of many frames that waits for the agent every window."""

    def __init__(self, wire: Wire) -> None:
        self.stream = Stream(wire, session="soak")
        self.inspected: list[int] = []
        self._pictures = itertools.cycle(pictures(50))

    def frame(self, *, inspect: bool | None = None) -> None:
        number = self.stream.number + 1
        step = number // RESTEP_EVERY
        sent = self.stream.send(
            next(self._pictures),
            inspect=number % LIVE_EVERY != 0 if inspect is None else inspect,
            optics_epoch=1 + step,
            working_distance_m=5e-3 + (3e-6 if step % 2 else 0.0),
        )
        if inspect or (inspect is None and sent % LIVE_EVERY != 0):
            self.inspected.append(sent)

    def run(self, frames: int, *, forget: bool = False) -> None:
        """`forget`: what was heard is not kept, because a freed object that lives on here counts as the agent's."""
        for done in range(1, frames + 1):
            self.frame(inspect=True if done % WINDOW == 0 else None)
            if done % WINDOW == 0:
                self.stream.wire.until(said("focus", frame=self.stream.number), deadline_s=60.0)
                if forget:
                    del self.stream.wire.heard[:-1], self.inspected[:]
                self.stream.wire.mark = len(self.stream.wire.heard)


def check_books(wire: Wire, *, sent: int, malformed: int = 0) -> Message:
    books = wire.settled_books()
    assert books["received"] == sent
    assert sum(books["malformed"].values()) == malformed
    assert books["received"] == books["processed"] + books["superseded"] + books["uninspected"] + malformed
    return books


def check_inspected(wire: Wire, inspected: list[int]) -> None:
    def last(told: Message) -> bool:
        ended = told["topic"] == "defects" or told.get("code") == "uninspected"
        return ended and told.get("frame") == inspected[-1]

    # The books come by another socket than the advice: the last answer may still be on its way.
    wire.until(last, since=max(len(wire.heard) - 1000, 0))
    named = {told["frame"] for told in wire.heard if told.get("code") == "uninspected"}
    for topic in ("focus", "defects"):
        answered = {told["frame"] for told in wire.heard if told["topic"] == topic}
        assert set(inspected) <= answered | named, topic


def test_memory_is_flat_over_20_000_frames(launch: Callable[..., Process]) -> None:
    process = launch().start()
    long, resident = Long(process.wire), []
    long.run(WARM_UP)
    for _ in range((FRAMES - WARM_UP) // 1000):
        resident.append(psutil.Process(process.popen.pid).memory_info().rss)
        long.run(1000)
    resident.append(psutil.Process(process.popen.pid).memory_info().rss)
    print(f"resident, MiB: {[round(each / 2**20, 1) for each in resident]}")
    assert resident[-1] - resident[0] < GROWTH_BYTES, f"resident memory grew: {resident}"
    books = check_books(process.wire, sent=FRAMES)
    assert books["uninspected"] == 0
    check_inspected(process.wire, long.inspected)


class Instant(Reads):
    """A model that costs nothing, so that what grows is the agent's."""

    name = "instant@0"

    def read(self, image: NDArray[np.uint8], pixel_size_m: float | None) -> FocusReading:
        return FocusReading(score=5.0, blur_px=1.0, blur_uncertainty_px=0.1, content=0.9)


def test_no_python_object_of_the_agent_is_left_behind_by_a_frame(agent: Agent) -> None:
    agent.look_with(Instant(), Relief(), Pits())
    long = Long(agent.wire)
    tracemalloc.start(5)
    try:
        long.run(TRACED_WARM_UP, forget=True)
        before = traced()
        long.run(TRACED - TRACED_WARM_UP, forget=True)
        found = traced().compare_to(before, "lineno")
    finally:
        tracemalloc.stop()
    grown = [each for each in found if each.size_diff > 0]
    top = "\n".join(str(each) for each in grown[:10])
    print(f"the largest differences:\n{top}")
    assert sum(each.size_diff for each in found) < TRACED_BYTES, f"what grew:\n{top}"


def traced() -> tracemalloc.Snapshot:
    """What the agent's and the engines' own lines hold."""
    gc.collect()
    own = [tracemalloc.Filter(True, f"{ROOT}/{package}/*") for package in ("agent", "engines")]
    return tracemalloc.take_snapshot().filter_traces(own)


def test_2_000_frames_with_a_tenth_malformed_are_all_accounted_for(launch: Callable[..., Process]) -> None:
    process, chance = launch().start(), Random(7)
    long, bad = Long(process.wire), 0
    for n in range(MIXED):
        if chance.random() < MALFORMED_SHARE:
            process.wire.send(chance.choice([parts for parts, _ in MALFORMED.values()]))
            bad += 1
        else:
            long.frame(inspect=chance.random() < 0.3)
        if n % WINDOW == WINDOW - 1:
            process.wire.flush()
    flushed = MIXED // WINDOW
    books = check_books(process.wire, sent=MIXED + flushed, malformed=bad)
    assert books["uninspected"] == 0
    check_inspected(process.wire, long.inspected)
    told = [flag for flag in process.wire.heard if flag.get("code") == "malformed"]
    assert told
