"""ONNX bytes in, a plan out, built in a child process: it may leak, hang or die; what serves is not touched."""

import contextlib
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import IO, Literal

import msgspec

from engines.compiler import Said
from engines.errors import BackendMissingError, BuildError

Backend = Literal["tensorrt", "tensorrt_rtx"]
Recipe = Literal["fp32", "fp16", "int8"]

TIMEOUT_S = 900.0  # tensorrt times thousands of kernels for a large shape; RTX takes seconds
PIPE_BYTES = 65536
WORDS = 400  # characters of what a dead child left on stderr
LEAVING_S = 10.0  # from its last word to its end
HOUSE = Path(__file__).resolve().parents[1]


def build(
    model: bytes,
    *,
    backend: Backend,
    recipe: Recipe,
    shape: tuple[int, int],
    timeout_s: float = TIMEOUT_S,
    progress: Callable[[float, str], None] = lambda share, phase: None,
) -> bytes:
    """The plan for one shape (h, w). `progress` hears the share done, 0..1, and the phase.

    Raises BuildError, whatever became of the child, and BackendMissingError where the package is not installed.
    """
    what = f"{backend} {recipe} {shape[0]}x{shape[1]}"
    arguments = [backend, recipe, str(shape[0]), str(shape[1])]
    # Both files are in memory: a full disk cannot spoil a build, only the keeping of its plan.
    with _memory("plan") as plan, _memory("words") as words:
        child = _start([*arguments, str(plan.fileno())], plan, words)
        try:
            last = _follow(child, model, deadline=monotonic() + timeout_s, progress=progress)
            code = child.wait(timeout=LEAVING_S)
        except TimeoutError:
            late = f"{what}: not built within {timeout_s:g} s and stopped"
            raise BuildError(f"{late}; allow more with --timeout, or set fewer engines.shapes") from None
        except subprocess.TimeoutExpired:
            code = 0  # it said how it ended and only fails to go
        finally:
            _end(child)
        _check(what, last, code, words)
        plan.seek(0)
        return _whole(what, plan.read(), last)


def _memory(name: str) -> IO[bytes]:
    return os.fdopen(os.memfd_create(name), "r+b")


def _start(arguments: list[str], plan: IO[bytes], words: IO[bytes]) -> subprocess.Popen[bytes]:
    # The child finds the house wherever the parent did.
    path = os.pathsep.join([str(HOUSE), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "engines.compiler", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=words,
        pass_fds=(plan.fileno(),),
        env=os.environ | {"PYTHONPATH": path},
        start_new_session=True,
    )


def _follow(
    child: subprocess.Popen[bytes], model: bytes, *, deadline: float, progress: Callable[[float, str], None]
) -> Said | None:
    """Give the model, pass the progress on. The line that says how it ended, or None. Raises TimeoutError."""
    assert child.stdin is not None and child.stdout is not None
    last: Said | None = None
    rest, line = memoryview(model), b""
    os.set_blocking(child.stdin.fileno(), False)
    with selectors.DefaultSelector() as waiting:
        waiting.register(child.stdout, selectors.EVENT_READ)
        waiting.register(child.stdin, selectors.EVENT_WRITE)
        while ready := waiting.select(max(deadline - monotonic(), 0.0)):
            if any(key.fileobj is child.stdin for key, _ in ready):
                rest = _feed(child.stdin, rest)
                if not rest:
                    waiting.unregister(child.stdin)
                    child.stdin.close()
            if any(key.fileobj is child.stdout for key, _ in ready):
                read = os.read(child.stdout.fileno(), PIPE_BYTES)
                if not read:
                    return last
                *whole, line = (line + read).split(b"\n")
                last = _heard(whole, progress) or last
    raise TimeoutError


def _heard(lines: list[bytes], progress: Callable[[float, str], None]) -> Said | None:
    """Pass the progress on; the line that says how it ended, if it is among these."""
    last = None
    for said in map(_said, lines):
        if said.share is None:
            last = said
        else:
            progress(said.share, said.phase)
    return last


def _feed(pipe: IO[bytes], rest: memoryview) -> memoryview:
    """What is left to write; nothing once the child no longer reads."""
    try:
        return rest[os.write(pipe.fileno(), rest[:PIPE_BYTES]) :]
    except BlockingIOError:
        return rest
    except BrokenPipeError:
        return rest[:0]


def _said(line: bytes) -> Said:
    try:
        return msgspec.json.decode(line, type=Said)
    except msgspec.MsgspecError:
        return Said(error=f"the builder said {line[:80]!r}")


def _check(what: str, last: Said | None, code: int, words: IO[bytes]) -> None:
    if last is not None and last.missing:
        raise BackendMissingError(last.error)
    if last is not None and last.error:
        raise BuildError(f"{what}: {last.error}")
    if code == 0 and last is not None:
        return
    words.seek(0)
    left = " ".join(words.read().decode("utf-8", "replace").split())[-WORDS:]
    if code == -signal.SIGKILL:
        raise BuildError(f"{what}: the builder was killed, most likely for memory; free some, or build fewer shapes")
    how = f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
    raise BuildError(f"{what}: the builder {how}: {left or 'it left no word'}")


def _whole(what: str, plan: bytes, last: Said | None) -> bytes:
    if last is None or len(plan) != last.bytes or not plan:
        raise BuildError(f"{what}: the builder's plan arrived incomplete ({len(plan)} bytes); build it again")
    return plan


def _end(child: subprocess.Popen[bytes]) -> None:
    """Whatever happened: nothing of the child is left."""
    if child.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    for pipe in filter(None, (child.stdin, child.stdout)):
        with contextlib.suppress(OSError):
            pipe.close()
