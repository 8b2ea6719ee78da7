"""Brightness and contrast: how frames use their grey levels and what the knobs read back in, a careful step out. Pure.

What a knob does differs from detector to detector, so it is learned from the stream (knobs.py). The first step is
small and turns one knob; what it did tells how far the next may go, and a step that made things worse is undone. A
blurred picture uses fewer levels than a sharp one: it may be called clipped, but squeezed only where it is in focus.
"""

from dataclasses import dataclass, replace
from math import log, sqrt

from agent.control.knobs import CLIPPED_SHARE, SAME_KNOB, Effect, Knobs, learned
from agent.messages import Histogram, Optics

SQUEEZED = 1.0 / 3.0  # of the range: less wastes levels that the noise needs to be told by
LOW, HIGH = 0.05, 0.95  # of the range: where the outermost half per cents should lie
FRAMES, FRAMES_AFTER = 3, 2  # in a row until something is said, and after a step of our own
PRESSING = 0.05  # of the pixels clipped: the spectra that focus is found by are bent, so focus waits
FIRST_STEP, LONGEST_STEP, SHORTEST_STEP = 0.05, 0.15, 0.005  # of a knob's way from 0 to 1
GUESSED = 4.0  # levels, or logarithm of the gain, per whole way of a knob: strong, so that a first step is small
WITHOUT_EFFECT = 0.03  # the same: a knob that does less is not connected
WORSE = 0.02  # of the misuse: below it two frames of one scene differ by themselves
MOST_STEPS = 12  # for one condition
LEAST_SIGNAL = 0.3  # rms of the object over that of the noise: below it more gain would only show more noise
MOST_NOISE = 0.12  # rms noise, of the range, that gain may bring it to
MOST_GAIN = 4.0  # in one step
ROOM, ROOM_ENOUGH = 0.3, 0.1  # of the range, free at the other end: for nobody knows how much, for a little
MOSTLY = 0.3  # of the pixels clipped: how far beyond the end the others lie cannot be guessed from the rest
DARK = 0.5  # of the pixels at black: where the others are noise that is what no beam looks like
RESOLUTION = 0.004  # of a knob in 8 bits
UNKNOWN = Effect()
WHITE, BLACK, BOTH, NARROW = "white", "black", "both ends", "squeezed"


Turn = tuple[str | None, str, bool]  # against which trouble, which knob, and whether up


@dataclass(frozen=True)
class Seen:
    """One frame as it counts here. `site`: all that must stay for two histograms to be compared."""

    knobs: Knobs
    histogram: Histogram
    site: tuple[str | float | None, ...] = ()
    scene_epoch: int | None = None
    optics_epoch: int | None = None
    sharp: bool = False  # in focus, as far as is known


def seen_of(optics: Optics, histogram: Histogram, *, sharp: bool) -> Seen | None:
    """None where a knob is not read back: what it would do could not be seen."""
    if optics.brightness is None or optics.contrast is None:
        return None
    return Seen(
        knobs=Knobs(optics.brightness, optics.contrast),
        histogram=histogram,
        site=(optics.session, optics.source, optics.pixel_size_m, optics.accelerating_voltage_v, optics.dwell_time_s),
        scene_epoch=optics.scene_epoch,
        optics_epoch=optics.optics_epoch,
        sharp=sharp,
    )


@dataclass(frozen=True)
class Advice:
    """Absolute settings, and why."""

    knobs: Knobs
    reason: str


@dataclass(frozen=True)
class Exposure:
    """What is remembered between frames."""

    last: Seen | None = None
    row: int = 0  # frames like the last one
    effect: Effect = UNKNOWN
    before: Seen | None = None  # where the last step was taken from
    advised: Advice | None = None  # the last step; None: nothing said about this condition
    steps: int = 0
    spoils: tuple[Turn, ...] = ()  # what made it worse, and was undone
    quiet: bool = False  # nothing more can be done about this condition

    @property
    def pressing(self) -> bool:
        """Is so much clipped that focus should wait for what can be done about it?"""
        last, before = self.last, self.before
        if last is None or self.quiet or trouble(last) in (None, NARROW):
            return False
        left_as_it_is = before is not None and before.knobs.same(last.knobs)
        return not left_as_it_is and last.histogram.at_black + last.histogram.at_white > PRESSING


def trouble(seen: Seen) -> str | None:
    """How the levels are badly used, if they are."""
    h = seen.histogram
    if h.at_black > DARK and _signal(h) <= h.noise:
        return None
    white, black = h.at_white > CLIPPED_SHARE, h.at_black > CLIPPED_SHARE
    if white or black:
        return BOTH if white and black else WHITE if white else BLACK
    hidden = _signal(h) < LEAST_SIGNAL * h.noise or h.noise >= MOST_NOISE
    return NARROW if seen.sharp and h.high - h.low < SQUEEZED and not hidden else None


