"""The journal: numbering, a full disk, damage, restarts."""

import os
import resource
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from agent.clock import ManualClock
from agent.errors import JournalError
from agent.journal import FILE, RETRY_S, Journal, read
from agent.messages import (
    Ack,
    Decision,
    Defect,
    Flag,
    FrameRef,
    Hold,
    Kind,
    Lane,
    Mode,
    Outcome,
    Suggestion,
)

FRAME = FrameRef(number=41, session="s1", source="electron/SE2")
FLAG = Flag(code="stale", state="raised", severity="warning", detail="no frame for 5 s")
DEFECT = Defect(name="pit", path=("etch", "pit"), box_px=(1, 2, 3, 4), confidence=0.9)


def decision(**said: object) -> Decision:
    return Decision(now_ns=5, mode=Mode.SUGGEST, frame=FRAME, **said)  # type: ignore[arg-type]


def full_decision() -> Decision:
    return decision(
        flags=(FLAG, FLAG),
        holds=(Hold(state="begin", reason="stale", since_ns=7),),
        defects=(DEFECT,),
        suggestion=Suggestion(id="a-1", kind=Kind.CORRECT, based_on_frames=(40, 41)),
        acks=(Ack(suggestion="a-0", outcome=Outcome.APPLIED),),
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / FILE


def test_numbers_every_flag_hold_suggestion_defect_record_and_acknowledgement(path: Path) -> None:
    journal = Journal.open(path, ManualClock(), boot="b1")
    numbers = journal.write(full_decision())
    assert set(numbers) == {("flag", 0), ("flag", 1), ("hold", 0), ("defects", 0), ("suggestion", 0), ("ack", 0)}
    assert sorted(numbers.values()) == [1, 2, 3, 4, 5, 6]
    found = journal.read(since=0, limit=10)
    assert [e["event"] for e in found] == [1, 2, 3, 4, 5, 6]
    assert {e["topic"]: e["body"] for e in found}["defects"]["defects"][0]["class"] == "pit"
    assert found[0]["wall_ns"] == 1_700_000_000_000_000_000
    assert (found[0]["frame"], found[0]["session"], found[0]["boot"]) == (41, "s1", "b1")
    journal.close()


def test_writes_nothing_for_a_decision_with_nothing_to_record(path: Path) -> None:
    journal = Journal.open(path)
    assert journal.write(decision()) == {}
    assert journal.write(decision(defects=())) == {}
    assert journal.read() == []
    journal.close()


def test_records_a_clean_frame_only_when_somebody_asked_to_have_it_inspected(path: Path) -> None:
    journal = Journal.open(path)
    asked = Decision(now_ns=1, mode=Mode.OBSERVE, frame=FrameRef(number=2, lane=Lane.INSPECT), defects=())
    assert journal.write(asked) == {("defects", 0): 1}
    journal.close()


def test_numbers_go_on_after_a_restart(path: Path) -> None:
    for expected in (1, 2, 3):
        journal = Journal.open(path)
        assert journal.write(decision(flags=(FLAG,))) == {("flag", 0): expected}
        journal.close()


def test_numbers_go_on_after_the_last_rows_were_deleted(path: Path) -> None:
    journal = Journal.open(path)
    journal.write(full_decision())
    journal.close()
    with sqlite3.connect(path) as other:
        other.execute("DELETE FROM events")
    other.close()
    journal = Journal.open(path)
    assert journal.write(decision(flags=(FLAG,))) == {("flag", 0): 7}
    journal.close()


@pytest.mark.parametrize("with_side_file", [True, False])
def test_a_damaged_file_is_moved_aside_and_numbers_do_not_go_backwards(path: Path, with_side_file: bool) -> None:
    journal = Journal.open(path)
    journal.write(full_decision())
    journal.close()
    path.write_bytes(b"this is no database" * 1000)
    if not with_side_file:
        path.with_name(FILE + ".next").unlink()
    journal = Journal.open(path)
    assert journal.healthy
    assert journal.write(decision(flags=(FLAG,)))["flag", 0] > 6
    assert [p.name for p in path.parent.glob("*damaged*")]
    journal.close()


def test_a_page_found_damaged_while_writing_makes_it_begin_anew_at_the_next_attempt(path: Path) -> None:
    clock = ManualClock()
    journal = Journal.open(path, clock)
    for _ in range(300):
        journal.write(full_decision())
    journal.close()
    journal = Journal.open(path, clock)
    with path.open("r+b") as file:  # the schema page stays good
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 4096))
    with pytest.raises(JournalError, match="malformed"):
        journal.write(decision(flags=(FLAG,)))
    clock.advance(RETRY_S + 1)
    assert journal.write(decision(flags=(FLAG,)))["flag", 0] > 1800
    journal.close()


