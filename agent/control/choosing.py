"""Which frames of a routine the estimator is given, and whether its answer goes with the picture. Pure."""

from collections.abc import Sequence
from dataclasses import replace
from math import hypot

from agent.control.estimate import Estimate, Solved, estimate, solved
from agent.control.instrument import Instrument, distinct
from agent.messages import Evidence
from calibration.optics import half_depth_of_focus_m

FAR_H = 20.0  # of h: from here on a quarter of the resolution tells more
FAR_PX = 4.0  # of blur, below which nobody looks for focus that far away
UNLIKE = 2.5  # times the blur that the model reads: an estimate that asks for more, or for less, is not believed
UNLIKE_PX = 1.5  # and so much beyond
NEAR_H = 25.0  # of h from focus: frames further out tell less than they err by, where there are two nearer ones
APART_H = 1.5  # of h, between those
SURE_PLACE_H = 0.1  # of h: a frame whose lens stood in doubt by more is left out


def estimated(
    evidence: Sequence[Evidence], last: Estimate | None, *, blur_px: float | None, instrument: Instrument
) -> tuple[Estimate, Solved | None]:
    """By a quarter of the resolution where focus is far away, else by all of it; not believed against the blur.

    last: what the frames before the newest one said. Beside the answer what it stands on, where all frames were asked
    at their full resolution.
    """
    used = near(evidence, last)
    far, known = _far_away(evidence, blur_px, instrument), None
    if far is None:
        found, known = solved(used, instrument)
    else:
        found = far
    if found.answered and _unlike(found, blur_px):
        return replace(found, reason="ambiguous"), None
    return found, known


def near(evidence: Sequence[Evidence], last: Estimate | None) -> tuple[Evidence, ...]:
    """The evidence without what is far from where focus was last believed to be, or whose place is in doubt, as long
    as enough is left: three places, for two do not tell the angle."""
    focus_m = None if last is None or not last.answered else last.in_focus_working_distance_m
    if last is None or focus_m is None or last.half_depth_of_focus_m is None:
        return tuple(evidence)
    h = last.half_depth_of_focus_m
    close = [e for e in evidence if abs(e.working_distance_m - focus_m) < NEAR_H * h]
    sure = [e for e in close if e.place_sigma_m < SURE_PLACE_H * h]
    choices = [[*some, *(e for e in evidence[-1:] if all(e is not other for other in some))] for some in (sure, close)]
    for places in (3, 2):
        for chosen in choices:
            if len(distinct([e.working_distance_m for e in chosen], APART_H * h)) >= places:
                return tuple(chosen)
    return tuple(evidence)


def _far_away(evidence: Sequence[Evidence], blur_px: float | None, instrument: Instrument) -> Estimate | None:
    coarse = [e.coarse for e in evidence if e.coarse is not None]
    if len(coarse) < len(evidence) or (blur_px is not None and blur_px < FAR_PX):
        return None
    found = estimate(coarse, instrument)
    if found.defocus_m is None or found.alpha_rad is None:
        return None
    h = half_depth_of_focus_m(evidence[-1].pixel_size_m, found.alpha_rad, instrument.fw50_m)
    return replace(found, half_depth_of_focus_m=h) if abs(found.defocus_m) > FAR_H * h else None


def _unlike(found: Estimate, blur_px: float | None) -> bool:
    """Would the picture be far sharper, or far more blurred, than it is? sigma = z / (4 h) pixels."""
    if blur_px is None or found.defocus_m is None or found.half_depth_of_focus_m is None:
        return False
    away = abs(found.defocus_m) + hypot(*(found.astigmatism_m or (0.0, 0.0)))
    expected_px = away / (4.0 * found.half_depth_of_focus_m)
    return max(expected_px, blur_px) > UNLIKE * min(expected_px, blur_px) + UNLIKE_PX
