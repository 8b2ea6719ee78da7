"""Where the pictures and maps of a file go: named by its stem, never over those of another file or over an input."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.errors import UsageError

HEAT_MAP_BESIDE = "_depth"  # added to the heat map's name where overlays go into the same folder


@dataclass(frozen=True)
class Targets:
    """The files to write for one input; None where nobody asked."""

    depth: Path | None  # .npy
    heat_map: Path | None
    overlay: Path | None

    @property
    def all(self) -> tuple[Path, ...]:
        return tuple(path for path in (self.depth, self.heat_map, self.overlay) if path is not None)


class Outputs:
    """Hands out names; the folders are made when they are missing."""

    def __init__(self, depth_dir: Path | None, overlay_dir: Path | None, inputs: Iterable[str]) -> None:
        self._depth_dir = None if depth_dir is None else _made(depth_dir, "--depth-dir")
        self._overlay_dir = None if overlay_dir is None else _made(overlay_dir, "--overlay-dir")
        self._beside = HEAT_MAP_BESIDE if _same(self._depth_dir, self._overlay_dir) else ""
        self._taken = {_key(Path(path)) for path in inputs}

    def targets(self, source: Path) -> Targets:
        """<stem>, or <stem>_2 and so on where that is taken."""
        number = 1
        while True:
            named = self._named(source.stem if number == 1 else f"{source.stem}_{number}")
            keys = {_key(path) for path in named.all}
            if not keys & self._taken:
                self._taken |= keys
                return named
            number += 1

    def _named(self, stem: str) -> Targets:
        depth, over = self._depth_dir, self._overlay_dir
        return Targets(
            depth=None if depth is None else depth / f"{stem}.npy",
            heat_map=None if depth is None else depth / f"{stem}{self._beside}.png",
            overlay=None if over is None else over / f"{stem}.png",
        )


def save(shown: NDArray[np.uint8], path: Path) -> None:
    """A BGR picture as PNG. Raises OSError when it cannot be written."""
    done, coded = cv2.imencode(".png", shown)
    if not done:
        raise OSError(0, "OpenCV could not encode the picture", str(path))
    path.write_bytes(coded.tobytes())


def _made(folder: Path, option: str) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{option} {folder}: cannot be made: {error.strerror}; give a folder to write to") from error
    return folder


def _same(a: Path | None, b: Path | None) -> bool:
    return a is not None and b is not None and a.resolve() == b.resolve()


def _key(path: Path) -> str:
    # Folders of Windows and macOS tell no capitals apart, and a link is the file it leads to.
    return str(path.resolve()).casefold()
