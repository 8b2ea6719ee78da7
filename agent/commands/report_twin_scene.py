"""One scene of `evaluate twin` on the page: four pictures, a cut, the edges' profile, the spectra. HTML and PNG out."""

from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.commands.canvas import VERMILLION, Axes, Colour, number
from agent.commands.heatmap import coloured, span_of
from agent.commands.plate import told, unit_of
from agent.commands.report_html import Drawing, figure, grid, legend, words

if TYPE_CHECKING:
    from calibration.evaluate.twin import Comparison
    from calibration.evaluate.twin_edges import Profile

PICTURES = "pictures"  # folder beside the page
WHITE = 99.7  # percentile of the counts that is shown white, as the simulated pictures have it
SPAN = 0.25  # of the range: where the colours of a difference end
BLUE, WARM = (178, 114, 0), (0, 94, 213)  # too dark, too bright: told apart by everybody
BOX_PX = 5  # as the error is counted
CUT_ROWS = 5  # averaged across the cut: the twin has no noise, the simulation has
SIZE = (400.0, 250.0)
LOWEST_DB = 30.0  # below the noise: nothing is told there
TWIN, TRUTH = "s-vermillion", "s-blue"

Grey = NDArray[np.uint8]


def pictures(compared: "Comparison") -> dict[str, Grey]:
    """By the end of their file names: (h, w) grey or (h, w, 3) blue, green, red."""
    counts = compared.recording.counts
    white = max(float(np.percentile(counts, WHITE)), 1e-9)
    height_m = compared.recording.height_m
    relief = coloured(height_m, span_of(height_m, compared.recording.scene.pixel_size_m))
    return {
        "twin": _grey(compared.twin, white),
        "monte_carlo": _grey(counts, white),
        "difference": diverging(difference(compared)),
        "height": _marked(relief, cut_of(height_m)),
    }


def difference(compared: "Comparison") -> NDArray[np.float64]:
    """(h, w) twin minus Monte Carlo after the box, as a share of the range."""
    raw = (compared.twin - compared.recording.counts).astype(np.float64)
    smooth = cv2.blur(raw, (BOX_PX, BOX_PX), borderType=cv2.BORDER_REFLECT)
    return np.asarray(smooth / max(compared.error.range_counts, 1e-9), np.float64)


def diverging(share: NDArray[np.float64]) -> Grey:
    """(h, w) -> (h, w, 3): white where both agree, blue where the twin is too dark, orange where it is too bright."""
    strength = np.clip(share / SPAN, -1.0, 1.0)[..., None]
    end = np.where(strength < 0.0, np.array(BLUE, np.float64), np.array(WARM, np.float64))
    return np.asarray(np.round(255.0 + np.abs(strength) * (end - 255.0)), np.uint8)


def scene(compared: "Comparison") -> str:
    name = compared.recording.scene.name
    error = compared.error
    title = (
        f'<h3 id="{quote(name)}">{words(name)} <span class="soft">NRMSE {100 * error.nrmse:.1f} % '
        f"(by chance {100 * error.low:.1f} to {100 * error.high:.1f})</span></h3>"
    )
    return title + _strip(compared) + grid(_cut(compared), _edges(compared), _spectra(compared))


# --- pictures ---


def _strip(compared: "Comparison") -> str:
    scene, height_m = compared.recording.scene, compared.recording.height_m
    field = told(height_m.shape[1] * scene.pixel_size_m)
    relief = told(float(np.ptp(height_m))) if np.ptp(height_m) > 0.0 else "flat"
    chance = f"{100 * compared.error.noise_floor:.0f} %"
    captions = {
        "twin": f"Twin. Field {field} wide.",
        "monte_carlo": "Monte Carlo, same grey scale.",
        "difference": f"Twin minus Monte Carlo, {BOX_PX}x{BOX_PX} box; chance alone {chance}.",
        "height": f"Height, {relief} in all; line: the cut.",
    }
    shown = (
        f'<figure><img src="{PICTURES}/{quote(scene.name)}_{end}.png" alt="{words(caption)}">'
        f"<figcaption>{words(caption)}</figcaption></figure>"
        for end, caption in captions.items()
    )
    return f'<div class="strip">{"".join(shown)}</div>'


def _grey(counts: NDArray[np.float32], white: float) -> Grey:
    return np.asarray(np.round(np.clip(counts / white, 0.0, 1.0) * 255.0), np.uint8)


def _marked(relief: Grey, cut: tuple[bool, int]) -> Grey:
    along_x, index = cut
    colour: Colour = VERMILLION
    relief[(index, slice(None)) if along_x else (slice(None), index)] = colour
    return relief


# --- curves ---


