"""Is a find only what a scan does by itself: a streak, a tear, a clump of noise? A picture and a box in, a reason out.

Pure. A streak is a few rows high and goes on beside the box; across the row of a tear everything is displaced; what no
matched filter tells from the noise in its own place is noise. Without a reference only streaks and tears can be told,
for only what differs from a pattern can be compared with noise.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.control.recipe import NuisanceRules
from agent.messages import Box

Plane = NDArray[np.float32]
Whole = tuple[int, int, int, int]  # a box in whole pixels

STREAK, TEAR, NOISE = "streak", "tear", "noise"
AROUND_PX = 48  # rows above and below a box that tell what rows are like here
BESIDE_PX, APART_PX, LEAST_PX = 128, 4, 24  # columns on either side, apart from a box, that must show the streak too
AS_MUCH = (0.4, 1.8)  # of its contrast beside the box, in it
STREAK_ROWS, MOST_ROWS = 4, 8  # of one streak, of all those around a box
STREAK_SIGMAS = 6.0  # of the rows around: one box in a thousand has such a row by chance
CENTRED = 0.3  # of a box's height: how far from its middle a streak or a tear may run that it is taken for
SCALES_PX = (1.5, 3.0)  # of the matched filters: sigma of a Gaussian
MATCHED = 5.0  # sigmas; of the hundred independent places of a box the noisiest passes once in 20,000
TEAR_ROWS = 6  # of rows on either side that are compared
LARGEST_TEAR_PX = 6
BROKEN = 0.05  # of correlation that the rows on either side of a tear gain when they are moved back
BETTER = 2.5  # times less unlike: what is left then is noise
STILL_ALIKE = 0.6  # correlation they have then: rows of noise are alike nowhere
MOST_TORN = 24  # rows of a frame that are looked at closely: a tear breaks as many as are compared
REACH_PX = 3.0  # that a box's middle may lie beyond, for boxes end on the model's own grid


@dataclass(frozen=True)
class Looked:
    """A picture, and what it is compared with, as numbers."""

    image: Plane  # (h, w)
    difference: Plane | None  # (h, w) image - reference
    torn: tuple[int, ...]  # rows


def looked(image: NDArray[Any], reference: NDArray[Any] | None) -> Looked:
    """Once a frame. reference: of the picture's size and in its grey levels."""
    plane = np.asarray(image, np.float32)
    difference = None if reference is None else plane - np.asarray(reference, np.float32)
    return Looked(plane, difference, torn_rows(plane))


def reason(seen: Looked, box_px: Box, rules: NuisanceRules) -> str | None:
    """What a find in this box is in truth, or None."""
    box = _whole(box_px, seen.image.shape)
    rows = streak_rows(seen, box) if rules.streak else np.zeros(0, np.intp)
    if rules.tear and _through(seen.torn, box):
        return TEAR
    if seen.difference is None:
        return STREAK if rows.size and _through_the_middle(rows, box) else None
    if rules.noise and matched(seen.difference, box) < MATCHED:
        return NOISE
    if rows.size and matched(seen.difference, box, without=rows) < MATCHED:
        return STREAK
    return None


def streak_rows(seen: Looked, box: Whole) -> NDArray[np.intp]:
    """Rows of the picture that stand out of their neighbours beside the box as they do in it: on every side where
    there is room to look, and by about as much."""
    plane = seen.image if seen.difference is None else seen.difference
    x0, y0, x1, y1 = box
    top, bottom = max(y0 - AROUND_PX, 0), min(y1 + AROUND_PX, plane.shape[0])
    sides = ((x0 - BESIDE_PX, x0 - APART_PX), (x1 + APART_PX, x1 + BESIDE_PX))
    beside = [plane[top:bottom, max(left, 0) : max(right, 0)] for left, right in sides]
    flat = [_flat(part.mean(axis=1)) for part in beside if part.shape[1] >= LEAST_PX]
    if not flat or bottom - top <= 2 * STREAK_ROWS:
        return np.zeros(0, np.intp)
    limit = [STREAK_SIGMAS * max(1.4826 * float(np.median(np.abs(each))), 1e-6) for each in flat]
    mean = np.mean(flat, axis=0)
    out = np.all([np.abs(each) > least for each, least in zip(flat, limit, strict=True)], axis=0)
    if np.count_nonzero(out) > MOST_ROWS:  # a pattern whose edges run along the rows
        return np.zeros(0, np.intp)
    inside = _flat(plane[top:bottom, x0:x1].mean(axis=1))
    same = (inside * np.sign(mean) > AS_MUCH[0] * np.abs(mean)) & (inside * np.sign(mean) < AS_MUCH[1] * np.abs(mean))
    rows = np.nonzero(out & same)[0] + top
    return rows[(rows >= y0) & (rows < y1)]


def _flat(profile: Plane) -> Plane:
    """Without what is wider than a streak."""
    padded = np.pad(profile, STREAK_ROWS, mode="reflect")
    around = np.lib.stride_tricks.sliding_window_view(padded, 2 * STREAK_ROWS + 1)
    return np.asarray(profile - np.median(around, axis=1), np.float32)


def _through_the_middle(rows: NDArray[np.intp], box: Whole) -> bool:
    middle, height = 0.5 * (box[1] + box[3] - 1), box[3] - box[1]
    return bool(len(rows) <= STREAK_ROWS and abs(float(rows.mean()) - middle) <= CENTRED * height)


