"""What the cascade package says of itself: inputs, outputs, units, and the definitions of its labels in words."""

from calibration.networks.cascade import EMBEDDING
from calibration.train import cascade_data as data
from calibration.train.package import Described
from engines.cascade import TASK
from engines.cascade_crops import PLANES, SIDE_PX, WIDE_PX
from engines.cascade_features import FEATURES, GROUPS
from engines.defects import CLASSES
from engines.manifest import Tensor

MANY = "candidates"
INPUTS = (
    Tensor(
        name="planes",
        dtype="uint8",
        shape=(MANY, PLANES, SIDE_PX, SIDE_PX),
        unit="grey level",
        meaning=(
            f"{SIDE_PX}x{SIDE_PX} pixels around the middle of a candidate, of the frame and of its reference (the "
            f"frame again where there is none); then {WIDE_PX}x{WIDE_PX} pixels of both at half the size; mirrored "
            "where the picture ends"
        ),
    ),
    Tensor(
        name="features",
        dtype="float32",
        shape=(MANY, FEATURES),
        unit="1",
        meaning=(
            "columns by engines/cascade_features.py: "
            + ", ".join(f"{count} {name}" for name, count in GROUPS.items())
            + "; a group of which nothing is known is zeros"
        ),
    ),
)
OUTPUTS = (
    Tensor(name="defect", dtype="float32", shape=(MANY,), unit="1", meaning="probability of a defect"),
    Tensor(
        name="leaf",
        dtype="float32",
        shape=(MANY, len(CLASSES)),
        unit="1",
        meaning="probability of each class, of what is a defect: " + ", ".join(CLASSES),
    ),
    Tensor(
        name="known",
        dtype="float32",
        shape=(MANY,),
        unit="1",
        meaning="share of defects of known classes that look at least as strange, by energy and Mahalanobis distance",
    ),
    Tensor(
        name="embedding",
        dtype="float32",
        shape=(MANY, EMBEDDING),
        unit="1",
        meaning="what the classes are told from: near to one another for what looks alike",
    ),
)
LABELS = {
    "defect": (
        "a candidate whose middle lies in or beside a defect that can be seen, as the defects package has it; what "
        "nobody can see, and what lies beside it, is left out"
    ),
    "leaf": "the class of that defect, as the defects package defines it",
    "known": "no label: quantiles of the tuning set",
}
DATA = (
    "beamside's virtual microscope alone, no recorded image: fields as those of the defects package, other specimens; "
    f"{data.WITH_GOLDEN:.0%} of the pictures with a golden frame, {data.WITH_OWN:.0%} with a reference of their own; "
    f"candidates: finds of the shipped detector from a confidence of {data.WEAK:g} on, beside a reference or without. "
    "Heights as the shipped depth model reads them; element "
    "fractions were told of none, and count for nothing yet"
)
CASCADE = Described(TASK, "1", inputs=INPUTS, outputs=OUTPUTS, labels=LABELS, data=DATA)
