"""Does the newest picture belong to its header? What a routine holds for where it does not. Pure.

A grabber that hands out its last buffer shows the place before under the header of now. After the first probe that is
two pictures alike, which a lens exactly half-way across focus makes too: so the same place is looked at once more.
"""

from collections.abc import Sequence
from math import log

import numpy as np
from numpy.typing import NDArray

from agent.control.cells import cells
from agent.control.estimate import Estimate
from agent.control.instrument import Instrument
from agent.messages import Evidence

Real = NDArray[np.float64]

RING, RINGS, SECTORS = 0.05, 9, 4  # cycles per pixel; bins of hundreds of samples
ALL = slice(None)
GAIN = 0.1  # of the power, that charging or a detector may change between two frames
UNLIKE = 3.0  # mean square of the bins, in units of what is expected: 0.3 to 2.1 for two looks at one place
HALF_WAY = 0.05  # of a probe, beside its sigma: what a picture from before it is told apart from focus half-way by
STRANGE_SIGMAS = 3.0  # of the angle's own doubt: a header's is trusted less than a certificate's
STRANGE_ANGLE = 0.47  # logarithm: an angle off its certificate by more than a third either way fits no column


def half_way(evidence: Sequence[Evidence], found: Estimate) -> bool:
    """Do the last two pictures read as alike though the lens moved, which only focus in the middle of them explains?"""
    if len(evidence) < 2 or found.defocus_m is None or found.sigma_m is None:
        return False
    way_m = evidence[-1].working_distance_m - evidence[-2].working_distance_m
    return abs(found.defocus_m - way_m / 2.0) < found.sigma_m + HALF_WAY * abs(way_m)


def differ(one: Evidence, other: Evidence) -> bool:
    """Are two looks at one place, with the same settings, pictures of different blur?

    By the power in rings and sectors of the spectrum, whose scatter the noise foretells; a gain may have changed too.
    """
    power = [_power(e) for e in (one, other)]
    samples = one.independent * len(one.spectra) * cells().count
    signal = np.maximum((power[0] + power[1]) / 2.0 - 1.0, 0.0)
    apart = in_bins(samples * (power[0] - power[1]))
    chance = in_bins(2.0 * samples * (2.0 * signal + 1.0))
    tolerated = (GAIN * in_bins(samples * signal)) ** 2
    return float(np.mean(apart**2 / (chance + tolerated))) > UNLIKE


def _power(e: Evidence) -> Real:
    """Of each cell, in units of the noise."""
    return cells().mean(np.asarray((np.abs(e.spectra) ** 2).mean(axis=0) / e.noise, np.float32))


def in_bins(values: Real, of: slice | NDArray[np.intp] = ALL) -> Real:
    """Sums over rings and sectors: enough of them for a blur that is not round. of: the cells that are given."""
    fx, fy = cells().fx[of], cells().fy[of]
    ring = np.minimum((np.hypot(fx, fy) / RING).astype(np.intp), RINGS - 1)
    sector = ((np.arctan2(fy, fx) / np.pi + 0.5) * SECTORS).astype(np.intp) % SECTORS
    return np.asarray(np.bincount(ring * SECTORS + sector, weights=values, minlength=RINGS * SECTORS), np.float64)


def strange_angle(found: Estimate, instrument: Instrument) -> bool:
    """Do the frames agree only on an angle that the certificate rules out?"""
    known, fitted = instrument.alpha_rad, found.alpha_rad
    if known is None or fitted is None or instrument.alpha_sigma_rad == 0.0:
        return False
    doubt = instrument.alpha_sigma_rad / known
    return abs(log(fitted / known)) > max(STRANGE_ANGLE, STRANGE_SIGMAS * doubt)
