"""Frames of a sweep on disk, shot by shot, so that an interrupted one goes on. A folder beside the certificate."""

import json
import os
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.control.envelope import Move
from agent.messages import Optics
from calibration.sweep.errors import OtherSweepError
from calibration.sweep.instrument import Taken

PLAN = "sweep.json"
SAME_M, SAME_UNIT = 1e-10, 1e-7  # a request that was computed from the same frames is the same one


def folder_of(certificate: Path) -> Path:
    return certificate.with_name(certificate.name + ".sweep")


class Shot(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for, and when the last move was made; its frames lie beside it."""

    asked: tuple[float, float, float]  # working distance [m], stigmators
    side: int
    t_moved_ns: int
    read_back: tuple[tuple[float, float, float], ...]  # of each frame
    optics: tuple[Optics, ...]


class Recording:
    """Shots in the order in which they were taken. A shot is whole or not there."""

    def __init__(self, folder: Path, start: Move) -> None:
        self.folder, self.start = folder, start
        self._files = sorted(folder.glob("shot-*.npz"))
        self.frames = 0

    @classmethod
    def begin(cls, folder: Path, asked: Mapping[str, object], start: Move) -> "Recording":
        """A new sweep; `asked` is what must be the same when it goes on. Raises OSError."""
        folder.mkdir(parents=True, exist_ok=True)
        plan = {"asked": dict(asked), "start": _triple(start)}
        _write(folder / PLAN, json.dumps(plan, indent=2).encode())
        return cls(folder, start)

    @classmethod
    def again(cls, folder: Path, asked: Mapping[str, object]) -> "Recording":
        """One that was interrupted, if it was of the same microscope, specimen and options."""
        try:
            plan = json.loads((folder / PLAN).read_text())
            before, at = dict(plan["asked"]), [float(value) for value in plan["start"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OtherSweepError(
                f"{folder / PLAN}: cannot be read ({error}); delete the folder to begin anew"
            ) from error
        now = json.loads(json.dumps(dict(asked)))
        for name in sorted(before.keys() | now.keys()):
            if before.get(name) != now.get(name):
                raise OtherSweepError(
                    f"{folder} holds a sweep with {name} = {before.get(name)!r}, not {now.get(name)!r}: "
                    "give the same options, or delete the folder to begin anew"
                )
        return cls(folder, Move(at[0], at[1], at[2]))

    @property
    def shots(self) -> int:
        return len(self._files)

    def read(self, index: int, asked: Move) -> tuple[list[Taken], int] | None:
        """The frames of a shot and the time of its last move; None: it is still to be taken."""
        if index >= len(self._files):
            return None
        path = self._files[index]
        shot, pixels = _read(path)
        if not _same(shot.asked, asked):
            raise OtherSweepError(f"{path} is not the shot that is due; delete {self.folder} to begin anew")
        self.frames += len(pixels)
        rows = zip(pixels, shot.optics, shot.read_back, strict=True)
        return [Taken(one, optics, Move(*at), shot.side) for one, optics, at in rows], shot.t_moved_ns

    def keep(self, asked: Move, taken: list[Taken], t_moved_ns: int) -> None:
        """Raises OSError when it cannot be written."""
        shot = Shot(
            asked=_triple(asked),
            side=taken[0].side,
            t_moved_ns=t_moved_ns,
            read_back=tuple(_triple(each.at) for each in taken),
            optics=tuple(each.optics for each in taken),
        )
        path = self.folder / f"shot-{len(self._files):04d}.npz"
        part = path.with_name(path.name + ".part")
        arrays: dict[str, Any] = {f"pixels_{i}": each.pixels for i, each in enumerate(taken)}
        with part.open("wb") as file:
            np.savez_compressed(file, shot=np.frombuffer(msgspec.json.encode(shot), np.uint8), **arrays)
        part.replace(path)
        self._files.append(path)
        self.frames += len(taken)

    def taken(self) -> tuple[int, int]:
        """How many frames lie there, and when the last of them ended."""
        frames, end_ns = 0, 0
        for path in self._files:
            shot, _ = _read(path)
            frames += len(shot.optics)
            end_ns = max(end_ns, *(optics.t_end_ns or 0 for optics in shot.optics))
        return frames, end_ns

    def discard(self) -> None:
        """The sweep is over: its answer stands in the certificate, or in the refusal."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _read(path: Path) -> tuple[Shot, list[NDArray[Any]]]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            shot = msgspec.json.decode(bytes(kept["shot"]), type=Shot)
            return shot, [kept[f"pixels_{i}"] for i in range(len(shot.optics))]
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error, msgspec.MsgspecError) as error:
        raise OtherSweepError(
            f"{path}: cannot be read ({error}); delete {path.parent} to begin the sweep anew"
        ) from error


def _triple(move: Move) -> tuple[float, float, float]:
    return move.working_distance_m, move.stigmator_x, move.stigmator_y


def _same(one: tuple[float, float, float], other: Move) -> bool:
    far = [abs(a - b) for a, b in zip(one, _triple(other), strict=True)]
    return far[0] <= SAME_M and max(far[1:]) <= SAME_UNIT


def _write(path: Path, data: bytes) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_bytes(data)
    part.replace(path)
