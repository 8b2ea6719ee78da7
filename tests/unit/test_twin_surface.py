"""Surfaces by kind: heights with their materials, for training depth."""

import numpy as np
import pytest

from calibration.twin.relief import RELIEFS, SURFACES, surface
from calibration.twin.surface import SpecimenError, Surface

PIXEL_M = 3e-9


def drawn(kind: str, seed: int) -> Surface:
    return SURFACES[kind]((96, 128), pixel_size_m=PIXEL_M, rng=np.random.default_rng(seed))


@pytest.mark.parametrize("kind", SURFACES)
def test_every_surface_has_heights_of_its_relief_and_a_material_of_the_same_grid(kind: str) -> None:
    one = drawn(kind, 3)
    assert one.shape == (96, 128)
    assert one.pixel_size_m == PIXEL_M
    relief = RELIEFS[kind]((96, 128), pixel_size_m=PIXEL_M, rng=np.random.default_rng(3))
    assert np.array_equal(one.height_m, relief)
    for seed in range(6):
        seen = drawn(kind, seed)
        assert seen.height_m.dtype == np.float32
        assert np.isfinite(seen.height_m).all()
        if seen.material is not None:
            assert seen.material.shape == seen.shape
            assert seen.material.dtype == np.float32
            assert 0.0 < seen.material.min() <= seen.material.max() < 5.0


def test_old_kinds_come_first_and_the_new_ones_are_there() -> None:
    kinds = list(SURFACES)
    assert kinds[:7] == ["lines", "contacts", "pillars", "pits", "terraces", "balls", "rough"]
    assert {"tip_to_tip", "jogs", "manhattan", "logic", "posts"} < set(kinds)
    assert {"tin_balls", "particles", "fibres", "grains", "cells"} < set(kinds)
    assert list(RELIEFS) == kinds


def test_a_relief_of_one_material_has_no_map_and_layers_mostly_have_one() -> None:
    assert all(drawn(kind, 1).material is None for kind in ("pillars", "pits", "terraces", "balls", "rough"))
    assert any(drawn("logic", seed).material is not None for seed in range(6))
    assert all(drawn(kind, 1).material is not None for kind in ("tin_balls", "particles", "fibres", "grains", "cells"))


def test_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SpecimenError, match="tip_to_tip"):
        surface("moon", (32, 32), pixel_size_m=PIXEL_M, rng=np.random.default_rng(1))
    assert surface("rough", (32, 32), pixel_size_m=PIXEL_M, rng=np.random.default_rng(1)).kind == "rough"
