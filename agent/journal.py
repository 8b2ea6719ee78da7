"""Everything the agent said or was told, numbered and on disk: flags, holds, suggestions, acknowledgements, defects.

SQLite in WAL mode, one transaction per decision that has something to write. Numbers only ever grow, over restarts and
even when the file is lost. The loop's thread writes; read() opens its own connection and may be called from any thread.
"""

import logging
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Self

import msgspec

from agent.clock import Clock, SystemClock
from agent.crops import Crops
from agent.errors import JournalError
from agent.messages import Decision, Defect, Flag, Inspected, Lane

log = logging.getLogger("beamside.journal")

FILE = "journal.sqlite3"  # in the state directory
MAX_ROWS = 1_000_000  # about 300 MB, a GB where each frame has defects; a busy day writes some ten thousand
PRUNE_EVERY = 1000  # rows: small deletions, none of them felt
RESERVE = 10_000  # numbers promised ahead in the side file
RETRY_S = 10.0
BUSY_MS = 100  # only a checkpoint by another process can make us wait; the loop must not wait long

SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    event INTEGER PRIMARY KEY AUTOINCREMENT,
    wall_ns INTEGER NOT NULL,
    boot TEXT NOT NULL,
    topic TEXT NOT NULL,
    mode TEXT NOT NULL,
    frame INTEGER,
    session TEXT,
    source TEXT,
    body TEXT NOT NULL
)
"""
INSERT = "INSERT INTO events (wall_ns, boot, topic, mode, frame, session, source, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
COLUMNS = ("event", "wall_ns", "boot", "topic", "mode", "frame", "session", "source")
ABOUT = "(:topic IS NULL OR topic = :topic)"
SELECT = f"SELECT {', '.join(COLUMNS)}, body FROM events WHERE event > :since AND {ABOUT} ORDER BY event LIMIT :limit"
NEWEST = f"SELECT {', '.join(COLUMNS)}, body FROM events WHERE {ABOUT} ORDER BY event DESC LIMIT :limit"

Place = tuple[str, int]  # topic, and the index within that field of the decision


class DefectsRow(msgspec.Struct, frozen=True, kw_only=True):
    """Body of a `defects` row: what was told, and what is needed to look at it again."""

    count: int
    lane: Lane | None
    recipe: str | None = None
    dropped: dict[str, int] = {}
    shape_px: tuple[int, int] | None = None  # (h, w) of the frame without its data bar
    pixel_size_m: float | None = None
    lot: str | None = None
    wafer: str | None = None
    die_x: int | None = None
    die_y: int | None = None
    defects: tuple[Defect, ...] = ()
    crops: tuple[str | None, ...] = ()  # file names in crops/, of the first defects


class Journal:
    """`write` raises JournalError while the disk refuses; `retry` tries again every RETRY_S and says how it is."""

    def __init__(
        self, path: Path, clock: Clock, *, boot: str = "", max_rows: int = MAX_ROWS, crops: Crops | None = None
    ) -> None:
        self.path, self._clock, self._boot, self._max_rows = path, clock, boot, max_rows
        self._crops = crops
        self._connection: sqlite3.Connection | None = None
        self._last_event = 0
        self._promised = 0  # numbers below this may have been used by any file that stood here
        self._tried_ns = clock.now_ns()
        self._lost = 0  # decisions that could not be written
        self._damaged = ""  # what a write found: the file is not opened again
        self.reason: str | None = None  # why it is not healthy

    @classmethod
    def open(
        cls,
        path: Path,
        clock: Clock | None = None,
        *,
        boot: str = "",
        max_rows: int = MAX_ROWS,
        crops: Crops | None = None,
    ) -> Self:
        """Never raises: an instrument is not stopped for its journal. See `healthy` and `reason`. crops: where those of
        defects go; None: nowhere."""
        journal = cls(path, clock or SystemClock(), boot=boot, max_rows=max_rows, crops=crops)
        with suppress(JournalError):
            journal._open()
        return journal

    @property
    def healthy(self) -> bool:
        return self.reason is None

    def write(self, decision: Decision) -> dict[Place, int]:
        """One transaction; the number of each record by (topic, index). Raises JournalError and stays unhealthy."""
        records = _records(decision)
        if not records:
            return {}
        if not self.retry():
            self._lost += 1
            raise JournalError(f"journal {self.path} cannot be written: {self.reason}")
        try:
            return self._insert(decision, self._with_crops(decision, records))
        except JournalError:
            self._lost += 1
            raise

    def retry(self) -> bool:
        """Is it healthy? When not, tries again once every RETRY_S, with a record that names the gap."""
        if self.healthy:
            return True
        now_ns = self._clock.now_ns()
        if now_ns - self._tried_ns < RETRY_S * 1e9:
            return False
        self._tried_ns, was = now_ns, self.reason
        with suppress(JournalError):
            self._open()
            self._resume(was or "")
        return self.healthy

    def read(self, since: int | None = 0, limit: int = 1000) -> list[dict[str, Any]]:
        """Records numbered above `since`, oldest first. Any thread."""
        return read(self.path, since, limit)

    def flags(self) -> tuple[Flag, ...]:
        """What to tell of the crops since the last call."""
        return () if self._crops is None else self._crops.flags()

    def close(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def _with_crops(self, decision: Decision, records: list[tuple[Place, bytes]]) -> list[tuple[Place, bytes]]:
        """Crops first, the row that names them after: a row never names what was never written."""
        seen = decision.inspected
        if self._crops is None or seen is None or not seen.crops or not self.healthy:
            return records
        place = ("defects", 0)
        # Only this process writes, and numbers grow by one: the row will have this one.
        event = self._last_event + 1 + [each for each, _ in records].index(place)
        names = self._crops.write(event, seen.crops)
        return [(each, _defects(decision, names) if each == place else body) for each, body in records]

    def _insert(self, decision: Decision, records: list[tuple[Place, bytes]]) -> dict[Place, int]:
        frame, wall_ns = decision.frame, self._clock.wall_ns()
        about = (frame.number, frame.session, frame.source) if frame else (None, None, None)
        rows = [(wall_ns, self._boot, place[0], decision.mode.value, *about, body.decode()) for place, body in records]
        return dict(zip((place for place, _ in records), self._commit(rows), strict=True))

    def _resume(self, was: str) -> None:
        body = msgspec.json.encode({"state": "resumed", "lost_decisions": self._lost, "reason": was}).decode()
        self._commit([(self._clock.wall_ns(), self._boot, "journal", "", None, None, None, body)])
        self._lost = 0

    def _commit(self, rows: list[tuple[Any, ...]]) -> list[int]:
        connection = self._connection
        if connection is None:
            raise self._failed("not open")
        try:
            with connection:
                numbers = [int(connection.execute(INSERT, row).lastrowid or 0) for row in rows]
                self._prune(connection, numbers[-1])
        except sqlite3.Error as error:
            self._damaged = _said(error) if _is_corrupt(error) else ""
            raise self._failed(_said(error)) from error
        self._last_event = numbers[-1]
        self._promise()
        return numbers

    def _prune(self, connection: sqlite3.Connection, last: int) -> None:
        if last // PRUNE_EVERY != self._last_event // PRUNE_EVERY:
            connection.execute("DELETE FROM events WHERE event <= ?", (last - self._max_rows,))

    def _failed(self, reason: str) -> JournalError:
        # A connection that failed is not used again: after a full disk or a damaged page nothing it holds is sure.
        self.close()
        self.reason, self._tried_ns = reason, self._clock.now_ns()
        return JournalError(f"journal {self.path} cannot be written: {reason}")

    # Opening

    def _open(self) -> None:
        self.close()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self._damaged:
                self._begin_anew(self._damaged)
            else:
                self._connection = self._connected()
        except sqlite3.Error as error:
            if not _is_corrupt(error):
                raise self._failed(_said(error)) from error
            self._begin_anew(_said(error))
        except OSError as error:
            raise self._failed(f"{error.strerror}: {error.filename}") from error
        self.reason = None
        self._damaged = ""
        self._promise()

    def _connected(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=BUSY_MS / 1000, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            # NORMAL: a crash of the agent loses nothing, a power cut at most the last moments, and neither damages the
            # file; FULL would make the control loop wait for the disk at every record.
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(SCHEMA)
            self._last_event = self._numbered(connection)
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _numbered(self, connection: sqlite3.Connection) -> int:
        """Continue above every number that was ever given out here, also by a file that is gone."""
        with connection:
            found = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
            last = max(int(found[0]) if found else 0, 0 if found else self._highest_promised() - 1)
            if last and not found:
                connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('events', ?)", (last,))
        return last

    def _begin_anew(self, reason: str) -> None:
        aside = self.path.with_name(f"{self.path.name}.damaged-{self._clock.wall_ns() // 10**9}")
        log.error("journal %s is damaged (%s): moved to %s, a new one is begun", self.path, reason, aside)
        try:
            self.path.rename(aside)
            for tail in ("-wal", "-shm"):  # a new file must not replay the old one's log
                self.path.with_name(self.path.name + tail).unlink(missing_ok=True)
            if not self._highest_promised():
                # No side file either: seconds since 1970 are above any count that was reached by counting.
                self._promised = self._clock.wall_ns() // 10**9
            self._connection = self._connected()
        except (OSError, sqlite3.Error) as error:
            raise self._failed(f"damaged ({reason}) and no new one could be begun: {error}") from error

    # The side file: one number, below which all may have been used.

    def _promise(self) -> None:
        if self._last_event == 0 or self._last_event < self._promised - RESERVE // 2:
            return
        self._promised = max(self._promised, self._last_event + 1 + RESERVE)
        fresh = self._side.with_suffix(".new")
        with suppress(OSError):  # the second line of defence: the journal itself was just written
            fresh.write_text(f"{self._promised}\n")
            fresh.replace(self._side)

    def _highest_promised(self) -> int:
        with suppress(OSError, ValueError):
            self._promised = max(self._promised, int(self._side.read_text()))
        return self._promised

    @property
    def _side(self) -> Path:
        return self.path.with_name(self.path.name + ".next")


def read(path: Path, since: int | None = 0, limit: int = 1000, *, topic: str | None = None) -> list[dict[str, Any]]:
    """Records numbered above `since` (None: the newest), oldest first, each with its `body`. topic: of these alone.

    Raises JournalError."""
    if not path.exists():
        raise JournalError(f"no journal at {path}: has `beamside run` been started with this state directory?")
    try:
        with closing(_reader(path)) as connection:
            rows = _rows(connection, since, limit, topic)
    except sqlite3.Error as error:
        raise JournalError(f"journal {path} cannot be read: {_said(error)}") from error
    return [{**dict(zip(COLUMNS, row, strict=False)), "body": msgspec.json.decode(row[-1])} for row in rows]


def _rows(connection: sqlite3.Connection, since: int | None, limit: int, topic: str | None) -> list[tuple[Any, ...]]:
    told = {"since": since, "limit": limit, "topic": topic}
    if since is not None:
        return connection.execute(SELECT, told).fetchall()
    return connection.execute(NEWEST, told).fetchall()[::-1]


def _reader(path: Path) -> sqlite3.Connection:
    uri = f"{path.resolve().as_uri()}?mode=ro"
    connection = sqlite3.connect(uri, uri=True, timeout=1.0)
    try:
        connection.execute("SELECT 1 FROM events LIMIT 1")
    except sqlite3.OperationalError:
        # A folder that may not be written, and no writer alive: WAL cannot be opened there unless told that
        # nothing changes.
        connection.close()
        connection = sqlite3.connect(f"{uri}&immutable=1", uri=True)
    return connection


def _records(decision: Decision) -> list[tuple[Place, bytes]]:
    encode = msgspec.json.encode
    found = [(("flag", i), encode(flag)) for i, flag in enumerate(decision.flags)]
    found += [(("hold", i), encode(hold)) for i, hold in enumerate(decision.holds)]
    if decision.defects or (decision.defects is not None and _inspected(decision)):
        found.append((("defects", 0), _defects(decision)))
    if decision.suggestion is not None:
        found.append((("suggestion", 0), encode(decision.suggestion)))
    return found + [(("ack", i), encode(ack)) for i, ack in enumerate(decision.acks)]


def _inspected(decision: Decision) -> bool:
    # A clean live frame is no record, a clean frame that somebody asked to have inspected is.
    return decision.frame is not None and decision.frame.lane is Lane.INSPECT


def _defects(decision: Decision, crops: tuple[str | None, ...] = ()) -> bytes:
    defects, frame, seen = decision.defects or (), decision.frame, decision.inspected or Inspected()
    row = DefectsRow(
        count=len(defects),
        lane=frame.lane if frame else None,
        recipe=seen.recipe,
        dropped=seen.dropped,
        shape_px=seen.shape_px,
        pixel_size_m=seen.pixel_size_m,
        lot=seen.lot,
        wafer=seen.wafer,
        die_x=seen.die_x,
        die_y=seen.die_y,
        defects=defects,
        crops=crops,
    )
    return msgspec.json.encode(row)


def _said(error: sqlite3.Error) -> str:
    name = getattr(error, "sqlite_errorname", "")
    return f"{error} ({name})" if name else str(error)


def _is_corrupt(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
