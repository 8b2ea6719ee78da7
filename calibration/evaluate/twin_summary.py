"""Many scenes in a few numbers: medians, quartiles, kinds, the worst, edges, floors, baselines side by side."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from calibration.evaluate.twin import Row
from calibration.evaluate.twin_floors import Floor, rank_correlation

WORST = 5
EDGE_TARGET_PX = 1.0
FLOOR_TARGET = 0.08  # of the signal: floors of pits and holes should be within it
FEWEST_DEPTHS = 4  # floors of different depth in one scene: fewer have no order to speak of


@dataclass(frozen=True)
class Spread:
    n: int
    median: float
    lower_quartile: float
    upper_quartile: float


@dataclass(frozen=True)
class EdgeTotals:
    """Over scenes with walls that shine in the Monte Carlo; errors without their sign."""

    n: int
    median_position_error_px: float
    worst_position_error_px: float
    share_within_target: float
    target_px: float
    median_width_error_px: float | None
    median_height_ratio: float  # twin over Monte Carlo


@dataclass(frozen=True)
class Order:
    """Rank correlation of a scene's floor signals with their depths: -1 where deeper is always darker."""

    name: str
    floors: int
    twin: float
    monte_carlo: float


@dataclass(frozen=True)
class FloorTotals:
    n: int
    median_relative_error: float  # without its sign
    worst_relative_error: float
    rms_without_noise: float  # of the relative errors, the electrons' chance taken off
    share_within_target: float
    target: float
    order: tuple[Order, ...]


@dataclass(frozen=True)
class BaselineMedians:
    constant: float
    height: float
    gradient: float


@dataclass(frozen=True)
class Summary:
    nrmse: Spread
    median_nrmse_gain_only: float
    by_kind: dict[str, Spread]
    worst: tuple[str, ...]  # worst first
    baselines: BaselineMedians
    edges: EdgeTotals | None
    floors: FloorTotals | None
    median_spectrum_db: float | None
    fitted: Spread | None = None  # of NRMSE, scenes that the constants were fitted to; None: nobody says which
    unfitted: Spread | None = None  # scenes they have never seen


def summary(rows: Sequence[Row]) -> Summary | None:
    """None of no scene."""
    if not rows:
        return None
    kinds = sorted({each.kind for each in rows})
    told = [each.spectrum_db for each in rows if each.spectrum_db is not None]
    return Summary(
        nrmse=_spread([each.nrmse for each in rows]),
        median_nrmse_gain_only=_median([each.nrmse_gain_only for each in rows]),
        by_kind={kind: _spread([each.nrmse for each in rows if each.kind == kind]) for kind in kinds},
        worst=tuple(each.name for each in sorted(rows, key=lambda each: -each.nrmse)[:WORST]),
        baselines=_baselines(rows),
        edges=_edges(rows),
        floors=_floors(rows),
        median_spectrum_db=_median(told) if told else None,
        fitted=_known([each.nrmse for each in rows if each.fitted is True]),
        unfitted=_known([each.nrmse for each in rows if each.fitted is False]),
    )


def _known(values: Sequence[float]) -> Spread | None:
    return _spread(values) if values else None


def _spread(values: Sequence[float]) -> Spread:
    low, middle, high = (float(q) for q in np.percentile(values, (25.0, 50.0, 75.0)))
    return Spread(len(values), middle, low, high)


def _baselines(rows: Sequence[Row]) -> BaselineMedians:
    known = [each.baselines for each in rows]
    return BaselineMedians(
        _median([b.constant for b in known]), _median([b.height for b in known]), _median([b.gradient for b in known])
    )


def _edges(rows: Sequence[Row]) -> EdgeTotals | None:
    edges = [each.edge_peak for each in rows if each.edge_peak is not None]
    if not edges:
        return None
    off = [abs(each.position_error_px) for each in edges]
    widths = [abs(each.width_error_px) for each in edges if each.width_error_px is not None]
    ratio = _median([each.height_ratio for each in edges])
    near = float(np.mean(np.array(off) <= EDGE_TARGET_PX))
    wide = _median(widths) if widths else None
    return EdgeTotals(len(edges), _median(off), max(off), near, EDGE_TARGET_PX, wide, ratio)


def _floors(rows: Sequence[Row]) -> FloorTotals | None:
    known = [floor for each in rows for floor in each.floors]
    if not known:
        return None
    off = np.abs([floor.relative_error for floor in known])
    beyond = float(np.mean(off**2) - np.mean([floor.sigma**2 for floor in known]))
    return FloorTotals(
        n=len(known),
        median_relative_error=float(np.median(off)),
        worst_relative_error=float(off.max()),
        rms_without_noise=math.sqrt(max(beyond, 0.0)),
        share_within_target=float(np.mean(off <= FLOOR_TARGET)),
        target=FLOOR_TARGET,
        order=tuple(order for each in rows if (order := _order(each.name, each.floors)) is not None),
    )


def _order(name: str, floors: Sequence[Floor]) -> Order | None:
    depths = [round(floor.depth_m * 1e9) for floor in floors]  # floors of one depth by design are ties
    if len(set(depths)) < FEWEST_DEPTHS:
        return None
    twin = rank_correlation(depths, [floor.twin for floor in floors])
    truth = rank_correlation(depths, [floor.monte_carlo for floor in floors])
    return None if twin is None or truth is None else Order(name, len(floors), twin, truth)


def _median(values: Sequence[float]) -> float:
    return float(np.median(values))
