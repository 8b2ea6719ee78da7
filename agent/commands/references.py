"""`--reference self|none|FILE` of `beamside look`: words in, a source out; then the references of a picture's tiles."""

from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.bridges.files import read_image
from agent.comparing import Compared, compared
from agent.errors import ConfigurationError, ImageError
from agent.messages import Frame, Lane, ReferenceKind, ReferenceSource
from agent.pixels import eight_bits, picture
from engines.tiles import Tile


def source_of(words: str | None) -> ReferenceSource:
    """None: the picture's own repetition, where it has one. Raises ConfigurationError for a file that is no picture."""
    if words is None:
        return ReferenceSource()
    if words in (ReferenceKind.SELF, ReferenceKind.NONE):
        return ReferenceSource(kind=ReferenceKind(words), expected=True)
    try:
        pixels, optics = read_image(Path(words))
    except ImageError as error:
        raise ConfigurationError(f"--reference {error}; expected self, none, or a picture without defects") from error
    golden = Frame(number=0, pixels=pixels, optics=optics, lane=Lane.INSPECT, received_ns=0)
    return ReferenceSource(kind=ReferenceKind.GOLDEN, pixels=eight_bits(picture(golden), optics), expected=True)


@dataclass
class Beside:
    """One picture's references, tile by tile: each is made of its tile alone, so that memory is bounded by the tile."""

    levels: NDArray[np.uint8]  # (h, w) without the data bar
    source: ReferenceSource
    _missing: list[str | None] = field(default_factory=list)  # by tile: why there is none

    def of(self, tile: Tile) -> Compared:
        """The tile without padding, and what it is compared with."""
        golden, part = self.source.pixels, tile.of(self.levels)
        source = self.source
        if golden is not None and golden.shape == self.levels.shape:
            source = msgspec.structs.replace(source, pixels=tile.of(golden))
        elif golden is not None:
            part = self.levels  # what does not fit is told with the sizes of the whole pictures
        found = compared(part, source)
        self._missing.append(found.missing)
        return found

    @property
    def missing(self) -> str | None:
        """Why a reference that was asked for is not there, and where it is not there for all of the picture."""
        whys = [why for why in self._missing if why is not None]
        if not whys:
            return None
        return whys[0] if len(whys) == len(self._missing) else f"in {len(whys)} of {len(self._missing)} tiles {whys[0]}"
