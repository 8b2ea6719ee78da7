"""What the arrays of a shard mean: names in, units and meanings out."""

from calibration.dataset.index import Column
from calibration.dataset.shards import Arrays

MEANINGS: dict[str, tuple[str, str]] = {  # unit, meaning
    "image": ("grey level", "the frame; rows down, columns right"),
    "golden": ("grey level", "another die of the same design without defects, moved onto the frame; none: the frame"),
    "own": ("grey level", "the frame's own repetition, without its defects: engines/reference.py; none: the frame"),
    "counts": ("electrons", "secondary electrons counted in each pixel"),
    "condition": (
        "",
        "what the network is told beside the picture: engines.scene.condition, engines.autofocus.condition",
    ),
    "geometry": ("", "generator seed and index of the geometry: frames with the same two show the same specimen"),
    "kind": ("", "layout family: index into the split's `kinds`"),
    "name": ("", "of the frame where it comes from"),
    "pixel_size_m": ("m", "side of a pixel, exact, whether `condition` tells it or not; NaN: of nothing, or unknown"),
    "score": ("0..10", "sharpness times content: 10 in focus, 0 nothing to see"),
    "log_blur": ("ln px", "natural logarithm of blur_px"),
    "blur_px": ("px", "sigma of the probe's equivalent Gaussian, geometric mean of its axes"),
    "content": ("0..1", "how well blur could be told from this spectrum in this noise"),
    "defocus_h": ("half depths of focus", "|working distance - in-focus working distance| / h_eff"),
    "z_m": ("m", "working distance - in-focus working distance; positive: focused below the surface"),
    "ax_m": ("m", "two-fold astigmatism along x"),
    "ay_m": ("m", "two-fold astigmatism along the diagonal"),
    "alpha_rad": ("rad", "semi-convergence angle of the beam"),
    "energy_ev": ("eV", "beam energy"),
    "snr": ("", "rms of the in-focus object signal / rms noise, a pixel"),
    "height_px": ("px", "exact height in pixels of the frame, any zero; up is positive"),
    "height_m": ("m", "exact height, up is positive; beside boxes: largest change of each defect's height"),
    "box_px": ("px", "x0, y0, x1, y1 of each defect, the last two exclusive; rows with label -1 are unused"),
    "label": ("", "class of each defect: index into the index's `classes`; -1: unused"),
    "visible": ("", "could anybody know that the defect is there? otherwise neither a capture nor a false alarm"),
    "matched": ("", "signal to noise of the matched filter for each defect"),
    "to_noise": ("", "|mean defect - mean reference| / sigma of a pixel"),
    "contrast_chi": ("", "how far the defect's pixels stand out, in sigmas of chance"),
    "area_px": ("px", "pixels that differ from the same specimen without the defect"),
    "pitch_share": ("", "size of the defect / pitch"),
    "mask": ("", "pixels of the defects: 0 none, k the k-th row of box_px"),
    "period_px": ("px", "vector from a line or a hole to the next, x and y; zeros: none"),
    "surface_m": ("m", "exact height of every pixel, any zero; up is positive"),
    "drowned": ("", "is the defect no larger than the pattern's own roughness?"),
    "nuisance_px": ("px", "x0, y0, x1, y1 of what may be taken for a defect and is none"),
    "nuisance": ("", "which one: index into the index's `nuisances`; -1: unused"),
    "probe_sigma_m": ("m", "sigma of the probe along its major and its minor axis"),
    "probe_angle_rad": ("rad", "major axis from +x towards +y (down)"),
    "electrons_per_pixel": ("electrons", "primary electrons on each pixel"),
    "accelerating_voltage_v": ("V", "accelerating voltage"),
}
UNDESCRIBED = ("", "as the generator names it")  # a column that is newer than this table


def columns_of(rows: Arrays) -> tuple[Column, ...]:
    return tuple(
        Column(name, array.shape[1:], "str" if array.dtype.kind == "U" else array.dtype.name, *described(name))
        for name, array in rows.items()
    )


def described(name: str) -> tuple[str, str]:
    return MEANINGS.get(name, UNDESCRIBED)


def merged(one: tuple[Column, ...], other: tuple[Column, ...]) -> tuple[Column, ...]:
    """The columns of both; sides that differ become None."""
    if not one or not other:
        return one or other
    by_name = {each.name: each for each in other}
    return tuple(_wider(each, by_name[each.name]) if each.name in by_name else each for each in one)


def _wider(one: Column, other: Column) -> Column:
    shape = tuple(a if a == b else None for a, b in zip(one.shape, other.shape, strict=True))
    return Column(one.name, shape, one.dtype, one.unit, one.meaning)
