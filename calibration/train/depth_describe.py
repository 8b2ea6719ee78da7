"""What the depth package says of itself: inputs, outputs, units, and the definition of its labels in words."""

from calibration.train import develop
from calibration.train.depth_data import COARSE_M, FINE_SHARE, GROUND_M, LOOKS, SHARES
from calibration.train.package import IMAGE, SCENE, Described
from engines.depth import TASK
from engines.manifest import Tensor

OUTPUTS = (
    Tensor(
        name="height_px",
        dtype="float32",
        shape=(1, 1, "height", "width"),
        unit="pixel sizes",
        meaning="height above the field's lowest plateau",
    ),
    Tensor(
        name="scale_px",
        dtype="float32",
        shape=(1, 1, "height", "width"),
        unit="pixel sizes",
        meaning="its Laplace scale: |error| <= 1.14 of it in 68 % of pixels",
    ),
)
LABELS = {
    "height_px": "the twin's exact height over the pixel size, above the first percentile of the field",
    "scale_px": "no label: the scale of the Laplace likelihood, widened by one factor on a tuning set to cover 68 %",
}
DATA = (
    "beamside's virtual microscope alone, no recorded image: "
    + ", ".join(f"{kind} {share:.0%}" for kind, share in SHARES.items())
    + f"; each relief looked at {LOOKS} times; "
    f"pixels of {develop.PIXEL_M[0] * 1e9:g}..{develop.PIXEL_M[1] * 1e9:g} nm, "
    f"{1 - FINE_SHARE:.0%} of {COARSE_M[0] * 1e9:g}..{COARSE_M[1] * 1e9:g} nm, "
    f"{develop.VOLTAGE_V[0]:g}..{develop.VOLTAGE_V[1]:g} V, "
    f"{develop.ELECTRONS[0]:g}..{develop.ELECTRONS[1]:g} primaries a pixel, ground roughness to "
    f"{GROUND_M[1] * 1e9:g} nm rms; yield exponent, side escape, swallowing, shadow, floor, backscatter share and "
    "range, probe to 3 px, materials, charging, line jitter, line noise, amplifier lag, shading, gain and offset at "
    "random"
)
DEPTH = Described(TASK, "1", inputs=(IMAGE, SCENE), outputs=OUTPUTS, labels=LABELS, data=DATA)