def matched(difference: Plane, box: Whole, without: NDArray[np.intp] | None = None) -> float:
    """Signal to noise of the best place in a box, by Gaussian filters; noise as it is there. without: rows that do not
    count."""
    x0, y0, x1, y1 = box
    margin = int(4 * SCALES_PX[-1])
    top, left = max(y0 - margin, 0), max(x0 - margin, 0)
    part = difference[top : y1 + margin, left : x1 + margin]
    inner = (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
    counts = np.ones(part.shape, np.float32)
    if without is not None:
        counts[[row - top for row in without if 0 <= row - top < len(part)]] = 0.0
    sigma = _noise(part, inner, counts)
    ring = counts > 0.0
    ring[inner] = False
    around = float(np.median(part[ring])) if ring.any() else 0.0
    flat = np.asarray((part - np.float32(around)) * counts, np.float32)
    return max(_best(flat, counts, inner, scale) for scale in SCALES_PX) / sigma


def _best(flat: Plane, counts: Plane, inner: tuple[slice, slice], scale_px: float) -> float:
    """Of the filtered values, each by what it makes of noise of one sigma a pixel."""
    smooth = cv2.GaussianBlur(flat, (0, 0), scale_px, borderType=cv2.BORDER_REFLECT)
    share = cv2.GaussianBlur(counts, (0, 0), scale_px, borderType=cv2.BORDER_REFLECT)
    gain = 1.0 / (2.0 * np.sqrt(np.pi) * scale_px)  # of white noise, where all pixels count
    value = np.abs(smooth) / np.sqrt(np.maximum(share, 0.05)) / np.float32(gain)
    return float(value[inner].max())


def _noise(part: Plane, inner: tuple[slice, slice], counts: Plane) -> float:
    """Standard deviation of a pixel, in the box or around it, whichever is larger: a clump has noise of its own."""
    fine = part - cv2.GaussianBlur(part, (0, 0), SCALES_PX[0], borderType=cv2.BORDER_REFLECT)
    kept = 1.0 - 1.0 / (np.pi * SCALES_PX[0] ** 2) + 1.0 / (4.0 * np.pi * SCALES_PX[0] ** 2)  # of white noise
    spreads = []
    for values, counted in ((fine[inner], counts[inner]), (fine, counts)):
        known = values[counted > 0.0]
        spreads.append(1.4826 * float(np.median(np.abs(known))) if known.size else 0.0)
    return max(*spreads, 1e-3) / float(np.sqrt(kept))


def torn_rows(image: Plane) -> tuple[int, ...]:
    """The first rows from which everything is displaced against what stands above. Once a frame."""
    m, n = LARGEST_TEAR_PX, TEAR_ROWS
    if image.shape[0] < 4 * n or image.shape[1] < 8 * m:
        return ()
    means = _centred(np.asarray(cv2.blur(image, (1, n), anchor=(0, 0)), np.float32)[: len(image) - n + 1])
    above, below = means[:-n], means[n:]  # of rows i .. i + n - 1, and of the next n
    still = _alike(above[:, m:-m], below[:, m:-m])
    # Where nothing is displaced rows are as alike as any: only those that are least need a closer look.
    few = [int(row) for row in np.argsort(still)[:MOST_TORN] if still[row] < float(np.median(still)) - BROKEN]
    rows = sorted(row + n for row in few if _displaced(above[row], below[row], float(still[row])))
    return tuple(row for row in rows if row - 1 not in rows) if rows else ()


def _displaced(above: Plane, below: Plane, still: float) -> bool:
    """Are the two rows alike when one is moved by whole pixels, and only then?"""
    m = LARGEST_TEAR_PX
    moved = [below[m + by : len(below) - m + by] for by in range(-m, m + 1)]
    alike = _alike(np.broadcast_to(above[m:-m], (len(moved), len(above) - 2 * m)), np.stack(moved))
    most = float(alike.max())
    return most >= STILL_ALIKE and most - still > BROKEN and 1.0 - still > BETTER * (1.0 - most)


def _centred(rows: Plane) -> Plane:
    return rows - cv2.reduce(rows, 1, cv2.REDUCE_AVG)


def _alike(one: Plane, other: Plane) -> Plane:
    """(n,) correlation of each row with its counterpart."""
    sizes = [np.einsum("ij,ij->i", each, each) for each in (one, other)]
    product = np.einsum("ij,ij->i", one, other)
    return np.asarray(product / np.sqrt(np.maximum(sizes[0] * sizes[1], 1e-9)), np.float32)


def _through(rows: tuple[int, ...], box: Whole) -> bool:
    middle, height = 0.5 * (box[1] + box[3]), box[3] - box[1]
    return any(abs(row - middle) <= CENTRED * height + REACH_PX for row in rows)


def _whole(box: Box, shape: tuple[int, ...]) -> Whole:
    """Whole pixels, in the picture, one at least."""
    x0, y0 = min(max(int(box[0]), 0), shape[1] - 1), min(max(int(box[1]), 0), shape[0] - 1)
    return x0, y0, min(max(int(np.ceil(box[2])), x0 + 1), shape[1]), min(max(int(np.ceil(box[3])), y0 + 1), shape[0])
