"""Element fractions of a sidecar file reach the judge of what is found, over the real sockets."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from agent.commands import run
from agent.perceive import Perceiver
from engines.cascade import load_cascade
from engines.readings import Defects, FoundDefect
from engines.scene import Levels, Scene
from tests.fakes import judges
from tests.fakes.models import Reads
from tests.loop.harness import SHAPE, Agent, Stream, said
from tests.loop.test_agent_engine import Moody

TABLE = "frame,session,x_px,y_px,Si,O\n1,,40,30,0.4,0.5\n2,,9999,30,0.4,0.5\n"
LEFT, RIGHT = (34.0, 24.0, 46.0, 36.0), (134.0, 24.0, 146.0, 36.0)


class Finds(Reads):
    """Two things alike."""

    name = "finds@1"

    def read(
        self, image: NDArray[np.uint8], scene: Scene, levels: Levels | None = None, threshold: float | None = None
    ) -> Defects:
        return FoundDefect("pit", 0.9, LEFT), FoundDefect("pit", 0.8, RIGHT)


@pytest.fixture
def recipes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a recipe and its CSV; a detector's stand-in and a judge in service."""
    judges.package(folder / "models")
    cascade, real = load_cascade(folder / "models"), run.models

    def models(settings: Any) -> Any:
        return Perceiver(Moody(), None, Finds(), cascade=cascade), real(settings)[1]

    monkeypatch.setattr(run, "models", models)
    made = folder / "recipes"
    made.mkdir()
    (made / "via-2.toml").write_text(
        "[fractions]\nfile = 'edx.csv'\n[nuisance]\nstreak = false\ntear = false\nnoise = false\n"
    )
    (made / "edx.csv").write_text(TABLE)
    return made


def pixels(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(20, 230, SHAPE, np.uint8)


def shown(agent: Agent, **header: Any) -> Stream:
    stream = Stream(agent.wire, recipe="via-2", inspect=True)
    stream.show(pixels(1), **header)
    return stream


def test_of_two_finds_alike_the_one_that_holds_silicon_is_residue(start: Callable[..., Agent], recipes: Path) -> None:
    agent = start(recipes={"folder": recipes})
    stream = shown(agent)
    stream.show(pixels(3), recipe=None)
    agent.wire.flush()
    told = {each["frame"]: each["defects"] for each in agent.wire.told("defects", lane="inspect") if each["frame"]}
    assert [(each["class"], each["box_px"]) for each in told[1]] == [("residue", list(LEFT)), ("bridge", list(RIGHT))]
    assert [each["level"] for each in told[1][0]["levels"]] == ["defect", "kind", "noise", "leaf"]
    assert [each["class"] for each in told[2]] == ["bridge", "bridge"]


def test_a_place_out_of_the_frame_is_told_with_the_frame_and_the_rest_goes_on(
    start: Callable[..., Agent], recipes: Path
) -> None:
    agent = start(recipes={"folder": recipes})
    shown(agent).show(pixels(2))
    flag = agent.wire.until(said("flag", code="recipe_doubtful", state="raised"))
    size = f"{SHAPE[1]}x{SHAPE[0]}"
    assert flag["frame"] == 2 and f"the place 9999, 30 px of frame 2 lies out of the frame of {size}" in flag["detail"]
    told = agent.wire.until(said("defects", frame=2))
    assert [each["class"] for each in told["defects"]] == ["bridge", "bridge"]


def test_a_file_with_columns_that_cannot_be_right_leaves_its_recipe_out(
    start: Callable[..., Agent], recipes: Path
) -> None:
    (recipes / "edx.csv").write_text("frame,x,y,Si\n1,40,30,0.4\n")
    agent = start(recipes={"folder": recipes})
    shown(agent)
    flag = agent.wire.until(said("flag", code="recipe_doubtful", state="raised"))
    assert "edx.csv: no column x_px; needed are frame, x_px, y_px" in flag["detail"]
