"""What the defect package says of itself: inputs, outputs, units, and the definitions of its labels in words."""

import msgspec

from calibration.networks.defects import BEST, CHANNELS
from calibration.train import defects_data as data
from calibration.train.defects_learn import GOLDEN, OWN
from calibration.train.develop import ELECTRONS, PIXEL_M, VOLTAGE_V
from calibration.train.package import IMAGE, SCENE, Described
from calibration.twin.contrast import SMALLEST_PX, VISIBLE
from calibration.twin.defects import OWN_ROUGHNESS, TELLS_M, TELLS_YIELD
from engines.defects import CLASSES, SEEN, TASK
from engines.manifest import Tensor

COMPARED = msgspec.structs.replace(
    IMAGE,
    shape=(1, CHANNELS, "height", "width"),
    meaning=(
        f"{IMAGE.meaning}, 64 at least; channel 0 the frame, channel 1 its reference in the frame's own grey levels: "
        "the median of its own copies moved by its periods, or another die moved onto it, or, where there is neither, "
        "the frame itself (engines/reference.py)"
    ),
)
OUTPUTS = (
    Tensor(
        name="confidence",
        dtype="float32",
        shape=(1, BEST),
        unit="1",
        meaning="falling; that a defect of any class is centred here",
    ),
    Tensor(
        name="class_index",
        dtype="int32",
        shape=(1, BEST),
        unit="1",
        meaning="the likeliest class: " + ", ".join(f"{number} {name}" for number, name in enumerate(CLASSES)),
    ),
    Tensor(
        name="box_px",
        dtype="float32",
        shape=(1, BEST, 4),
        unit="px",
        meaning="x0, y0, x1, y1 from the outer corner of the first pixel, x right, y down; not clipped to the picture",
    ),
    Tensor(
        name="seen",
        dtype="float32",
        shape=(1, BEST, SEEN),
        unit="1",
        meaning="hidden layers of objectness and classes at the peak, for the cascade",
    ),
)

LABELS = {
    "box_px": (
        f"every pixel whose height differs by more than {TELLS_M * 1e9:g} nm, or its material's yield by more than "
        f"{TELLS_YIELD:.0%}, from the same specimen without the defect"
    ),
    "class_index": (
        "bridge: a space filled to 82 % of the line's height or more; microbridge: a thread of 20 to 80 %; "
        "break: a gap in a line or wire; necking: a line thinner by 20 to 60 %; collapse: two lines leaning together; "
        "pit: a bowl; particle: a dome; residue: a ragged film of a few nm or a stain; scratch: a long groove; "
        "void: a dark soft patch without a step; missing_contact: no hole; closed_contact: a hole filled to "
        "40 to 97 %, or shrunk to 30 to 75 % of its width; merged_contact: two holes joined; "
        "other: a bulge of a line that touches nothing, a hole too wide"
    ),
    "confidence": (
        f"asked for where the matched filter, which knows the defect and the clean field, has a signal to noise of "
        f"{VISIBLE:g}, where {SMALLEST_PX} pixels differ, and, for a width, where the change passes {OWN_ROUGHNESS:g} "
        "sigma of the lines' own roughness; below that neither asked for nor forbidden"
    ),
}
DATA = (
    "beamside's virtual microscope alone, no recorded image: "
    + ", ".join(f"{kind} {share:.0%}" for kind, share in data.SHARES.items())
    + f"; shown with the reference in itself {OWN:.0%}, with another die of the design {GOLDEN:.0%}, or with none; "
    f"{data.CLEAN_SHARE:.0%} of the layouts without a defect, 1 to 5 in the others; pitch 10..160 px, "
    f"{PIXEL_M[0] * 1e9:g}..{PIXEL_M[1] * 1e9:g} nm pixels, {VOLTAGE_V[0]:g}..{VOLTAGE_V[1]:g} V, "
    f"{ELECTRONS[0]:g}..{ELECTRONS[1]:g} primaries a pixel; edge roughness, "
    "grain; streaks, tears, clumps, patches, contamination and local roughness that are no defects; charging, line "
    "jitter, line noise, shading, amplifier lag, gain, offset, clip, percentile stretch"
)
DEFECTS = Described(TASK, "1", inputs=(COMPARED, SCENE), outputs=OUTPUTS, labels=LABELS, data=DATA)
