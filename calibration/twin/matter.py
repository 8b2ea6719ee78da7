"""What specimens are made of: secondary yield, backscattering, brightness against flat silicon. Numbers only."""

from dataclasses import dataclass

import numpy as np

from calibration.twin.surface import SpecimenError

SE2_PER_BACKSCATTERED = 2.5  # a backscattered electron leaves the surface slowly and at a slant: 2 to 3 times the yield


@dataclass(frozen=True)
class Material:
    """elements: (atomic number, share of the mass), shares add up to 1."""

    name: str
    yield_max: float  # delta_m, the largest secondary yield of a flat surface
    elements: tuple[tuple[int, float], ...]

    @property
    def backscatter(self) -> float:
        """eta, by mass share of the elements (Castaing's rule)."""
        return sum(share * reuter(number) for number, share in self.elements)

    @property
    def brightness(self) -> float:
        """Secondaries of both kinds from a flat surface, delta_m (1 + b eta), as a multiple of silicon's."""
        return _secondaries(self) / _secondaries(SILICON)


def reuter(number: int) -> float:
    """Backscatter coefficient of an element near 20 keV at normal incidence (Reuter 1972)."""
    return -0.0254 + 0.016 * number - 1.86e-4 * number**2 + 8.3e-7 * number**3


def _secondaries(material: Material) -> float:
    return material.yield_max * (1.0 + SE2_PER_BACKSCATTERED * material.backscatter)


SILICON = Material("Si", 0.9, ((14, 1.0),))
MATERIALS: dict[str, Material] = {
    each.name: each
    for each in (
        SILICON,
        Material("SiO2", 1.6, ((14, 0.467), (8, 0.533))),
        Material("resist", 1.2, ((6, 0.600), (8, 0.320), (1, 0.080))),  # polymethyl methacrylate
        Material("W", 1.0, ((74, 1.0),)),
        Material("Cu", 1.0, ((29, 1.0),)),
        Material("TiN", 0.9, ((22, 0.774), (7, 0.226))),
        Material("C", 0.6, ((6, 1.0),)),
        Material("Sn", 1.1, ((50, 1.0),)),
        Material("Au", 1.2, ((79, 1.0),)),
        Material("polymer", 1.2, ((6, 0.86), (1, 0.14))),  # polyethylene: fibres
    )
}
# Film on ground, as layers are met on a line; the same twice is an etched or bare layer.
STACKS: tuple[tuple[str, str], ...] = (
    ("Si", "Si"),
    ("Si", "Si"),
    ("resist", "Si"),
    ("resist", "SiO2"),
    ("resist", "TiN"),
    ("SiO2", "Si"),
    ("Si", "SiO2"),
    ("W", "SiO2"),
    ("Cu", "SiO2"),
    ("TiN", "SiO2"),
)


def brightness(name: str) -> float:
    """Of a flat surface against silicon's; raises SpecimenError for an unknown material."""
    if name not in MATERIALS:
        raise SpecimenError(f"unknown material {name!r}; known are {', '.join(MATERIALS)}")
    return MATERIALS[name].brightness


def draw_stack(rng: np.random.Generator) -> tuple[str, str]:
    """A film and what it stands on."""
    return STACKS[int(rng.integers(len(STACKS)))]
