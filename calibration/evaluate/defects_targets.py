"""What was asked of finding and naming defects, beside what was measured: one line a target."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from calibration.evaluate.defects_account import MethodRow, SetRow, SplitRow, Target, Unknown
from calibration.evaluate.defects_latency import PRODUCT, Latency
from calibration.evaluate.defects_points import PACKAGE, RATES, Point
from calibration.evaluate.defects_share import Share

LEAVES = ("bridge", "break", "missing_contact")
LEAF, PURITY = 0.95, 0.95
COUNT_ERROR = 0.1
STRICT_FRAMES = 3000
P99_S = 0.1
PARTED = 0.99  # of the pits and particles that height or shading can part
AUROC = 0.95  # of the unknown against the known


@dataclass(frozen=True)
class Asked:
    """Of one kind of pictures."""

    kind: str
    captured: float
    mean_precision: float


DISTRIBUTION = Asked("in distribution", 0.98, 0.97)
SHIFTED = Asked("shifted", 0.95, 0.92)
SIMULATOR = Asked("other simulator", 0.90, 0.85)


def targets(sets: Sequence[SetRow], latency: Sequence[Latency], unknown: Unknown) -> tuple[Target, ...]:
    """Of the method that serves, the last of cascade and detector, on every split; the unknown and times last."""
    rows = [row for each in sets for split in each.splits for row in _split(each, split)]
    return (*rows, _unknown(unknown), *_times(latency))


def asked_of(kind: str, split: str) -> Asked | None:
    """None where nothing was asked: real pictures, probes out of focus."""
    if kind == "dataset":
        return SHIFTED if split.startswith("shifted") else DISTRIBUTION
    return SIMULATOR if kind == "scenes" and split == "lines and contacts" else None


def _split(of: SetRow, split: SplitRow) -> Iterator[Target]:
    asked = asked_of(of.kind, split.name)
    served = serving(split)
    if served is None:
        return
    where = f"{split.name}, {served.name}"
    if asked is not None:
        yield _capture(served, asked, where)
        yield _precision(served, asked, where)
        yield from _leaves(served, where)
        yield from _parted(served, where)
    if served.naming is not None and served.naming.count_error is not None:
        error = served.naming.count_error
        met = error.value <= COUNT_ERROR
        yield Target(f"count error a picture, {where}", f"<= {COUNT_ERROR:g}", f"{error.value:.2f}", met, error.n)
    if served.strict is not None and of.splits[0] is split:
        alarms = served.strict.false_alarms
        enough = alarms.frames >= STRICT_FRAMES or alarms.n > 0
        said = f"{alarms.n} in {alarms.frames:.1f} frames at {served.strict.rate:g} a frame"
        yield Target(
            f"false alarms at the strict setting, {of.kind}, {served.name}",
            f"0 in {STRICT_FRAMES} clean frames",
            said,
            alarms.n == 0 if enough else None,
            alarms.n,
        )


def serving(split: SplitRow) -> MethodRow | None:
    """What a user gets: the cascade where there is one."""
    by_name = {each.name: each for each in split.methods}
    return by_name.get("cascade") or by_name.get("detector")


def _capture(served: MethodRow, asked: Asked, where: str) -> Target:
    name, wanted = f"capture at {RATES[0]:g} false alarms a frame, {where}", f">= {100 * asked.captured:g} %"
    point = served.at
    if point is None or point.must is None or point.rate != RATES[0]:
        return Target(name, wanted, "no threshold for this rate", None, 0)
    told = _share(name, wanted, asked.captured, point.must, note=_held(point))
    return replace(told, met=False) if told.met and _broken(point) else told


def _held(point: Point) -> str:
    """Whose threshold it is, and whether the rate was kept on the frames that fixed nothing."""
    seen, by = point.false_alarms, "; the package's threshold" if point.by == PACKAGE else ""
    return by if seen is None or seen.value is None else f"{by}; {seen.value:.2f} a clean frame"


def _broken(point: Point) -> bool:
    """Were there more false alarms than chance allows at the rate that was asked for? Then nothing is met."""
    seen = point.false_alarms
    return seen is not None and seen.low is not None and seen.low > point.rate


def _share(name: str, wanted: str, least: float, share: Share, note: str = "") -> Target:
    if share.value is None or share.low is None or share.high is None:
        return Target(name, wanted, "none there", None, 0)
    said = f"{100 * share.value:.1f} % ({100 * share.low:.0f}-{100 * share.high:.0f}){note}"
    return Target(name, wanted, said, share.value >= least, share.n)


def _precision(served: MethodRow, asked: Asked, where: str) -> Target:
    name, wanted = f"mAP at 0.5, {where}", f">= {asked.mean_precision:g}"
    if served.precision is None:
        return Target(name, wanted, "nothing to be found", None, 0)
    value = served.precision
    said = f"{value.value:.2f} ({value.low:.2f}-{value.high:.2f})"
    return Target(name, wanted, said, value.value >= asked.mean_precision, sum(each.n for each in value.classes))


def _leaves(served: MethodRow, where: str) -> Iterator[Target]:
    leaves = () if served.naming is None else served.naming.leaves
    for each in leaves:
        if each.name in LEAVES:
            leaf = each.name.replace("_", " ")
            yield _share(f"{leaf}: captured and named, {where}", f">= {100 * LEAF:g} %", LEAF, each.end_to_end)
            yield _share(f"{leaf}: purity, {where}", f">= {100 * PURITY:g} %", PURITY, each.purity)


def _parted(served: MethodRow, where: str) -> Iterator[Target]:
    """Pit against particle, where the method says that it can tell; beside it how often it says that it cannot."""
    naming = served.naming
    if naming is None or not naming.undecided.n:
        return
    share = naming.undecided.value
    note = "" if share is None else f"; of {naming.undecided.n} it calls {100 * share:.1f} % undecidable"
    yield _share(f"pit against particle, {where}", f">= {100 * PARTED:g} %", PARTED, naming.parted, note=note)


def _unknown(told: Unknown) -> Target:
    """As the cascade's package measured it: the classes left out of a training are not left out of this one."""
    name, wanted = "unknown against known, AUROC", f">= {AUROC:g}"
    if told.auroc is None:
        return Target(name, wanted, told.note, None, 0)
    passed = "" if told.fpr_at_95 is None else f"; {100 * told.fpr_at_95:.0f} % pass where 95 % of the known do"
    return Target(name, wanted, f"{told.auroc:.3f}{passed}", told.auroc >= AUROC, told.n)


def _times(latency: Sequence[Latency]) -> Iterator[Target]:
    rows, columns = PRODUCT
    for each in latency:
        if (each.rows, each.columns) == PRODUCT and each.stage == "frame":
            said = f"{1e3 * each.p99_s:.0f} ms"
            yield Target(
                f"p99 of a frame of {rows}x{columns}", f"<= {1e3 * P99_S:.0f} ms", said, each.p99_s <= P99_S, each.n
            )