def misuse(h: Histogram) -> float:
    """0 where the levels lie as they should. What is clipped is lost, and worse than any level that is not used."""
    clipped = max(h.at_black, h.at_white) > CLIPPED_SHARE
    return 1.0 + 4.0 * (h.at_black + h.at_white) if clipped else abs(h.low - LOW) + abs(h.high - HIGH)


def watch(exposure: Exposure, seen: Seen) -> Exposure:
    """One more frame."""
    last = exposure.last
    if last is None or _elsewhere(last, seen):
        return Exposure(last=seen, row=1, effect=exposure.effect)
    if not last.knobs.same(seen.knobs):
        effect = learned(exposure.effect, last, seen) if last.optics_epoch == seen.optics_epoch else exposure.effect
        ours = exposure.advised is not None and exposure.advised.knobs.same(seen.knobs, RESOLUTION)
        advised = exposure.advised if ours else None
        return replace(exposure, last=seen, row=1, effect=effect, quiet=False, advised=advised)
    alike = trouble(last) == trouble(seen)
    exposure = replace(exposure, last=seen, row=exposure.row + 1 if alike else 1)
    if trouble(seen) is None and exposure.row >= FRAMES:
        return Exposure(last=seen, row=exposure.row, effect=exposure.effect)
    return exposure


def advise(exposure: Exposure) -> tuple[Exposure, Advice | None]:
    """The next step, if one is due: once for each setting of the knobs."""
    seen, before = exposure.last, exposure.before
    stepped = before is not None and seen is not None and not before.knobs.same(seen.knobs)
    if seen is None or exposure.quiet or exposure.row < (FRAMES_AFTER if stepped else FRAMES):
        return exposure, None
    if before is not None and not stepped:
        return exposure, None  # said, and not done
    advice = _undone(before, seen) if before is not None and exposure.advised is not None else None
    if before is not None and advice is not None:
        return _taken_back(exposure, before, seen), advice
    if trouble(seen) is None:
        return exposure, None
    knobs = next_knobs(exposure.effect, seen, blind=exposure.steps, spoils=exposure.spoils)
    if knobs is None or exposure.steps >= MOST_STEPS:
        return replace(exposure, quiet=True), None
    advice = Advice(knobs, f"{described(seen.histogram, trouble(seen))}: {_told(seen.knobs, knobs)}")
    return replace(exposure, before=seen, advised=advice, steps=exposure.steps + 1), advice


def answered(exposure: Exposure, *, followed: bool, again: bool = False) -> Exposure:
    """What became of the advice; `again`: it came too late and may be given once more."""
    if followed:
        return exposure
    return replace(exposure, before=None, advised=None, row=0) if again else replace(exposure, quiet=True)


def _taken_back(exposure: Exposure, before: Seen, seen: Seen) -> Exposure:
    """What is remembered of a step that made it worse: not that way, or that what the knobs do is not known yet."""
    turns = _turns(before, seen.knobs)
    exposure = replace(exposure, before=seen, advised=None, steps=exposure.steps + 1)
    return (
        replace(exposure, spoils=(*exposure.spoils, *turns)) if len(turns) == 1 else replace(exposure, effect=UNKNOWN)
    )


def _undone(before: Seen, seen: Seen) -> Advice | None:
    """Back to what was, if it was better."""
    if misuse(seen.histogram) <= misuse(before.histogram) + WORSE:
        return None
    now, then = (described(each.histogram, trouble(each)) for each in (seen, before))
    return Advice(before.knobs, f"the last step made it worse ({now}, before {then}): back")


def described(h: Histogram, what: str | None) -> str:
    if what in (WHITE, BLACK, BOTH):
        share = h.at_white if what == WHITE else h.at_black if what == BLACK else h.at_white + h.at_black
        return f"{share:.1%} of the pixels clipped at {what}"
    return f"{h.high - h.low:.0%} of the grey levels used"


def _told(old: Knobs, new: Knobs) -> str:
    turns = (("brightness", old.brightness, new.brightness), ("contrast", old.contrast, new.contrast))
    return ", ".join(f"{name} {was:.3f} to {to:.3f}" for name, was, to in turns if abs(to - was) > SAME_KNOB)


def _turns(seen: Seen, new: Knobs) -> tuple[Turn, ...]:
    old = seen.knobs
    ways = (("brightness", new.brightness - old.brightness), ("contrast", new.contrast - old.contrast))
    return tuple((trouble(seen), name, way > 0.0) for name, way in ways if abs(way) > SAME_KNOB)