def test_a_full_disk_is_an_error_until_there_is_room_again(path: Path) -> None:
    clock = ManualClock()
    journal = Journal.open(path, clock)
    journal.write(decision(flags=(FLAG,)))
    assert journal._connection is not None
    pages = journal._connection.execute("PRAGMA page_count").fetchone()[0]
    journal._connection.execute(f"PRAGMA max_page_count = {pages}")  # a real SQLITE_FULL
    long = Flag(code="stale", state="raised", severity="warning", detail="x" * 100_000)
    with pytest.raises(JournalError, match="full"):
        journal.write(decision(flags=(long,)))
    assert not journal.healthy
    with pytest.raises(JournalError, match="full"):  # not tried again yet
        journal.write(decision(flags=(FLAG,)))
    clock.advance(RETRY_S + 1)
    assert journal.retry()
    last = journal.read()[-1]
    assert (last["topic"], last["body"]["lost_decisions"]) == ("journal", 2)
    assert journal.write(decision(flags=(FLAG,)))
    journal.close()


def test_a_limit_on_file_size_is_an_error_and_leaves_a_whole_journal(path: Path) -> None:
    script = (
        "import sys, signal, resource, pathlib\n"
        "from agent.journal import Journal\n"
        "from agent.errors import JournalError\n"
        "from agent.messages import Decision, Flag, Mode\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))\n"
        "journal = Journal.open(pathlib.Path(sys.argv[1]))\n"
        "flag = Flag(code='stale', state='raised', severity='warning', detail='x' * 5000)\n"
        "try:\n"
        "    for n in range(1000):\n"
        "        journal.write(Decision(now_ns=n, mode=Mode.SUGGEST, flags=(flag,)))\n"
        "except JournalError as error:\n"
        "    print(n, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
    )
    written = int(done.stdout.split()[0])
    assert 0 < written < 1000, done.stderr
    assert len(read(path, 0, 2000)) == written
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 300_000


def test_an_unwritable_folder_does_not_stop_the_agent(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    clock = ManualClock()
    journal = Journal.open(tmp_path / "file" / FILE, clock)
    assert not journal.healthy
    with pytest.raises(JournalError, match="cannot be written"):
        journal.write(decision(flags=(FLAG,)))
    (tmp_path / "file").unlink()
    clock.advance(RETRY_S + 1)
    assert journal.write(decision(flags=(FLAG,)))
    journal.close()


def test_old_rows_are_pruned_beyond_the_bound(path: Path) -> None:
    journal = Journal.open(path, max_rows=500)
    for _ in range(1100):
        journal.write(full_decision())
    found = journal.read(0, 100_000)
    assert found[-1]["event"] == 6600
    assert 500 <= len(found) <= 500 + 1006
    journal.close()


def test_can_be_read_from_another_thread_while_it_is_written(path: Path) -> None:
    journal = Journal.open(path)
    stop, counts = threading.Event(), []

    def reader() -> None:
        while not stop.is_set():
            counts.append(len(journal.read(0, 10_000)))

    thread = threading.Thread(target=reader)
    thread.start()
    for _ in range(200):
        journal.write(decision(flags=(FLAG,)))
    stop.set()
    thread.join(10)
    assert counts == sorted(counts)
    assert len(journal.read(0, 10_000)) == 200
    journal.close()


def test_reads_what_is_newer_than_a_number_and_the_newest_when_none_is_given(path: Path) -> None:
    journal = Journal.open(path)
    for _ in range(5):
        journal.write(decision(flags=(FLAG,)))
    assert [e["event"] for e in journal.read(3, 10)] == [4, 5]
    assert [e["event"] for e in journal.read(0, 2)] == [1, 2]
    assert [e["event"] for e in journal.read(None, 2)] == [4, 5]
    journal.close()


def test_reading_where_there_is_no_journal_says_so(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="no journal"):
        read(tmp_path / FILE)
