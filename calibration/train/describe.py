"""What the autofocus package says of itself: inputs, outputs, units, and the definitions of its labels in words."""

from calibration.train import labels, picture, scenes
from calibration.train.package import IMAGE, Described
from engines.autofocus import NEUTRAL_PIXEL_M, TASK
from engines.manifest import Tensor

TOLD = Tensor(
    name="condition",
    dtype="float32",
    shape=(1, 2),
    unit="1",
    meaning=f"log10(pixel size / {NEUTRAL_PIXEL_M * 1e9:g} nm), 1; zeros where the pixel size is unknown",
)
OUTPUTS = (
    Tensor(name="score", dtype="float32", shape=(1,), unit="1", meaning="0..10, see training.labels"),
    Tensor(name="log_blur", dtype="float32", shape=(1,), unit="ln px", meaning="ln of blur_px, the mean"),
    Tensor(name="log_blur_sigma", dtype="float32", shape=(1,), unit="ln px", meaning="its standard deviation"),
    Tensor(name="content", dtype="float32", shape=(1,), unit="1", meaning="0..1, see training.labels"),
)

LABELS = {
    "score": (
        f"content * (10 - 9 * clip(ln(s / s0) / ln({labels.JUST_RECOGNISABLE:g} / s0), 0, 1)), "
        f"s = hypot({labels.ELEMENT_SIGMA:g}, (|z| + |a|) / (4 h_eff)) resolution elements, "
        f"s0 the same at {labels.PERFECT_H:g} h_eff; h_eff = sqrt(px^2 + d0^2) / (2 alpha)"
    ),
    "log_blur": (
        "ln of blur_px, the sigma of the Gaussian whose transfer reaches exp(-1/2) at the same frequency as the "
        "probe's (defocus, astigmatism, in-focus floor and diffraction), geometric mean of both axes, "
        f"{labels.BLUR_RANGE_PX[0]:g}..{labels.BLUR_RANGE_PX[1]:g} px"
    ),
    "content": (
        f"J / (J + {labels.CONTENT_HALF:g}), J = 1/2 sum over k of (min(2 s^2 k^2, {labels.DISC_TAIL:g}) S/(S+N))^2: "
        "the Fisher information about ln blur in this picture's own spectrum S and noise N, per 256 x 256 px, "
        f"without what is slower than {labels.SHADING_CYCLES:g} cycles in 256 px"
    ),
}
DATA = (
    "beamside's virtual microscope alone, no recorded image: specimens "
    + ", ".join(f"{kind} {share:.0%}" for kind, share in scenes.SHARES.items())
    + "; 2..250 nm pixels, 2..12 mrad, 0.5..30 keV, blur to 30 px, astigmatism to 1.2 |z|, "
    f"SNR {picture.SNR_RANGE[0]:g}..{picture.SNR_RANGE[1]:g} a pixel, charging, line jitter, line noise, "
    f"amplifier lag, gain, offset, clip, percentile stretch, tone curve; "
    f"{picture.EMPTY_SHARE:.0%} black, white or pure noise"
)
AUTOFOCUS = Described(TASK, "1", inputs=(IMAGE, TOLD), outputs=OUTPUTS, labels=LABELS, data=DATA)
