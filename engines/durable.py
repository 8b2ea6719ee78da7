"""Files that are whole or not there, after a power cut and beside a second process; a folder that is only ours."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from engines.errors import CacheError

PARTIAL = ".partial"  # debris of a write that was cut off; whoever holds the lock may remove it
LOCK = ".lock"
OTHERS_MAY_WRITE = 0o022


def write_whole(path: Path, data: bytes) -> None:
    """Raises CacheError; what was there before is still there."""
    partial = path.with_name(f"{path.name}{PARTIAL}")
    try:
        # Nobody else may write it, whatever the umask; the agent may run under another user than who built it.
        with os.fdopen(os.open(partial, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        _sync(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise CacheError(_why(path, error, len(data))) from error


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One writer at a time, of all processes; made where it is missing. The kernel ends the lock with its process."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o755)
        check_owner(folder)
        handle = os.open(folder / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise CacheError(_why(folder, error, 0)) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def check_owner(folder: Path) -> None:
    """Raises CacheError where others could put files of their own into it."""
    why = distrust(folder)
    if why is not None:
        raise CacheError(why)


def distrust(folder: Path) -> str | None:
    """Why nothing in it may be used; None where it is ours alone, or not there yet."""
    try:
        state = folder.stat()
    except OSError:
        return None  # who cannot make it is told when he writes
    if not state.st_mode & OTHERS_MAY_WRITE and state.st_uid in (0, os.geteuid()):
        return None
    return (
        f"{folder}: others can write here, and a plan is code; "
        "run as the folder's owner, or make it your own: chown, then chmod 755"
    )


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _why(path: Path, error: OSError, size: int) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{path}: the disk is full; {size / 1e6:.0f} MB are needed: free some, or set state_dir to another disk"
    return f"{path}: {error.strerror or error}; make the folder writable, or set state_dir to another one"
