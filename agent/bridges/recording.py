"""A recording: array-1.0 messages as they came off the wire, with the time between them, in one `.b1s` file.

Eight bytes of name and version, then for each message its monotonic nanoseconds, the number of parts, and each part
with its length, all little endian. A recorder that was killed leaves a truncated tail: what came before is good.
"""

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from agent.errors import ImageError

MAGIC = b"beams1s"
VERSION = 1
HEAD = struct.Struct("<QI")  # time in ns, parts
LENGTH = struct.Struct("<Q")
MAX_PARTS = 8
MAX_PART_BYTES = 1 << 30  # as frames.max_message_bytes: a longer one is a damaged length

Message = tuple[int, list[bytes]]  # monotonic ns, parts


class Recorder:
    """Writes messages in the order they come; each is on its way to the disk when write() returns."""

    def __init__(self, path: Path) -> None:
        try:
            self._file: BinaryIO = path.open("wb")
        except OSError as error:
            raise ImageError(f"{path}: cannot be written: {error.strerror}") from error
        self._file.write(MAGIC + bytes([VERSION]))

    def write(self, now_ns: int, parts: Sequence[bytes | memoryview]) -> None:
        self._file.write(HEAD.pack(now_ns, len(parts)))
        for part in parts:
            view = memoryview(part)
            self._file.write(LENGTH.pack(view.nbytes))
            self._file.write(view)
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Recording:
    """Reads the messages back, byte for byte. After the last one `truncated` says whether the end was missing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.truncated = False

    def __iter__(self) -> Iterator[Message]:
        self.truncated = False
        try:
            with self.path.open("rb") as file:
                _check_head(self.path, file.read(len(MAGIC) + 1))
                yield from self._messages(file)
        except OSError as error:
            raise ImageError(f"{self.path}: cannot be read: {error.strerror}") from error

    def _messages(self, file: BinaryIO) -> Iterator[Message]:
        while head := file.read(HEAD.size):
            message = self._message(file, head)
            if message is None:
                self.truncated = True
                return
            yield message

    def _message(self, file: BinaryIO, head: bytes) -> Message | None:
        if len(head) < HEAD.size:
            return None
        now_ns, count = HEAD.unpack(head)
        if count > MAX_PARTS:
            raise ImageError(f"{self.path}: a message of {count} parts; the recording is damaged")
        parts = [_part(self.path, file) for _ in range(count)]
        return None if None in parts else (now_ns, [part for part in parts if part is not None])


def _check_head(path: Path, head: bytes) -> None:
    if not head.startswith(MAGIC) or len(head) <= len(MAGIC):
        raise ImageError(f"{path}: not a recording, it begins with {head!r}")
    if head[-1] != VERSION:
        raise ImageError(f"{path}: a recording of version {head[-1]}; this program reads version {VERSION}")


def _part(path: Path, file: BinaryIO) -> bytes | None:
    told = file.read(LENGTH.size)
    if len(told) < LENGTH.size:
        return None
    (size,) = LENGTH.unpack(told)
    if size > MAX_PART_BYTES:
        raise ImageError(f"{path}: a part of {size} bytes; the recording is damaged")
    part = file.read(size)
    return part if len(part) == size else None
