"""Where a command writes: seen to be possible before the work begins; at its end whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from agent.errors import BeamsideError


def made(folder: Path, option: str) -> None:
    """The folder is there and can be written to: said now, and not after hours. Raises BeamsideError."""
    with writing(option):
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{os.getpid()}.part"
        probe.touch()
        probe.unlink()


def write(data: bytes, path: Path, option: str) -> None:
    """Raises BeamsideError."""
    with writing(option), whole(path) as file:
        file.write(data)


@contextmanager
def whole(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears under its name once all of it is written, and not at all if that fails."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def writing(option: str) -> Iterator[None]:
    """What goes wrong within is told of the option that named the place."""
    try:
        yield
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        raise BeamsideError(f"{option}{where}: cannot be written: {error.strerror or error}") from error
