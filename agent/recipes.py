"""Recipes: a folder of TOML files in, checked rules out, one a file, named by its stem.

A recipe that cannot be right is refused with one sentence, and alone: the others serve, and of a changed file the last
good one goes on until it can be read again.
"""

import hashlib
import logging
import math
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from agent.control import fractions
from agent.control.recipe import Cad, ClassRule, Density, Measured, NuisanceRules, Recipe, Region, Rules, Sizes
from agent.errors import ConfigurationError
from agent.messages import DEFECT_CLASSES, Place, ReferenceKind, ReferenceSource

log = logging.getLogger(__name__)

RATES = (0.1, 0.01, 0.001)  # false alarms a frame that can be asked for
LARGEST_M = 1e-3  # of a defect: beyond it somebody wrote micrometres
WORDS = 16  # of a hash that tells two sets of rules apart
UNKNOWN = "Object contains unknown field"  # as msgspec says it
TABLES: dict[str, type[msgspec.Struct]] = {
    "cad": Cad, "sizes": Sizes, "classes": ClassRule, "nuisance": NuisanceRules, "regions": Region, "density": Density,
    "measured": Measured,
}  # fmt: skip

Drawn = Callable[[str, Rules, Path], ReferenceSource]  # what a golden frame or a design is loaded by: commands' own


class RecipeError(ConfigurationError):
    """One recipe that cannot be used."""


@dataclass(frozen=True)
class Known:
    """Every recipe of a folder: those in service by name, and why the others are not."""

    recipes: Mapping[str, Recipe] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)


class Shelf:
    """The recipes of one folder, read again at each reload; remembers the last good one of each name."""

    def __init__(self, folder: Path | None, drawn: Drawn) -> None:
        self._folder, self._drawn = folder, drawn
        self._good: dict[str, Recipe] = {}

    def read(self, model: str = "") -> Known:
        """model: the defect model in service, name@sha. Raises ConfigurationError where there is no such folder."""
        good: dict[str, Recipe] = {}
        refused: dict[str, str] = {}
        for path in paths(self._folder):
            try:
                good[path.stem] = served(path, self._drawn, model=model)
            except RecipeError as error:
                refused[path.stem] = str(error)
                log.error("%s%s", error, "; the last good one goes on" if path.stem in self._good else "")
        self._good = {name: self._good[name] for name in refused if name in self._good} | good
        return Known(dict(self._good), refused)


def paths(folder: Path | None) -> list[Path]:
    """The files of a folder, in the order of their names. Raises ConfigurationError where it is none."""
    if folder is None:
        return []
    if not folder.is_dir():
        raise ConfigurationError(f"recipes.folder {folder}: no such folder")
    return sorted(folder.glob("*.toml"))


def served(path: Path, drawn: Drawn, *, model: str = "") -> Recipe:
    """One recipe ready for frames. Raises RecipeError."""
    rules = read(path)
    threshold, doubt = confidence(rules, model)
    reference = drawn(path.stem, rules, path.parent)
    _check_regions_within(path, rules, reference)
    places = _fractions(path, rules, reference)
    return Recipe(name=path.stem, rules=rules, reference=reference, fractions=places, threshold=threshold, doubt=doubt)


def read(path: Path) -> Rules:
    """One file, checked by itself. Raises RecipeError: which file, which key, which value, what to do."""
    try:
        written = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"recipe {path}: {error.strerror}") from error
    except ValueError as error:
        raise RecipeError(f"recipe {path}: {error}") from error
    try:
        rules = msgspec.convert(written, Rules)
    except msgspec.ValidationError as error:
        raise RecipeError(f"recipe {path}: {_where(str(error))}") from None
    for complaint in complaints(rules):
        raise RecipeError(f"recipe {path}: {complaint}")
    return rules


