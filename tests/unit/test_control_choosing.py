"""Which frames the estimator is given: by their distance from focus, and by how well their place is known."""

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest

from agent.control.choosing import near
from agent.control.estimate import Estimate
from agent.control.focus import bearable
from agent.messages import Evidence

H = 1e-6
AT_FOCUS = Estimate(0.0, 0.0, 0.1e-6, (0.0, 0.0), 0.1e-6, 0.0, 5e-3, H)


def frames(*places: tuple[float, float]) -> list[Evidence]:
    """Of places in h from focus, and of how far they are in doubt."""
    return [
        cast("Evidence", SimpleNamespace(working_distance_m=at * H, place_sigma_m=sigma * H)) for at, sigma in places
    ]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ([(10, 0.14), (17, 0.0), (0, 0.0)], [0, 1, 2]),  # two places do not tell the angle
        ([(10, 0.14), (17, 0.0), (0, 0.0), (-8, 0.0)], [1, 2, 3]),
        ([(90, 0.0), (10, 0.14), (17, 0.0), (0, 0.0)], [1, 2, 3]),
        ([(90, 0.0), (10, 0.0), (0, 0.0)], [1, 2]),  # nothing is believed of the angle that is seen from there
        ([(90, 0.0), (40, 0.0)], [0, 1]),
    ],
)
def test_what_is_far_or_in_doubt_is_left_out_where_three_places_are_left(
    given: list[tuple[float, float]], kept: list[int]
) -> None:
    evidence = frames(*given)
    chosen = near(evidence, AT_FOCUS)
    assert [next(i for i, e in enumerate(evidence) if e is each) for each in chosen] == kept


def test_before_anything_is_believed_all_are_asked() -> None:
    evidence = frames((90, 0.0), (10, 0.3), (0, 0.0))
    assert near(evidence, None) == tuple(evidence)


def told(**more: float) -> Estimate:
    return replace(AT_FOCUS, astigmatism_m=(0.3 * H, 0.0), sigma_astigmatism_m=0.3 * H, **more)  # type: ignore[arg-type]


def test_what_may_be_left_along_the_lines_counts_as_left() -> None:
    assert bearable(told(sigma_total_m=0.6 * H), H)
    assert not bearable(told(sigma_total_m=0.8 * H), H)
