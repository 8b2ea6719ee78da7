"""One evaluation as it is told: sets, their splits, each method's figures, targets and times. Fields are the JSON's."""

from dataclasses import dataclass

from calibration.evaluate.defects_latency import Latency
from calibration.evaluate.defects_leaves import Naming
from calibration.evaluate.defects_points import Point
from calibration.evaluate.defects_precision import Precision
from calibration.evaluate.defects_share import AFrame, Share


@dataclass(frozen=True)
class Strict:
    """False alarms in every clean frame that fixed no threshold, at the strictest one that there is."""

    rate: float  # false alarms a frame that the threshold was made for
    by: str
    threshold: float
    false_alarms: AFrame


@dataclass(frozen=True)
class KindRow:
    """One family of layout at the working point."""

    kind: str
    layout: bool  # False: no layout, nothing that thresholds are fixed on
    captured: Share  # of what must be found
    false_alarms: AFrame  # in its clean pictures


@dataclass(frozen=True)
class MethodRow:
    """One method on one split."""

    name: str
    note: str
    pictures: int  # that it can read: a golden frame is not there for all
    points: tuple[Point, ...]
    at: Point | None  # the one of 0.1 false alarms a frame that names and counts are told for
    precision: Precision | None  # None: a method without classes
    naming: Naming | None
    strict: Strict | None
    kinds: tuple[KindRow, ...]  # empty where no family of layout is told


@dataclass(frozen=True)
class SplitRow:
    name: str
    purpose: str
    pictures: int
    frames: float  # of 512 x 512
    clean_pictures: int
    clean_frames: float
    specimens: int
    defects: int  # labelled
    visible: int
    must_be_found: int
    methods: tuple[MethodRow, ...]


@dataclass(frozen=True)
class CurveSpot:
    threshold: float
    false_alarms_per_frame: float
    captured: float


@dataclass(frozen=True)
class Curve:
    """Capture of the visible defects against false alarms, all thresholds."""

    split: str
    method: str
    in_clean_frames: bool  # else away from the defects, in frames that have some
    spots: tuple[CurveSpot, ...]


@dataclass(frozen=True)
class SetRow:
    folder: str
    kind: str  # dataset, scenes, boxes
    tuning_pictures: int
    tuning_frames: float
    splits: tuple[SplitRow, ...]
    curves: tuple[Curve, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Unknown:
    """How well the cascade tells what it was never taught, as its package measured it on classes left out."""

    source: str
    auroc: float | None
    fpr_at_95: float | None
    note: str
    n: int = 0  # of the unknown that it was measured on; 0: not told


@dataclass(frozen=True)
class Ablation:
    """One row: what the cascade was given, and the figures that came of it."""

    name: str
    figures: dict[str, float]


@dataclass(frozen=True)
class Target:
    """met: None where nothing was measured."""

    name: str
    asked: str
    measured: str
    met: bool | None
    n: int


@dataclass(frozen=True)
class Evaluation:
    """Without the machine that it ran on."""

    models: tuple[str, ...]  # name@sha
    sets: tuple[SetRow, ...]
    unknown: Unknown
    ablation: tuple[Ablation, ...]  # of the cascade, as its package measured it
    latency: tuple[Latency, ...]
    targets: tuple[Target, ...]
