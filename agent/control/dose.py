"""Electrons in a pixel, as the header tells them, and what so many can show. Pure."""

from agent.messages import Optics

ELEMENTARY_CHARGE_C = 1.602176634e-19
# Fewer leave a relative noise of a half: a texture of 5 % rms is then a tenth of the noise, and a frame of a quarter
# of a million pixels shows no less.
SHOWS_TEXTURE = 6.0


def electrons_per_pixel(optics: Optics) -> float | None:
    """Of the beam, all averaged scans together; None where current, dwell time or the number of scans is unknown."""
    averaged = optics.averaging not in (None, "none")
    count = optics.average_count if optics.average_count is not None or averaged else 1
    if not optics.beam_current_a or optics.dwell_time_s is None or count is None:
        return None
    return optics.beam_current_a * optics.dwell_time_s * count / ELEMENTARY_CHARGE_C


def nothing_seen(optics: Optics) -> str:
    """Why a frame without a structure shows none: there is none, or the dose is too low to tell."""
    electrons = electrons_per_pixel(optics)
    return "noise_only" if electrons is not None and electrons < SHOWS_TEXTURE else "featureless"
