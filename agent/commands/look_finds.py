"""What was found in one tile of a picture: finds in, defects of the whole picture out, with place, height and path."""

from dataclasses import dataclass, replace

import msgspec
import numpy as np

from agent.commands.look_view import View
from agent.comparing import Compared
from agent.messages import Box, Defect
from agent.models import CascadeModel
from agent.placing import height_above_surroundings, placed
from engines.cascade import Beside, Judged
from engines.readings import Defects, DepthMap, FoundDefect, Relief
from engines.scene import Scene
from engines.tiles import Tile


@dataclass(frozen=True)
class Part:
    """One tile of a picture, and its heights with their padding. Boxes are in pixels of the whole picture."""

    view: View
    tile: Tile
    depth: DepthMap | None

    @property
    def corner_px(self) -> tuple[int, int]:
        """x, y."""
        return self.tile.columns.start, self.tile.rows.start


def clipped(found: FoundDefect, shape: tuple[int, int]) -> FoundDefect | None:
    """Without the part that lies in the padding; None for a mirror image whose middle is there."""
    (x0, y0, x1, y1), (height, width) = found.box_px, shape
    if x0 + x1 >= 2.0 * width or y0 + y1 >= 2.0 * height:
        return None
    return replace(found, box_px=(x0, y0, min(x1, float(width)), min(y1, float(height))))


def told(found: Defects, part: Part) -> tuple[Defect, ...]:
    """Each with its place, and its height where that is known."""
    depth = part.depth
    return tuple(
        placed(each, None, part.view.frame)
        if depth is None
        else msgspec.structs.replace(placed(each, None, part.view.frame), height_m=_height(each, depth, part))
        for each in found
    )


def _height(found: FoundDefect, depth: DepthMap, part: Part) -> float | None:
    x, y = part.corner_px
    return height_above_surroundings(_moved(found.box_px, -x, -y), depth.height_m, found.name)


def judged_in(part: Part, found: Defects, cascade: CascadeModel, compared: Compared) -> tuple[Judged, ...]:
    """What the cascade says of each, asked as the agent asks it. compared: of the tile. Raises InferenceError.

    A tile shows more around each of its own than a judge looks at: nothing is lost at its edge.
    """
    (x, y), view = part.corner_px, part.view
    picture = part.tile.of(view.levels)
    relief = None if part.depth is None else _relief(part.depth, picture.shape, view.scene)
    beside = Beside(compared.reference, relief, view.scene, compared.pitch_px, levels=view.whole)
    here = tuple(replace(each, box_px=_moved(each.box_px, -x, -y)) for each in found)
    return cascade.judge(picture, here, beside=beside, sizes=None)


def _relief(depth: DepthMap, shape: tuple[int, ...], scene: Scene) -> Relief | None:
    """In the depth model's own unit, the pixel; without the padding."""
    if scene.pixel_size_m is None:
        return None
    unit = np.float32(scene.pixel_size_m)
    height_m, scale_m = (each[: shape[0], : shape[1]] for each in (depth.height_m, depth.scale_m))
    return Relief(height_m / unit, scale_m / unit, scene.pixel_size_m)


def _moved(box: Box, x: int, y: int) -> Box:
    return box[0] + x, box[1] + y, box[2] + x, box[3] + y
