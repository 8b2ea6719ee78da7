"""Agents in this process or their own, on real sockets in a folder with a short name."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.loop.harness import Agent, Process, Stream

SESSIONS = itertools.count(1)


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """For sockets and state; ipc names have at most 107 characters."""
    made = tmp_path_factory.mktemp("a")
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(made))
    return made


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[..., Agent]]:
    """Starts an agent with these settings; it must live until the test's end unless the test ended it."""
    agents: list[Agent] = []

    def begin(**settings: Any) -> Agent:
        agents.append(Agent(folder, **settings))
        return agents[-1].start()

    yield begin
    for agent in agents:
        agent.stop()


@pytest.fixture
def agent(start: Callable[..., Agent]) -> Agent:
    """One of the test's own."""
    return start()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """One that lives through all the tests of a module, whatever they throw at it."""
    folder = tmp_path_factory.mktemp("a")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNTIME_DIRECTORY", str(folder))
        agent = Agent(folder, frames={"stale_after_s": 1000.0}).start()
    yield agent
    agent.stop()


@pytest.fixture
def stream(shared: Agent) -> Stream:
    """A new session for the shared agent, its first frame looked at. What was told before counts as told."""
    shared.clock.skip(7.0)  # a condition of the last test is over
    stream = Stream(shared.wire, session=f"s{next(SESSIONS)}")
    stream.show()
    shared.wire.mark = len(shared.wire.heard)
    return stream


@pytest.fixture
def launch(folder: Path) -> Iterator[Callable[..., Process]]:
    """Launches `beamside run`, or another command in its place."""
    processes: list[Process] = []

    def begin(*command: str, produces: bool = True, **environment: str) -> Process:
        processes.append(Process(folder, *command, produces=produces, **environment))
        return processes[-1]

    yield begin
    for process in processes:
        process.close()