def _spoilt(spoils: tuple[Turn, ...], seen: Seen, knob: str) -> frozenset[bool]:
    return frozenset(up for what, name, up in spoils if (what, name) == (trouble(seen), knob))


def _elsewhere(last: Seen, seen: Seen) -> bool:
    """Did something other than the knobs change that makes another picture?"""
    return last.site != seen.site or (last.scene_epoch != seen.scene_epoch and last.knobs.same(seen.knobs))


# --- where to turn them ---


def next_knobs(effect: Effect, seen: Seen, *, blind: int = 0, spoils: tuple[Turn, ...] = ()) -> Knobs | None:
    """Towards levels from LOW to HIGH, as far as the effect of the knobs is known; None where neither helps.

    blind: steps taken before; where they have shown nothing yet, all levels being clipped, the next is longer.
    """
    effect = effect.near(seen.knobs)
    low, high = _reach(seen.histogram)
    stretch = _stretch(seen, high - low)
    lift = (LOW + HIGH) / 2.0 - effect.pivot - stretch * ((low + high) / 2.0 - effect.pivot)
    contrast = _way(log(stretch), effect.gain, blind=blind, spoilt=_spoilt(spoils, seen, "contrast"))
    brightness = _way(lift, effect.lift, blind=blind, spoilt=_spoilt(spoils, seen, "brightness"))
    if effect.gain is not None and effect.lift is not None:
        # What limits one limits the other: a stretch without its lift would clip at the other end.
        short = min(1.0, LONGEST_STEP / max(abs(contrast), abs(brightness), 1e-9))
        return _turned(seen.knobs, brightness=short * brightness, contrast=short * contrast)
    # One knob at a time until it is known what both do.
    turns = (_turned(seen.knobs, brightness=_short(brightness)), _turned(seen.knobs, contrast=_short(contrast)))
    first, second = turns if _lift_first(seen) else turns[::-1]
    return first or second


def _lift_first(seen: Seen) -> bool:
    """Brightness, where only one end is clipped and there is room at the other; contrast needs it to follow."""
    h, what = seen.histogram, trouble(seen)
    if what == WHITE:
        return h.low > (ROOM if h.at_white > MOSTLY else ROOM_ENOUGH)
    return what == BLACK


def _way(wanted: float, effect: float | None, *, blind: int, spoilt: frozenset[bool]) -> float:
    """Of the knob; as if it were a strong one while nobody knows, none where it has no effect or does harm.

    spoilt: the ways, up or down, that made this trouble worse.
    """
    if effect is None:
        size = min(min(abs(wanted) / GUESSED, FIRST_STEP) * (1 + blind), LONGEST_STEP)
        way = size if wanted > 0.0 else -size
        way = -way if (way > 0.0) in spoilt else way  # the other way round, then
    else:
        way = wanted / effect if abs(effect) >= WITHOUT_EFFECT else 0.0
    return 0.0 if (way > 0.0) in spoilt else way


def _short(way: float) -> float:
    return min(max(way, -LONGEST_STEP), LONGEST_STEP)


def _reach(h: Histogram) -> tuple[float, float]:
    """The outermost half per cents, beyond the range where they are clipped: the further, the more is clipped."""
    beyond_white = (1.0 - h.middle) * (0.1 + 2.0 * h.at_white) if h.at_white < MOSTLY else 1.0
    beyond_black = h.middle * (0.1 + 2.0 * h.at_black) if h.at_black < MOSTLY else 1.0
    low = -beyond_black if h.at_black > CLIPPED_SHARE else h.low
    return low, 1.0 + beyond_white if h.at_white > CLIPPED_SHARE else h.high


def _stretch(seen: Seen, span: float) -> float:
    """Factor by which levels should be stretched; never more gain than the signal is worth, none where it clips."""
    wanted, h = (HIGH - LOW) / max(span, 1e-6), seen.histogram
    if trouble(seen) != NARROW:
        return min(wanted, 1.0 if max(h.at_black, h.at_white) < MOSTLY else 0.5)
    return max(1.0, min(wanted, MOST_GAIN, MOST_NOISE / max(h.noise, 1e-9)))


def _signal(h: Histogram) -> float:
    return sqrt(max(h.spread**2 - h.noise**2, 0.0))


def _turned(knobs: Knobs, *, brightness: float = 0.0, contrast: float = 0.0) -> Knobs | None:
    """Within 0 to 1; None where that leaves nothing to be turned."""
    turned = Knobs(_within(knobs.brightness + brightness), _within(knobs.contrast + contrast))
    far = max(abs(turned.brightness - knobs.brightness), abs(turned.contrast - knobs.contrast))
    return None if far < SHORTEST_STEP else turned


def _within(value: float) -> float:
    return round(min(max(value, 0.0), 1.0), 4)