def confidence(rules: Rules, model: str) -> tuple[float | None, str]:
    """The threshold to go by, and why it is not the one that was asked for. None: the model's own."""
    if rules.false_alarms_per_frame is None:
        return rules.threshold, ""
    wish, known = f"{rules.false_alarms_per_frame:g} false alarms a frame", rules.measured
    if known is None:
        return None, f"no clean frames have fixed its threshold for {wish}: run beamside calibrate recipe"
    if model and known.model != model:
        return None, f"its threshold was measured with {known.model} and {model} serves: run beamside calibrate recipe"
    if known.rules != fingerprint(rules):
        return None, "its rules were changed after its threshold was measured: run beamside calibrate recipe"
    return known.threshold, ""


def fingerprint(rules: Rules) -> str:
    """Of all that has a say in how many false alarms a frame has."""
    kept = msgspec.structs.replace(rules, measured=None, density=None, fractions=None)
    return hashlib.sha256(msgspec.json.encode(kept, order="sorted")).hexdigest()[:WORDS]


def _fractions(path: Path, rules: Rules, reference: ReferenceSource) -> tuple[Place, ...]:
    if rules.fractions is None:
        return ()
    at = path.parent / rules.fractions.file
    try:
        places = fractions.read(at.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"recipe {path}: fractions {at}: {error.strerror}") from error
    except ValueError as error:
        raise RecipeError(f"recipe {path}: fractions {at}: {error}") from error
    # Frames have the reference's size; where there is none it is seen frame by frame.
    lost = "" if reference.pixels is None else fractions.lost(places, reference.pixels.shape)
    if lost:
        raise RecipeError(f"recipe {path}: fractions {at}: {lost}")
    return places


def plain_reference(name: str, rules: Rules, folder: Path) -> ReferenceSource:
    """For recipes that need no picture. Raises RecipeError for the others."""
    if rules.reference is None:
        return ReferenceSource()
    if rules.reference in ("golden", "cad"):
        raise RecipeError(f"recipe {name}: reference {rules.reference!r} is loaded by the commands alone")
    return ReferenceSource(kind=ReferenceKind(rules.reference), expected=rules.reference == "self")


# --- what cannot be right ---


def complaints(rules: Rules) -> Iterator[str]:
    """Each says which key, which value and what to do."""
    yield from _reference(rules)
    yield from _thresholds(rules)
    yield from _sizes(rules)
    yield from _classes(rules)
    yield from _regions(rules.regions)
    yield from _density(rules)


def _reference(rules: Rules) -> Iterator[str]:
    for kind, told in (("golden", rules.golden), ("cad", rules.cad)):
        if rules.reference == kind and told is None:
            yield f"reference = {kind!r}, but {kind} is missing: name its file"
        if rules.reference != kind and told is not None:
            yield f"{kind} is given and reference is not {kind!r}: write reference = {kind!r}, or leave {kind} out"
    cad = rules.cad
    if cad is not None:
        for key in ("pixel_size_m", "height_m", "voltage_v", "width_px", "height_px"):
            if not _positive(float(getattr(cad, key))):
                yield f"cad.{key} = {getattr(cad, key):g}; expected a number above zero"
        if cad.scale_m is not None and not _positive(cad.scale_m):
            yield f"cad.scale_m = {cad.scale_m:g}; expected metres a pixel of the drawing, above zero"


def _thresholds(rules: Rules) -> Iterator[str]:
    rate = rules.false_alarms_per_frame
    if rules.threshold is not None and rate is not None:
        yield "threshold and false_alarms_per_frame contradict each other: give one of them"
    if rate is not None and rate not in RATES:
        yield f"false_alarms_per_frame = {rate:g}; expected one of {', '.join(f'{each:g}' for each in RATES)}"
    named = {"threshold": rules.threshold, **{f"classes.{n}.threshold": r.threshold for n, r in rules.classes.items()}}
    if rules.measured is not None:
        named["measured.threshold"] = rules.measured.threshold
    for key, value in named.items():
        if value is not None and not 0.0 < value <= 1.0:  # also what is no number
            yield f"{key} = {value:g}; a confidence is above 0 and at most 1"


