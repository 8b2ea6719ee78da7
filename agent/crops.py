"""Crops of defects as PNG files beside the journal: named by event and number, within a quota, the oldest go first.

A crop is whole or not there. What cannot be written costs the picture, never the row: `write` answers None for it, and
`flags` tells when that begins and when it is over.
"""

import logging
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.messages import Flag

log = logging.getLogger("beamside.crops")

FOLDER = "crops"  # beside the journal
CODE = "crops_unavailable"  # of FLAG_CODES
PARTIAL = ".new"
STORED = (cv2.IMWRITE_PNG_COMPRESSION, 0)  # noise does not shrink, however long one tries


class Crops:
    """One folder; the loop's thread writes. quota_bytes 0: none are kept."""

    def __init__(self, folder: Path, *, quota_bytes: int) -> None:
        self.folder, self._quota = folder, quota_bytes
        self._kept: deque[tuple[str, int]] | None = None  # name and bytes, oldest first; None: not looked yet
        self._bytes = 0
        self._reason: str | None = None
        self._flags: list[Flag] = []

    def write(self, event: int, pictures: Sequence[NDArray[np.uint8]]) -> tuple[str | None, ...]:
        """The file name of each, or None where it could not be written. Never raises."""
        if not pictures or not self._quota:
            return (None,) * len(pictures)
        names: list[str | None] = []
        try:
            self._look()
            for number, picture in enumerate(pictures):
                names.append(self._write(f"{event:010d}-{number:02d}.png", picture))
            self._mended()
        except OSError as error:
            self._failed(error)
        return tuple(names) + (None,) * (len(pictures) - len(names))

    def flags(self) -> tuple[Flag, ...]:
        """What to tell since the last call."""
        told, self._flags = tuple(self._flags), []
        return told

    def _write(self, name: str, picture: NDArray[np.uint8]) -> str:
        done, coded = cv2.imencode(".png", picture, STORED)
        if not done:
            raise OSError(0, "OpenCV could not encode a crop", name)
        self._make_room(len(coded))
        partial = self.folder / f"{name}{PARTIAL}"
        # Renamed, not synchronised: a power cut may cost the newest crops, and the loop never waits for a disk.
        partial.write_bytes(coded.tobytes())
        partial.replace(self.folder / name)
        self._remember(name, len(coded))
        return name

    def _look(self) -> None:
        """What lies there from before; what was cut off goes."""
        if self._kept is not None and self.folder.is_dir():
            return
        self.folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        for partial in self.folder.glob(f"*{PARTIAL}"):
            partial.unlink(missing_ok=True)
        found = sorted((path.name, path.stat().st_size) for path in self.folder.glob("*.png"))
        self._kept, self._bytes = deque(found), sum(size for _, size in found)

    def _make_room(self, size: int) -> None:
        while self._kept and self._bytes + size > self._quota:
            name, freed = self._kept.popleft()
            self._bytes -= freed
            (self.folder / name).unlink(missing_ok=True)

    def _remember(self, name: str, size: int) -> None:
        if self._kept is not None:
            self._kept.append((name, size))
            self._bytes += size

    def _failed(self, error: OSError) -> None:
        reason = f"{self.folder}: {error.strerror or error}"
        with suppress(OSError):
            for partial in self.folder.glob(f"*{PARTIAL}"):
                partial.unlink(missing_ok=True)
        self._kept = None  # looked at again with the next frame: nothing is sure after a failure
        if self._reason is None:
            detail = f"{reason}: rows are written without crops; free the disk, or make the folder writable"
            log.error("crops: %s", detail)
            self._flags.append(Flag(code=CODE, state="raised", severity="warning", detail=detail))
        self._reason = reason

    def _mended(self) -> None:
        if self._reason is not None:
            self._reason = None
            self._flags.append(Flag(code=CODE, state="cleared", severity="info"))
