"""Which generator drew this? A hash over the source files that a drawing module stands on, wherever it imports them."""

import ast
import hashlib
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

OURS = ("calibration.", "engines.")
NOT_DRAWN_BY = {"calibration.train.chunks"}  # stores, draws nothing


def version(modules: Iterable[str]) -> str:
    """16 hex digits: another after any change of what these modules are made of."""
    seen: dict[str, bytes] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        path = _source(name)
        if path is None or name in seen or name in NOT_DRAWN_BY:
            continue
        seen[name] = path.read_bytes()
        waiting += imported(seen[name])
    whole = hashlib.sha256()
    for name in sorted(seen):
        whole.update(name.encode() + b"\0" + hashlib.sha256(seen[name]).digest())
    return whole.hexdigest()[:16]


@cache
def imported(source: bytes) -> tuple[str, ...]:
    """Modules of ours that a source file names in its imports."""
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(name for name in names if name.startswith(OURS))


@cache
def _source(name: str) -> Path | None:
    try:
        spec = find_spec(name)
    except ModuleNotFoundError:  # a class or a function of a module, not a module
        return None
    return Path(spec.origin) if spec is not None and spec.origin else None