def _sizes(rules: Rules) -> Iterator[str]:
    sizes = rules.sizes
    named = {f"sizes.{key}": getattr(sizes, key) for key in ("least_m", "small_m", "large_m")}
    named |= {f"classes.{name}.least_size_m": rule.least_size_m for name, rule in rules.classes.items()}
    for key, value in named.items():
        if value is not None and not 0.0 <= value <= LARGEST_M:
            yield f"{key} = {value:g}; expected metres, 0 to {LARGEST_M:g}"
    if (sizes.small_m is None) is not (sizes.large_m is None):
        yield "sizes.small_m and sizes.large_m go together: give both, or leave both out"
    if sizes.small_m is not None and sizes.large_m is not None and sizes.small_m > sizes.large_m:
        yield f"sizes.small_m = {sizes.small_m:g} is above sizes.large_m = {sizes.large_m:g}: small ends first"


def _classes(rules: Rules) -> Iterator[str]:
    for name, rule in rules.classes.items():
        if name not in DEFECT_CLASSES:
            yield f"classes.{name}: no such class; known are {', '.join(DEFECT_CLASSES)}"
        elif not rule.report and (rule.threshold is not None or rule.least_size_m is not None):
            yield f"classes.{name}: report = false and a rule for it contradict each other: leave one out"
    if all(name in rules.classes and not rules.classes[name].report for name in DEFECT_CLASSES):
        yield "classes: no class is reported; report at least one"


def _regions(regions: tuple[Region, ...]) -> Iterator[str]:
    for number, each in enumerate(regions):
        x0, y0, x1, y1 = each.box_px
        if not (all(map(math.isfinite, each.box_px)) and 0.0 <= x0 < x1 and 0.0 <= y0 < y1):
            what = "expected [x0, y0, x1, y1] with 0 <= x0 < x1 and 0 <= y0 < y1"
            yield f"regions[{number}].box_px = {list(each.box_px)}; {what}"
    asked = [each.box_px for each in regions if each.do == "inspect"]
    hidden = [each.box_px for each in regions if each.do == "ignore"]
    for box in asked:
        if any(h[0] <= box[0] and h[1] <= box[1] and h[2] >= box[2] and h[3] >= box[3] for h in hidden):
            yield f"regions: {list(box)} is to be inspected and lies in a region to ignore: leave one out"


def _density(rules: Rules) -> Iterator[str]:
    rule = rules.density
    if rule is None:
        return
    if not 1 <= rule.frames <= 10_000:
        yield f"density.frames = {rule.frames}; expected 1 to 10000"
    if not (math.isfinite(rule.most) and rule.most >= 0.0):
        yield f"density.most = {rule.most:g}; expected a count of defects, 0 or more"
    if rule.clear is not None and not 0.0 <= rule.clear <= rule.most:
        yield f"density.clear = {rule.clear:g}; expected 0 to density.most = {rule.most:g}"


def _check_regions_within(path: Path, rules: Rules, reference: ReferenceSource) -> None:
    """Where the frame's size is known beforehand."""
    if reference.pixels is None:
        return
    height, width = reference.pixels.shape
    for number, each in enumerate(rules.regions):
        if each.box_px[2] > width or each.box_px[3] > height:
            raise RecipeError(
                f"recipe {path}: regions[{number}].box_px = {list(each.box_px)} reaches out of the "
                f"{rules.reference} reference of {width}x{height} pixels: keep it within"
            )


def _positive(value: float) -> bool:
    return math.isfinite(value) and value > 0.0


def _where(complaint: str) -> str:
    """msgspec's `Object contains unknown field `x` - at `$.sizes`` as a key and a complaint."""
    what, _, at = complaint.partition(" - at `$")
    place = at.strip("`").lstrip(".")
    what = what.replace("Object missing required field", "lacks")
    if what.startswith(UNKNOWN):
        table = TABLES.get(place.split(".")[0].split("[")[0], Rules)
        what = f"{what.replace(UNKNOWN, 'unknown key')}; known are {', '.join(table.__struct_fields__)}"
    return f"{place}: {what}" if place else what
