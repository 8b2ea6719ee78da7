"""How long the lens takes to settle: frames begun right after a change, read in bands of rows as time goes by."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from agent.control.envelope import Move
from calibration.sweep.drive import Driver
from calibration.sweep.errors import RefusedError
from calibration.sweep.instrument import Taken
from calibration.sweep.legs import Leg
from calibration.sweep.measure import Seen, evidence_at, place

FROM, TO = 1 / 6, 2 / 3  # of the legs' span: on one side of focus, where each defocus has a look of its own
BANDS = 4  # of a frame's rows: narrower ones hold too little to read
LEAST_ROWS = 64
FRAMES = 2  # that are read after each change; three times as many where that was too few
MORE = 3
DELAY = 1 / 8  # of a frame time: the second change is read between the times of the first
STILL = 0.1  # of the way: nearer than this the lens has arrived
VOUCHED = 0.2  # of the way, rms of the fit


@dataclass(frozen=True)
class Moment:
    """A band of rows: when it was scanned after the change, and the defocus it shows."""

    t_s: float
    z_m: float
    sigma_m: float


@dataclass(frozen=True, eq=False)
class Settling:
    settle_s: float
    sigma_s: float
    rms_m: float
    from_m: float  # defocus before and after the change
    to_m: float
    frame_time_s: float
    moments: tuple[Moment, ...]
    taken: tuple[Taken, ...]


def run_settling(driver: Driver, leg: Leg, span_m: float) -> Settling:
    """Raises RefusedError where the lens is still on its way after several frames."""
    frames = FRAMES
    change_m = min((TO - FROM) * span_m, driver.envelope.step_m)
    before, after = (
        Move(leg.in_focus_m + FROM * span_m + way_m, driver.start.stigmator_x, driver.start.stigmator_y)
        for way_m in (0.0, change_m)
    )
    taken, t_ns = driver.step(before, after, frames=frames, delay_s=0.0)
    moments = _moments(taken, t_ns, leg)
    if not _arrived(moments, taken, leg):
        frames *= MORE
        taken, t_ns = driver.step(before, after, frames=frames, delay_s=0.0)
        moments = _moments(taken, t_ns, leg)
        if not _arrived(moments, taken, leg):
            raise RefusedError(
                f"the lens has not settled {moments[-1].t_s:.1f} s after a change of {1e6 * change_m:.1f} um: "
                " look at the lens supply, or scan more slowly"
            )
    kept = list(taken)
    frame_time_s = _frame_time_s(taken[1])
    again, t_ns = driver.step(before, after, frames=frames, delay_s=DELAY * frame_time_s)
    moments = sorted([*moments, *_moments(again, t_ns, leg)], key=lambda moment: moment.t_s)
    return _fit(moments, [*kept, *again], leg)


def _arrived(moments: Sequence[Moment], taken: Sequence[Taken], leg: Leg) -> bool:
    first, last = (leg.found.z_at(taken[i].at.working_distance_m) for i in (0, -1))
    late = moments[-BANDS:] if len(moments) > BANDS else moments[-1:]
    off = abs(float(np.mean([moment.z_m for moment in late])) - last)
    return off <= max(STILL * abs(last - first), 2.0 * late[-1].sigma_m)


def _moments(taken: Sequence[Taken], t_ns: int, leg: Leg) -> list[Moment]:
    """Each band of the frames between the first and the last, by the same bands of these two."""
    rows = taken[0].pixels.shape[0]
    count = max(min(BANDS, rows // LEAST_ROWS), 1)
    edges = np.linspace(0, rows, count + 1).astype(int)
    found = []
    for frame in taken[1:-1]:
        for top, end in pairwise(edges):
            at_s = _time_s(frame, t_ns, (top + end) / 2.0 / rows)
            found.append(_moment(taken, frame, rows=slice(int(top), int(end)), t_s=at_s, leg=leg))
    return found


def _moment(taken: Sequence[Taken], frame: Taken, *, rows: slice, t_s: float, leg: Leg) -> Moment:
    first, last = (
        Seen(
            evidence_at(each, i, leg.optic, rows=rows),
            leg.found.z_at(each.at.working_distance_m),
            leg.found.astigmatism_m,
        )
        for i, each in enumerate((taken[0], taken[-1]))
    )
    middle, reach = 0.5 * (first.z_m + last.z_m), 0.75 * abs(last.z_m - first.z_m)
    target = Seen(evidence_at(frame, 2, leg.optic, rows=rows), middle, leg.found.astigmatism_m)
    found = place(target, [first, last], leg.optic, reach_m=reach)
    return Moment(t_s, found.value, found.sigma)


def _time_s(frame: Taken, t_ns: int, share: float) -> float:
    start_ns, end_ns = frame.optics.t_start_ns, frame.optics.t_end_ns
    if start_ns is None or end_ns is None:
        raise RefusedError("the frames do not tell when they were scanned: settling cannot be measured")
    return (start_ns + share * (end_ns - start_ns) - t_ns) / 1e9


def _frame_time_s(frame: Taken) -> float:
    start_ns, end_ns = frame.optics.t_start_ns, frame.optics.t_end_ns
    return 0.0 if start_ns is None or end_ns is None else (end_ns - start_ns) / 1e9


def _fit(moments: Sequence[Moment], taken: Sequence[Taken], leg: Leg) -> Settling:
    """A straight way from the old to the new defocus; the time it takes with its posterior spread."""
    t, z, sigma = (np.array([getattr(m, name) for m in moments]) for name in ("t_s", "z_m", "sigma_m"))
    start, end = (leg.found.z_at(taken[i].at.working_distance_m) for i in (0, -1))
    times = np.linspace(0.0, float(t.max()) * 1.2, 600)[1:]
    model = start + (end - start) * np.clip(t[None, :] / times[:, None], 0.0, 1.0)
    # An estimate of its own doubt is never better than what the bands scatter by.
    least = 0.02 * abs(end - start)
    chi = (((z - model) / np.hypot(sigma, least)) ** 2).sum(axis=1)
    weight = np.exp(-0.5 * (chi - chi.min()))
    settle = float(np.average(times, weights=weight))
    spread = float(np.sqrt(np.average((times - settle) ** 2, weights=weight)))
    residuals = z - (start + (end - start) * np.clip(t / settle, 0.0, 1.0))
    rms = float(np.sqrt(np.mean(residuals**2)))
    if rms > VOUCHED * abs(end - start):
        raise RefusedError(
            f"the lens does not come to rest in one way: {1e6 * rms:.2f} um are left of a change of "
            f"{1e6 * abs(end - start):.1f} um; look at the lens supply"
        )
    return Settling(settle, spread, rms, start, end, _frame_time_s(taken[1]), tuple(moments), tuple(taken))
