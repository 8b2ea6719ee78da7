"""Names and counts at one threshold: accuracy and purity per leaf, captured AND named, how far off a count is."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from calibration.evaluate.defects_outcome import Fate, Outcome, Said
from calibration.evaluate.defects_share import Mean, Share, mean, share
from calibration.evaluate.defects_truth import TrueDefect

PURE = 0.95
SIZES_PX = (0.0, 4.0, 6.0, 9.0, 14.0, 22.0, 1e9)
SIGNALS = (10.0, 15.0, 20.0, 35.0, 50.0, 100.0, 150.0, 1e9)  # of the matched filter
CONTRASTS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 1e9)  # |mean defect - mean reference| / sigma of a pixel
HOLLOW_OR_RAISED = ("pit", "particle")


@dataclass(frozen=True)
class Leaf:
    """One class."""

    name: str
    captured: Share  # of its visible defects, by any name
    named: Share  # of the captured, by the right one: accuracy
    end_to_end: Share  # of its visible defects, captured and rightly named
    purity: Share  # of the finds of this name, those that are it
    mistaken_for: tuple[str, ...]  # the names it was given instead, the commonest first


@dataclass(frozen=True)
class Bin:
    """Defects within a range of size or signal. high None: without end."""

    low: float
    high: float | None
    captured: Share


@dataclass(frozen=True)
class Naming:
    """All leaves together, and how far names may be trusted without a person."""

    threshold: float
    leaves: tuple[Leaf, ...]
    accuracy: Share
    end_to_end: Share
    purity: Share
    automatic: float | None  # share of the finds, the surest first, that are named with a purity of 95 %
    parted: Share  # of the captured pits and particles that it decided on, those rightly named
    undecided: Share  # of the captured pits and particles, those that it says nothing can part
    count_error: Mean | None  # a picture: |finds - visible defects|
    count_share: float | None  # finds of all pictures over all visible defects
    by_size: tuple[Bin, ...]
    by_signal: tuple[Bin, ...]
    by_contrast: tuple[Bin, ...]


@dataclass(frozen=True)
class _Row:
    """One visible defect and what was said of it."""

    specimen: str
    defect: TrueDefect
    said: Said | None

    @property
    def undecided(self) -> bool:
        return self.said is not None and self.said.undecided

    @property
    def right(self) -> bool:
        return self.said is not None and self.said.name == self.defect.name


def naming(outcomes: Sequence[Outcome], least: float, *, named: bool = True) -> Naming:
    """named False: a method without classes, whose names are not judged."""
    rows = _rows(outcomes, least)
    finds = _finds(outcomes, least)
    names = sorted({each.defect.name for each in rows}) if named else []
    captured = [each for each in rows if each.said is not None]
    either = [each for each in captured if each.defect.name in HOLLOW_OR_RAISED] if named else []
    counts = _counts(outcomes, least)
    there = sum(each.case.visible for each in outcomes)
    return Naming(
        threshold=least,
        leaves=tuple(_leaf(name, rows, finds) for name in names),
        accuracy=share([(each.specimen, each.right) for each in captured if named]),
        end_to_end=share([(each.specimen, each.right) for each in rows if named]),
        purity=share([(specimen, right) for specimen, _, right in finds if named]),
        automatic=automatic([(said.sure * min(said.confidence, 1.0), right) for _, said, right in finds])
        if named
        else None,
        parted=share([(each.specimen, each.right) for each in either if not each.undecided]),
        undecided=share([(each.specimen, each.undecided) for each in either]),
        count_error=mean([(specimen, float(abs(off))) for specimen, off in counts]),
        count_share=(there + sum(off for _, off in counts)) / there if there else None,
        by_size=_bins(rows, SIZES_PX, lambda defect: defect.size_px),
        by_signal=_bins(rows, SIGNALS, lambda defect: defect.matched),
        by_contrast=_bins(rows, CONTRASTS, lambda defect: defect.to_noise),
    )


def _rows(outcomes: Sequence[Outcome], least: float) -> list[_Row]:
    rows = []
    for each in outcomes:
        hit = each.captured(least)
        seen = [(row, defect) for row, defect in enumerate(each.case.truth) if defect.visible]
        rows += [_Row(each.case.specimen, defect, hit.get(row)) for row, defect in seen]
    return rows


def _finds(outcomes: Sequence[Outcome], least: float) -> list[tuple[str, Said, bool]]:
    """(specimen, find, is it what it says); what nobody can be asked to see is left out."""
    return [
        (each.case.specimen, said, said.row is not None and said.name == each.case.truth[said.row].name)
        for each in outcomes
        for said in each.above(least)
        if said.fate is not Fate.ALLOWED
    ]


def _counts(outcomes: Sequence[Outcome], least: float) -> list[tuple[str, int]]:
    """(specimen, how many too many)."""
    return [
        (each.case.specimen, sum(said.fate is not Fate.ALLOWED for said in each.above(least)) - each.case.visible)
        for each in outcomes
    ]


def _leaf(name: str, rows: Sequence[_Row], finds: Sequence[tuple[str, Said, bool]]) -> Leaf:
    own = [each for each in rows if each.defect.name == name]
    captured = [each for each in own if each.said is not None]
    wrong = Counter(each.said.name for each in captured if each.said is not None and not each.right)
    return Leaf(
        name=name,
        captured=share([(each.specimen, each.said is not None) for each in own]),
        named=share([(each.specimen, each.right) for each in captured]),
        end_to_end=share([(each.specimen, each.right) for each in own]),
        purity=share([(specimen, right) for specimen, said, right in finds if said.name == name]),
        mistaken_for=tuple(other for other, _ in wrong.most_common(3)),
    )


def automatic(finds: Sequence[tuple[float, bool]]) -> float | None:
    """finds: (how sure, right). The largest share, the surest first, of which PURE are right; None of no finds."""
    if not finds:
        return None
    best = right = 0
    for number, (_, is_right) in enumerate(sorted(finds, key=lambda each: -each[0]), 1):
        right += is_right
        if right >= PURE * number:
            best = number
    return best / len(finds)


def _bins(rows: Sequence[_Row], edges: Sequence[float], of: Callable[[TrueDefect], float | None]) -> tuple[Bin, ...]:
    bins = []
    for low, high in pairwise(edges):
        within = [row for row in rows if (value := of(row.defect)) is not None and low <= value < high]
        if within:
            captured = share([(row.specimen, row.said is not None) for row in within])
            bins.append(Bin(low, None if high == edges[-1] else high, captured))
    return tuple(bins)