def cut_of(height_m: NDArray[np.float32]) -> tuple[bool, int]:
    """(along x, index): the middle row or the middle column, whichever has more relief."""
    h, w = height_m.shape
    along_x = float(height_m[h // 2].std()) >= float(height_m[:, w // 2].std())
    return along_x, h // 2 if along_x else w // 2


def _cut(compared: "Comparison") -> str:
    along_x, index = cut_of(compared.recording.height_m)
    step_m = compared.recording.scene.pixel_size_m
    ours, theirs = (_line(each, along_x, index) for each in (compared.twin, compared.recording.counts))
    unit, scale = unit_of(step_m * len(ours))
    axes = _axes((0.0, step_m * len(ours) / scale), (ours, theirs))
    drawing = _drawing(axes, "counts", unit, f"Counts along the middle {'row' if along_x else 'column'}")
    for values, kind, thick in ((theirs, TRUTH, 1.2), (ours, TWIN, 2.0)):
        drawing.line([axes.spot((i + 0.5) * step_m / scale, float(v)) for i, v in enumerate(values)], kind, thick)
    way = "rows" if along_x else "columns"
    return figure(str(drawing) + _keys(), f"Cut along the line in the height map, mean of {CUT_ROWS} {way}.")


def _line(field: NDArray[np.float32], along_x: bool, index: int) -> NDArray[np.float64]:
    first = index - CUT_ROWS // 2
    band = field[first : first + CUT_ROWS] if along_x else field[:, first : first + CUT_ROWS]
    return np.asarray(band.mean(axis=0 if along_x else 1, dtype=np.float64))


def _edges(compared: "Comparison") -> str:
    if compared.profiles is None:
        return ""
    ours, theirs = compared.profiles
    if len(theirs.signal) < 2:
        return ""
    reach = float(np.abs(theirs.distance_px).max()) + 0.5
    axes = _axes((-reach, reach), (ours.signal, theirs.signal))
    drawing = _drawing(axes, "counts", "px from the wall, + above it", "Counts across the walls")
    drawing.line([(axes.x(0.0), axes.top), (axes.x(0.0), axes.bottom)], "s-rule", 2.0)
    for profile, kind, shape in ((theirs, TRUTH, "square"), (ours, TWIN, "circle")):
        _profile(drawing, axes, profile, kind=kind, shape=shape)
    return figure(str(drawing) + _keys(), f"Mean across all walls. {_edge_words(compared)}")


def _profile(drawing: Drawing, axes: Axes, profile: "Profile", *, kind: str, shape: str) -> None:
    pairs = zip(profile.distance_px, profile.signal, strict=True)
    spots = [axes.spot(float(x), float(y)) for x, y in pairs]
    drawing.line(spots, kind, 1.8)
    for spot in spots:
        drawing.mark(spot, shape, kind.replace("s-", "f-"), 4.0)


def _edge_words(compared: "Comparison") -> str:
    edges = compared.edges
    if edges is None:
        return "No edge shines above its plateau."
    place = number(edges.position_error_px, 0.01)
    wide = "" if edges.width_error_px is None else f", width {number(edges.width_error_px, 0.01)} px off"
    return f"Peak {place} ± {edges.position_sigma_px:.2f} px off{wide}, height {edges.height_ratio:.2f} of theirs."


def _spectra(compared: "Comparison") -> str:
    known = compared.spectrum
    lowest = 10.0 * np.log10(max(known.noise, 1e-9)) - LOWEST_DB / 3.0
    ours, theirs = (_in_db(each, lowest) for each in (known.twin, known.monte_carlo))
    axes = _axes((0.0, 0.5), (ours, theirs), least=lowest)
    drawing = _drawing(axes, "power, dB", "cycles a pixel", "Power by spatial frequency")
    noise = 10.0 * np.log10(max(known.noise, 1e-9))
    drawing.line([axes.spot(0.0, noise), axes.spot(0.5, noise)], "s-soft dash", 1.2)
    for values, kind, thick in ((theirs, TRUTH, 1.2), (ours, TWIN, 2.0)):
        drawing.line([axes.spot(f, v) for f, v in zip(known.frequency, values, strict=True)], kind, thick)
    off = "nowhere above its noise" if known.db is None else f"{known.db:.1f} dB off where it is above its noise"
    return figure(str(drawing) + _keys(("dashed", "s-soft", "noise, taken off")), f"Radial power. Monte Carlo: {off}.")


def _in_db(power: NDArray[np.float64], lowest: float) -> NDArray[np.float64]:
    return np.asarray(np.maximum(10.0 * np.log10(np.maximum(power, 1e-9)), lowest))


def _axes(across: tuple[float, float], curves: Sequence[NDArray[np.float64]], least: float = 0.0) -> Axes:
    low, high = (float(f(np.concatenate(curves))) for f in (np.min, np.max))
    low = min(low, least) if least <= 0.0 else least
    return Axes(52, 26, SIZE[0] - 12, SIZE[1] - 44, across, (low, high + max(0.06 * (high - low), 1e-6)))


def _drawing(axes: Axes, up: str, across: str, label: str) -> Drawing:
    drawing = Drawing(*SIZE, label)
    drawing.scale_y(axes)
    drawing.scale_x(axes)
    drawing.text((2, 14), up, kind="f-soft")
    drawing.text((axes.right, SIZE[1] - 6), across, kind="f-soft", align="end")
    return drawing


def _keys(*more: tuple[str, str, str]) -> str:
    return legend(("line", TWIN, "twin"), ("line", TRUTH, "Monte Carlo"), *more)
