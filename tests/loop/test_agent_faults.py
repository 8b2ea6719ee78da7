"""What goes wrong between a microscope and its agent, through the running agent over real sockets: each ends in focus
or held with a reason that fits, and never worse than it began."""

import itertools
import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import hypot
from pathlib import Path

import pytest

from agent.wire import array1
from calibration.evaluate.focus_faults import FAULTS, Fault
from calibration.evaluate.focus_grid import Case, draw
from calibration.twin.instrument import MicroscopeSettings
from calibration.twin.microscope import VirtualMicroscope
from calibration.twin.obey import acknowledgement, obey
from calibration.twin.script import Do, act
from tests.loop.harness import SHAPE, Agent, Message, said

SCANS = 24  # until a routine has ended: the longest takes ten frames of evidence, of which a fault may cost every third
WORSE_H = 0.25  # the play of the lens, and what a trim without a picture may miss by
DRAWN: Case = draw(0, seed=1)  # of it only what a script asks: how long half a depth of focus is
SESSIONS = itertools.count(1)


@dataclass
class Outcome:
    """How a routine ended, and the truth."""

    phase: str
    reasons: list[str]  # of holds, in their order
    began_h: float
    off_h: float
    astigmatism_h: float
    frames: int

    @property
    def in_focus(self) -> bool:
        return self.phase == "converged" and self.off_h < 1.0 and self.astigmatism_h < 1.0

    @property
    def no_worse(self) -> bool:
        return self.off_h <= self.began_h + WORSE_H


class Laboratory:
    """One agent in control; for each fault a microscope, a certificate and a stream of their own."""

    def __init__(self, folder: Path) -> None:
        self.certificate = folder / "certificate.json"
        VirtualMicroscope(settings()).certificate().save(self.certificate)
        self.agent = Agent(folder, frames={"stale_after_s": 1000.0}, focus={"certificate": self.certificate}).start()
        self.wire = self.agent.wire

    def run(self, fault: Fault) -> Outcome:
        """Frames through the fault, until the routine has ended and nothing is left to answer."""
        self.scope = VirtualMicroscope(fault.settings(settings(session=f"fault {next(SESSIONS)}")))
        self._certify(fault)
        stream, script = fault.stream(), deque(sorted(fault.script(DRAWN), key=lambda action: action.frame))
        self.wire.change_mode("suggest")
        self.wire.mark = since = len(self.wire.heard)
        began_h, quiet, phase, frames = self.off_h, 0, "", 0
        self.wire.change_mode("control", lease_s=600.0, controller="faulty")
        for number in range(SCANS):
            while script and script[0].frame <= number:
                action = script.popleft()
                act(self.scope, action)
                began_h = self.off_h if action.do is Do.STAGE else began_h
            told, asked = self._scan(stream(number, self._message(number)))
            phase, frames = (told["phase"], told["evidence_frames"]) if told else (phase, frames)
            quiet = 0 if asked or phase not in ("converged", "held") else quiet + 1
            if quiet > 1:
                break
        holds = [each["reason"] for each in self.wire.heard[since:] if said("hold", state="begin")(each)]
        size_m = hypot(*self.scope.astigmatism_m)
        return Outcome(phase, holds, began_h, self.off_h, size_m / self.scope.half_depth_of_focus_m, frames)

    @property
    def off_h(self) -> float:
        return abs(self.scope.defocus_m) / self.scope.half_depth_of_focus_m

    def _certify(self, fault: Fault) -> None:
        """The agent reads the certificate again."""
        fault.certificate(self.scope.certificate()).save(self.certificate)
        before = self.agent.loop.decider.terms
        assert self.wire.ask("reload")["ok"]
        while self.agent.loop.decider.terms is before:
            self.wire.flush()

    def _message(self, number: int) -> Sequence[bytes | memoryview]:
        self.scope.wait_until(max(self.scope.settled_ns, self.scope.scene_settled_ns))
        return array1.encode(number, *self.scope.frame())

    def _scan(self, messages: Iterable[Sequence[bytes | memoryview]]) -> tuple[Message | None, bool]:
        """What the agent said of the last message, and whether it asked for anything, which is done."""
        told, asked = None, False
        for parts in messages:
            since = len(self.wire.heard)
            self.wire.send(parts)
            self.wire.flush()
            heard = self.wire.heard[since:]
            shown = json.loads(bytes(parts[0]))["frame"]
            told = next((each for each in heard if said("focus", frame=shown)(each)), told)
            for each in heard:
                asked |= each["topic"] == "suggestion"
                if each["topic"] == "suggestion":
                    done = acknowledgement(each, obey(self.scope, each, age_s=0.0))
                    self.wire.ask("ack", **{name: value for name, value in done.items() if value is not None})
        return told, asked


def settings(session: str | None = None) -> MicroscopeSettings:
    return MicroscopeSettings(
        specimen="grains",
        shape=SHAPE,
        snr=3.0,
        start_defocus_m=4e-6,
        seed=3,
        astigmatism_m=(0.5e-6, -0.3e-6),
        session=session,
    )


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    folder = tmp_path_factory.mktemp("a")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNTIME_DIRECTORY", str(folder))
        laboratory = Laboratory(folder)
    yield laboratory
    laboratory.agent.stop()


@pytest.mark.parametrize(
    "name",
    [
        "", "late frames", "dropped frames", "repeated frames", "reordered frames", "flipped stigmator",
        "alpha 30 % low", "alpha 30 % high", "auto-contrast", "charging", "stage move",
    ],
)  # fmt: skip
def test_it_comes_into_focus_all_the_same(laboratory: Laboratory, name: str) -> None:
    end = laboratory.run(FAULTS[name])
    assert end.in_focus, end
    assert end.no_worse


@pytest.mark.parametrize(
    ("name", "reasons"),
    [
        ("stale pixels", {"inconsistent", "frozen", "actuator_dead"}),
        ("no-op actuator", {"actuator_dead", "ambiguous"}),
        ("blanked", {"blank"}),
        ("saturated", {"saturated"}),
        ("recursive averaging", {"averaging"}),
    ],
)
def test_it_holds_and_says_why(laboratory: Laboratory, name: str, reasons: set[str]) -> None:
    end = laboratory.run(FAULTS[name])
    assert end.in_focus or set(end.reasons) & reasons, end
    assert end.phase != "converged" or end.in_focus, end
    assert end.no_worse
