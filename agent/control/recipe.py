"""What one recipe asks of the frames that name it: the nouns. Read from TOML by agent/recipes.py; pure.

Lengths in metres, boxes in pixels of the frame without its data bar. What is not said is None: no rule.
"""

from datetime import date
from typing import Literal

import msgspec

from agent.messages import Box, Place, ReferenceSource

Kept = Literal["self", "golden", "cad", "none"]
DENSITY_CLEARS = 0.5  # of `most`: an alarm that comes and goes with every frame is none


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One table of the file; a key that nobody knows is a mistake."""


class Cad(_Table, frozen=True):
    """The design of the very place that frames show."""

    file: str  # GDSII, OASIS, or a picture of two levels
    pixel_size_m: float  # of the frames
    width_px: int
    height_px: int
    height_m: float  # of what stands there
    scale_m: float | None = None  # a pixel of the picture; GDSII and OASIS know their own
    layer: tuple[int, int] | None = None  # of GDSII and OASIS: layer and data type
    cell: str | None = None
    inverted: bool = False  # material where the design has none
    left_m: float = 0.0  # of the frame's first pixel, from the design's own
    top_m: float = 0.0
    blur_m: float = 5e-9  # sigma of the exposure: corners round
    voltage_v: float = 1000.0


class Sizes(_Table, frozen=True):
    """Where small ends and large begins, and what is too small for any class."""

    small_m: float | None = None
    large_m: float | None = None
    least_m: float | None = None

    @property
    def bounds_m(self) -> tuple[float, float] | None:
        return None if self.small_m is None or self.large_m is None else (self.small_m, self.large_m)


class ClassRule(_Table, frozen=True):
    """What goes for one class alone."""

    threshold: float | None = None
    least_size_m: float | None = None
    report: bool = True


class NuisanceRules(_Table, frozen=True):
    """Which finds are looked at again as what a scan does by itself."""

    streak: bool = True
    tear: bool = True
    noise: bool = True

    @property
    def any(self) -> bool:
        return self.streak or self.tear or self.noise


class Region(_Table, frozen=True):
    """A part of the frame that alone is inspected, or that is not."""

    box_px: Box
    do: Literal["inspect", "ignore"]


class Density(_Table, frozen=True):
    """An alarm when the last frames hold too many defects."""

    frames: int
    most: float  # defects in all of them together
    clear: float | None = None  # at or below; half of `most` unless told

    @property
    def clears(self) -> float:
        return DENSITY_CLEARS * self.most if self.clear is None else self.clear


class FractionsFile(_Table, frozen=True):
    """Element fractions that were measured beside the frames."""

    file: str  # CSV: see agent/control/fractions.py


class Measured(_Table, frozen=True):
    """What `beamside calibrate recipe` found on frames without defects."""

    threshold: float
    false_alarms_per_frame: float  # as asked
    frames: int
    alarms: int  # in these frames, above the threshold
    upper_per_frame: float  # 95 % bound of the rate
    date: date
    model: str  # name@sha
    rules: str  # of the recipe it was measured with: see agent/recipes.py


class Rules(_Table, frozen=True):
    """A recipe as it is written."""

    reference: Kept | None = (
        None  # None: the frame's own repetition where there is one, and no word where there is none
    )
    golden: str | None = None
    cad: Cad | None = None
    false_alarms_per_frame: float | None = None
    threshold: float | None = None
    sizes: Sizes = Sizes()
    classes: dict[str, ClassRule] = {}
    nuisance: NuisanceRules = NuisanceRules()
    regions: tuple[Region, ...] = ()
    density: Density | None = None
    fractions: FractionsFile | None = None
    measured: Measured | None = None


NOTHING = ClassRule()


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """A recipe in service: its rules, its reference, and the confidence it goes by."""

    name: str
    rules: Rules = Rules()
    reference: ReferenceSource = ReferenceSource()
    fractions: tuple[Place, ...] = ()
    threshold: float | None = None  # None: the model's own
    doubt: str = ""  # why it is not the threshold that was asked for

    def least(self, name: str, otherwise: float) -> float:
        """The confidence from which a find of this class is told. otherwise: the model's own threshold."""
        own = self.rules.classes.get(name, NOTHING).threshold
        return own if own is not None else otherwise if self.threshold is None else self.threshold

    def asked(self, otherwise: float) -> float | None:
        """What the model is asked for, so that no class is cut off; None: its own threshold will do."""
        told = [rule.threshold for rule in self.rules.classes.values() if rule.threshold is not None]
        if self.threshold is None and not told:
            return None
        return min([otherwise if self.threshold is None else self.threshold, *told])
