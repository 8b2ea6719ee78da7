"""What goes wrong in the bench: in the stream of frames, in the column, in the certificate, by somebody's hand."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from calibration.certificate import Certificate
from calibration.evaluate.focus_grid import Case, draw
from calibration.twin.column import Actuator
from calibration.twin.instrument import MicroscopeSettings
from calibration.twin.script import Action, Do, Parts, StreamFilter, sound

AMONG = 3  # one frame in so many is dropped, or changes places
ALPHA = 0.3  # relative error of the angle, far beyond the sigma that the certificate vouches for
STAGE_H = 5.0  # by which another site lies higher or lower
EPISODES = 20  # of each fault
FARTHEST = 2  # stratum of the start: within 30 h it is the fault that decides, and not the way


def _same(settings: MicroscopeSettings) -> MicroscopeSettings:
    return settings


def _true(certificate: Certificate) -> Certificate:
    return certificate


def _no_script(_: Case) -> Sequence[Action]:
    return ()


@dataclass(frozen=True)
class Fault:
    """One thing that is not as it should be. `stream` makes a filter for each episode, for it may remember frames."""

    name: str
    what: str = ""
    settings: Callable[[MicroscopeSettings], MicroscopeSettings] = _same
    certificate: Callable[[Certificate], Certificate] = _true
    script: Callable[[Case], Sequence[Action]] = _no_script
    stream: Callable[[], StreamFilter] = lambda: sound


# --- in the stream: one message in; none, one or several out ---


def late() -> StreamFilter:
    """Each frame comes a second time after its successor: what a move was judged by comes again when it is over."""
    before: list[Parts] = []

    def through(_: int, parts: Parts) -> Iterable[Parts]:
        again, before[:] = list(before), [parts]
        return [parts, *again]

    return through


def behind() -> StreamFilter:
    """Pixels one frame old under the header of now: a grabber that hands out its last buffer."""
    held: list[Parts] = []

    def through(_: int, parts: Parts) -> Iterable[Parts]:
        pixels = held[0][1] if held else parts[1]
        held[:] = [parts]
        return [(parts[0], pixels)]

    return through


def lossy() -> StreamFilter:
    return lambda number, parts: [] if number % AMONG == 1 else [parts]


def doubled() -> StreamFilter:
    return lambda _, parts: [parts, parts]


def shuffled() -> StreamFilter:
    """One frame in AMONG waits for its successor and comes after it."""
    held: list[Parts] = []

    def through(number: int, parts: Parts) -> Iterable[Parts]:
        if number % AMONG == 1:
            held[:] = [parts]
            return []
        waiting, held[:] = list(held), []
        return [parts, *waiting]

    return through


def torn() -> StreamFilter:
    """One message in AMONG has lost its second half."""

    def through(number: int, parts: Parts) -> Iterable[Parts]:
        return [(parts[0], bytes(parts[1])[: len(parts[1]) // 2])] if number % AMONG == 1 else [parts]

    return through


# --- in the column and its certificate ---


def _stuck(s: MicroscopeSettings) -> MicroscopeSettings:
    return replace(s, actuator=Actuator.STUCK)


def _inverted(s: MicroscopeSettings) -> MicroscopeSettings:
    return replace(s, actuator=Actuator.INVERTED)


def _charging(s: MicroscopeSettings) -> MicroscopeSettings:
    """Tails, a halo, and a picture that grows brighter by half while it is being focused."""
    return replace(s, charging=0.4, halo=0.3, charging_brightness=0.5, charging_electrons=200.0)


def _recursive(s: MicroscopeSettings) -> MicroscopeSettings:
    return replace(s, averaging="recursive", averages=4)


def _overexposed(s: MicroscopeSettings) -> MicroscopeSettings:
    return replace(s, contrast=1.0, brightness=0.9)


def _flipped(c: Certificate) -> Certificate:
    """x does the opposite of what the certificate says."""
    (xx, xy), (yx, yy) = c.stigmator_matrix_m
    return replace(c, stigmator_matrix_m=((-xx, xy), (-yx, yy)))


def _wrong_alpha(factor: float) -> Callable[[Certificate], Certificate]:
    return lambda c: replace(c, alpha_rad=c.alpha_rad * factor)


# --- by somebody's hand: the frame count from 0; with the second a bracket is under way ---


def _auto_contrast(_: Case) -> Sequence[Action]:
    return [Action(2, Do.AUTO_CONTRAST)]


def _blanked(_: Case) -> Sequence[Action]:
    return [Action(2, Do.BLANK)]


def _blinked(_: Case) -> Sequence[Action]:
    return [Action(2, Do.BLANK), Action(4, Do.BLANK, 0.0)]


def _frozen(_: Case) -> Sequence[Action]:
    return [Action(2, Do.FREEZE_SILENTLY)]


def _stage(case: Case) -> Sequence[Action]:
    sign = 1.0 if case.number % 2 else -1.0
    return [Action(2, Do.STAGE, sign * STAGE_H * case.h_m)]


SOUND = Fault("")
FAULTY: tuple[Fault, ...] = (
    Fault("late frames", "each comes again after its successor", stream=late),
    Fault("stale pixels", "a frame old under the header of now", stream=behind),
    Fault("dropped frames", f"one in {AMONG}", stream=lossy),
    Fault("repeated frames", "each twice", stream=doubled),
    Fault("reordered frames", f"one in {AMONG} after its successor", stream=shuffled),
    Fault("torn messages", f"one in {AMONG} is cut in half", stream=torn),
    Fault("no-op actuator", "moves are acknowledged and not made", settings=_stuck),
    Fault("inverted actuator", "moves go the other way", settings=_inverted),
    Fault("flipped stigmator", "x does the opposite of the certificate", certificate=_flipped),
    Fault("alpha 30 % low", "in the certificate", certificate=_wrong_alpha(1.0 - ALPHA)),
    Fault("alpha 30 % high", "in the certificate", certificate=_wrong_alpha(1.0 + ALPHA)),
    Fault("auto-contrast", "in the middle of a bracket", script=_auto_contrast),
    Fault("blanked", "from the third frame on", script=_blanked),
    Fault("blinked", "blanked for two frames of a bracket", script=_blinked),
    Fault("frozen silently", "the same picture for ever, the header says nothing", script=_frozen),
    Fault("saturated", "contrast and brightness far too high", settings=_overexposed),
    Fault("charging", "tails, halo, brighter by half meanwhile", settings=_charging),
    Fault("recursive averaging", "of 4, as the header says", settings=_recursive),
    Fault("stage move", f"in a bracket, to a site {STAGE_H:g} h higher or lower", script=_stage),
)
FAULTS: dict[str, Fault] = {each.name: each for each in (SOUND, *FAULTY)}


def numbers(seed: int, specimens: Sequence[str] = ()) -> list[int]:
    """The cases that every fault is tried on: the first with something to focus on and a start within 30 h."""
    found: list[int] = []
    number = 0
    while len(found) < EPISODES:
        case = draw(number, seed=seed, specimens=specimens)
        if case.stratum <= FARTHEST and (case.textured or specimens):
            found.append(number)
        number += 1
    return found
