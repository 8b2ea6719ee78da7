"""`beamside events`: the journal for people and for programs."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from agent.clock import ManualClock
from agent.commands.events import events
from agent.errors import JournalError
from agent.journal import FILE, Journal
from agent.messages import Ack, Decision, Defect, Flag, Hold, Kind, Mode, Outcome, Suggestion

ROOT = Path(__file__).parents[2]
app = typer.Typer()
app.command()(events)


def decision() -> Decision:
    return Decision(
        now_ns=1,
        mode=Mode.CONTROL,
        flags=(Flag(code="stale", state="raised", severity="warning", detail="no frame for 5 s"),),
        holds=(Hold(state="begin", reason="stale", since_ns=1),),
        defects=(Defect(name="pit", path=(), box_px=(0, 0, 1, 1), confidence=1.0),),
        suggestion=Suggestion(id="a-1", kind=Kind.CORRECT, based_on_frames=(), delta_working_distance_m=2.5e-6),
        acks=(Ack(suggestion="a-1", outcome=Outcome.APPLIED),),
    )


@pytest.fixture
def state(tmp_path: Path) -> Path:
    journal = Journal.open(tmp_path / FILE, ManualClock())
    journal.write(decision())
    journal.close()
    return tmp_path


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False, env={"COLUMNS": "200"})
    assert result.exit_code == 0
    return result.stdout


def test_prints_one_json_document(state: Path) -> None:
    found = json.loads(run("--state-dir", str(state), "--json"))["events"]
    assert [event["topic"] for event in found] == ["flag", "hold", "defects", "suggestion", "ack"]
    found = json.loads(run("--state-dir", str(state), "--json", "--since", "3", "--limit", "1"))["events"]
    assert [event["event"] for event in found] == [4]


def test_prints_a_table_for_people(state: Path) -> None:
    text = run("--state-dir", str(state))
    for words in ("warning stale raised no frame for 5 s", "begin stale", "1 defect", "+2.50 um", "a-1 applied"):
        assert words in text
    assert "pit 1 px" in text


def test_says_where_it_looked_when_there_is_no_journal(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match=str(tmp_path)):
        run("--state-dir", str(tmp_path))


def test_reads_beside_a_running_agent_and_leaves_no_trace(state: Path) -> None:
    journal = Journal.open(state / FILE)
    journal.write(decision())
    assert len(json.loads(run("--state-dir", str(state), "--json"))["events"]) == 10
    journal.close()


def test_follows_one_event_a_line(state: Path) -> None:
    # A shell that runs the tests in the background has them ignore interrupts, and children inherit that.
    script = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    script += "import typer; from agent.commands.events import events; typer.run(events)"
    command = [sys.executable, "-c", script]
    arguments = ["--state-dir", str(state), "--follow", "--json"]
    with subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        first = [json.loads(process.stdout.readline())["event"] for _ in range(5)]
        journal = Journal.open(state / FILE)
        journal.write(decision())
        journal.close()
        then = [json.loads(process.stdout.readline())["event"] for _ in range(5)]
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(10) == 0
    assert first + then == list(range(1, 11))
