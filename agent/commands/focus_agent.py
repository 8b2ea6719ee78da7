"""The agent as a method of the focus bench: frames of the wire in, the decider's own words out, as `Loop.step` does it.

In control mode with a lease, on a virtual clock; the models, the terms and the order are those of `beamside run`.
"""

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import cv2

from agent.commands.run import CPU, terms
from agent.control.bound import bound
from agent.control.instrument import Instrument
from agent.decide import Decider
from agent.errors import ConfigurationError, MalformedFrameError
from agent.messages import Ack, Asked, Decision, Evidence, Frame, Mode, ModeRequest, Phase
from agent.models import FocusModel
from agent.perceive import Perceiver
from agent.settings import Focus, Settings
from agent.wire import array1
from calibration.certificate import Certificate
from calibration.evaluate.focus_method import End, Part, Wish, Word
from engines.autofocus import Autofocus
from engines.errors import BackendMissingError, PackageError
from engines.load import load

NAME = "beamside"
LEASE_S = 3600.0
ENDS = {Phase.CONVERGED: End.CONVERGED, Phase.HELD: End.HELD}


class AgentMethod:
    """One decider an episode; the model is read once."""

    name = NAME

    def __init__(self, model: FocusModel | None) -> None:
        self._model = model

    def begin(self, certificate: Certificate, session: str, now_ns: int) -> None:
        with tempfile.TemporaryDirectory(prefix="beamside-bench-") as folder:
            path = Path(folder) / "certificate.json"
            certificate.save(path)
            # The defaults: nothing of the configuration of an agent that runs beside the bench.
            allowed = terms(Settings.model_construct(focus=Focus.model_construct(certificate=path)))
        self._decider, self._instrument = Decider(allowed, boot=session), allowed.instrument
        self._perceiver = Perceiver(self._model)
        self._asked: list[Asked] = [ModeRequest(mode=Mode.CONTROL, lease_s=LEASE_S, controller="bench")]
        self._evidence = self._spent = 0

    def see(self, parts: Sequence[Part], now_ns: int) -> Word | None:
        try:
            frame = array1.decode(parts, dialect="psi", topic="", received_ns=now_ns)
        except MalformedFrameError:
            return None
        return self._word(self._step(frame, now_ns), frame)

    def idle(self, now_ns: int) -> None:
        self._hear(now_ns)
        self._decider.decide(None, None, now_ns=now_ns, wall_ns=now_ns)

    def acknowledged(self, ack: Ack) -> None:
        self._asked.append(ack)

    def _step(self, frame: Frame, now_ns: int) -> Decision:
        """`Loop.step`: hear, admit, look, decide."""
        self._hear(now_ns)
        wanted = self._decider.admit(frame, now_ns)
        findings = self._perceiver.look(frame, wanted)
        return self._decider.decide(frame, findings, now_ns=now_ns, wall_ns=now_ns)

    def _hear(self, now_ns: int) -> None:
        asked, self._asked = self._asked, []
        self._decider.hear(asked, now_ns)

    def _word(self, decision: Decision, frame: Frame) -> Word:
        told, standing = decision.focus, self._decider.standing.reason
        spent = told.evidence_frames if told is not None else 0
        # A routine that begins anew counts from nothing: the specimen bore both.
        self._evidence += spent - self._spent if spent >= self._spent else spent
        self._spent = spent
        phase = self._decider.routine.phase
        end = ENDS.get(phase)
        reason = (self._decider.routine.reason or "held") if end is End.HELD else ""
        asked, held = decision.suggestion, self._decider.routine.evidence
        return Word(
            evidence=self._evidence,
            end=end,
            reason=reason,
            wish=None if asked is None else Wish(asked, frame.reference),
            focus=told,
            holding=standing if end is None else None,
            floor=partial(_floor, held, self._instrument) if len(held) > 1 else None,
        )


def _floor(evidence: Sequence[Evidence], instrument: Instrument, z_m: float, a_m: tuple[float, float]) -> float:
    """Least sigma of defocus, metres, of what the routine holds."""
    return bound(evidence, instrument, defocus_m=z_m, astigmatism_m=a_m).sigma_z_m


def made() -> AgentMethod:
    """With the shipped autofocus model on the processor, on one thread. Raises ConfigurationError."""
    cv2.setNumThreads(1)
    try:
        return AgentMethod(Autofocus(load("autofocus", backend=CPU, threads=1)))
    except (PackageError, BackendMissingError) as error:
        raise ConfigurationError(str(error)) from error
