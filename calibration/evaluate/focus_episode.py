"""One episode in virtual time: the virtual microscope in, a method beside it, one row out. No socket, no sleep.

Frames go through the wire's bytes, so that faults lie in the stream; suggestions are obeyed by compare-and-set and
acknowledged once the optics have settled, as by the controller that speaks over sockets.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
from numpy.typing import NDArray

from agent.messages import Ack, Kind, Optics, Outcome
from agent.wire import array1
from calibration.evaluate.focus_faults import SOUND, Fault
from calibration.evaluate.focus_grid import Case
from calibration.evaluate.focus_method import End, Method, Part, Wish, Word
from calibration.evaluate.focus_rows import Row, Said
from calibration.twin.instrument import MicroscopeSettings
from calibration.twin.microscope import VirtualMicroscope
from calibration.twin.obey import acknowledgement, obey
from calibration.twin.readback import Applied
from calibration.twin.script import Do, act

SCANS = 120  # in one episode at most: a sweep of 24 pictures, of each of which some are lost while the lens moves
HOLDS = 8  # frames in a row for which a stream is no evidence, after which nobody waits any longer
YIELD_HOLDS = 60  # ... where it yields to an operator, which has an end
WRONG_H = 0.25  # of h: a correction that ends so much further away went the wrong way


def run(case: Case, method: Method, fault: Fault = SOUND) -> Row:
    """The episode, whatever its end."""
    return Episode(case, method, fault).run()


@dataclass
class Spent:
    """What an episode counts while it runs."""

    evidence: int = 0
    moves: int = 0
    wrong: int = 0
    electrons: float = 0.0
    method_s: float = 0.0
    moved_m: float = 0.0
    said: list[Said] = field(default_factory=list)
    took_ms: list[float] = field(default_factory=list)


class Episode:
    """Owns one microscope and the order of things around it."""

    def __init__(self, case: Case, method: Method, fault: Fault) -> None:
        self.case, self.method, self.fault = case, method, fault
        began = time.process_time()
        self.settings: MicroscopeSettings = fault.settings(case.settings)
        self.scope = VirtualMicroscope(self.settings, now_ns=1_000_000_000)
        self.spent = Spent()
        self._began_s, self._began_ns = began, self.scope.now_ns
        self._start = (self.scope.defocus_m, _size(self.scope.astigmatism_m))
        self._stream = fault.stream()
        self._script = deque(sorted(fault.script(case), key=lambda action: action.frame))
        self._number = 0
        self._due: deque[tuple[int, Wish]] = deque()  # by when the knob is turned
        self._acks: deque[tuple[int, Ack]] = deque()  # by when the optics have settled
        self._word: Word | None = None
        self._stood = 0  # frames in a row since the word was the last, or the stream no evidence

    def run(self) -> Row:
        certificate = self.scope.certificate(alpha_error=self.case.alpha_error)
        self._timed(self.method.begin, self.fault.certificate(certificate), self.scope.session, self.scope.now_ns)
        while self.scope.frames_taken < SCANS and not self._over():
            self._turn()
        return self._row()

    def _over(self) -> bool:
        word = self._word
        if word is None or self._due or self._acks:
            return False
        # Of a stop the way back may follow with the next frame, for its epochs are compared.
        return word.end is End.CONVERGED or (word.end is End.HELD and self._stood > 1) or self._waited(word)

    def _waited(self, word: Word) -> bool:
        """Long enough for a stream that is no evidence."""
        return word.holding is not None and self._stood > (YIELD_HOLDS if word.holding == "operator" else HOLDS)

    def _turn(self) -> None:
        """One frame: somebody's hand, the scan, the messages it becomes."""
        while self._script and self._script[0].frame <= self.scope.frames_taken:
            action = self._script.popleft()
            self.spent.moved_m += action.value if action.do is Do.STAGE else 0.0
            act(self.scope, action)
        pixels, optics = self._scan()
        messages = list(self._stream(self._number, array1.encode(self._number, pixels, optics)))
        self._number += 1
        self._acknowledge()
        if not messages:
            self._timed(self.method.idle, self.scope.now_ns)
        for parts in messages:
            self._show(parts, optics)

    def _scan(self) -> tuple[NDArray[Any], Optics]:
        """A frame; what is due meanwhile falls into it."""
        end_ns = self.scope.begin()
        while self._due and self._due[0][0] <= end_ns:
            due_ns, wish = self._due.popleft()
            self.scope.wait_until(due_ns)
            self._apply(wish)
        taken = self.scope.frame()
        if not self.scope.blanked:
            self.spent.electrons += self.scope.electrons_per_pixel * taken[0].size * self.scope.passes
        return taken

    def _show(self, parts: Sequence[Part], optics: Optics) -> None:
        began = time.process_time()
        word = self.method.see(parts, self.scope.now_ns)
        took_s = time.process_time() - began
        self.spent.method_s += took_s
        if word is None:
            return
        if word.evidence > self.spent.evidence:
            self.spent.took_ms.append(1e3 * took_s)
            self._note(word)
        self.spent.evidence = max(self.spent.evidence, word.evidence)
        stands = word.end is not None or word.holding is not None
        self._stood = self._stood + 1 if stands and word.wish is None else 0
        self._word = word
        if word.wish is not None:
            self._take(word.wish)

    def _take(self, wish: Wish) -> None:
        """Now, with the scan waiting until all has settled; or later, with the scan going on."""
        if self.case.latency_s > 0.0:
            self._due.append((self.scope.now_ns + round(self.case.latency_s * 1e9), wish))
            return
        self._apply(wish)
        self.scope.wait_until(self.scope.settled_ns)
        self._acknowledge()

    def _apply(self, wish: Wish) -> None:
        told = {**msgspec.to_builtins(wish.suggestion), "session": wish.frame.session}
        told |= {"optics_epoch": wish.frame.optics_epoch, "scene_epoch": wish.frame.scene_epoch}
        before = self._commanded_h()
        done = obey(self.scope, told, age_s=self.case.latency_s)
        moved = done.outcome in (Outcome.APPLIED, Outcome.CLIPPED)
        self.spent.moves += moved
        if moved and wish.suggestion.kind is Kind.CORRECT and self._commanded_h() > before + WRONG_H:
            self.spent.wrong += 1
        self._acks.append((done.t_settled_ns if moved else self.scope.now_ns, _ack(told, done)))

    def _commanded_h(self) -> float:
        """|z| where the lens is going."""
        scope = self.scope
        return abs(scope.column.lens_m - scope.drawn.in_focus_working_distance_m) / self.case.h_m

    def _acknowledge(self) -> None:
        while self._acks and self._acks[0][0] <= self.scope.now_ns:
            self._timed(self.method.acknowledged, self._acks.popleft()[1])

    def _note(self, word: Word) -> None:
        """An estimate that this frame brought, beside its truth."""
        told, h = word.focus, self.case.h_m
        if told is None or told.defocus_m is None or told.sigma_m is None:
            return
        said = Said(word.evidence, told.defocus_m / h, told.sigma_m / h, self.scope.defocus_m / h)
        ax, ay, sigma = told.astigmatism_x_m, told.astigmatism_y_m, told.sigma_astigmatism_m
        if ax is not None and ay is not None and sigma is not None:
            x, y = self.scope.astigmatism_m
            true = (x / h, y / h)
            said = replace(said, astigmatism_h=(ax / h, ay / h), sigma_astigmatism_h=sigma / h, true_astigmatism_h=true)
        if word.floor is not None:
            said = replace(said, floor_h=word.floor(self.scope.defocus_m, self.scope.astigmatism_m) / h)
        self.spent.said.append(said)

    def _timed(self, call: Callable[..., None], *given: object) -> None:
        began = time.process_time()
        call(*given)
        self.spent.method_s += time.process_time() - began

    def _row(self) -> Row:
        case, spent, scope, h = self.case, self.spent, self.scope, self.case.h_m
        end, reason = self._end()
        return Row(
            method=self.method.name,
            number=case.number,
            fault=self.fault.name or None,
            specimen=case.specimen,
            textured=case.textured,
            stratum=case.stratum,
            snr=case.snr,
            h_m=h,
            pixel_size_m=self.settings.pixel_size_m,
            alpha_rad=self.settings.alpha_rad,
            start_h=self._start[0] / h,
            start_astigmatism_h=self._start[1] / h,
            hysteresis_h=self.settings.hysteresis_m / h,
            end=end,
            reason=reason,
            residual_h=scope.defocus_m / h,
            astigmatism_h=_size(scope.astigmatism_m) / h,
            moved_h=spent.moved_m / h,
            frames=spent.evidence,
            scans=scope.frames_taken,
            electrons=spent.electrons,
            seconds=(scope.now_ns - self._began_ns) / 1e9,
            moves=spent.moves,
            wrong_moves=spent.wrong,
            said=tuple(spent.said),
            took_ms=tuple(spent.took_ms),
            method_s=spent.method_s,
            twin_s=time.process_time() - self._began_s - spent.method_s,
        )

    def _end(self) -> tuple[End, str]:
        word = self._word
        if word is None:
            return End.FAILED, "nothing was said of any frame"
        if word.end is not None:
            return word.end, word.reason
        if word.holding is not None and self._waited(word):
            return End.HELD, word.holding
        return End.FAILED, f"{SCANS} frames" if word.holding is None else f"{SCANS} frames, {word.holding}"


def _ack(told: dict[str, object], done: Applied) -> Ack:
    return msgspec.convert(acknowledgement(told, done), Ack)


def _size(vector: tuple[float, float]) -> float:
    return math.hypot(*vector)
