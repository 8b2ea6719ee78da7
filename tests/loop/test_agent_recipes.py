"""Recipes behind the real sockets: every marked frame accounted for, rules, crops, density, and reloads of them."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from agent.commands import run
from agent.crops import FOLDER
from agent.journal import FILE, read
from agent.perceive import Perceiver
from engines.readings import Defects, FoundDefect
from engines.scene import Levels, Scene
from tests.fakes.models import Reads
from tests.loop.harness import SHAPE, Agent, Stream, said
from tests.loop.test_agent_engine import Moody

Start = Callable[..., Agent]
RATE_HZ, FRAMES = 20.0, 50
SPOTS = ((40, 60), (150, 200))  # row, column of what the picture shows and the stand-in finds
RECIPE = """
threshold = 0.5
[sizes]
small_m = 20e-9
large_m = 60e-9
[classes.void]
report = false
[[regions]]
box_px = [0, 0, 256, 230]
do = "inspect"
"""


class Finds(Reads):
    """Two pits, a void, a pit below the region and, where it is asked for so little, an unsure one."""

    name = "finds@1"

    def read(
        self, image: NDArray[np.uint8], scene: Scene, levels: Levels | None = None, threshold: float | None = None
    ) -> Defects:
        pits = [FoundDefect("pit", 0.9, (x - 6.0, y - 6.0, x + 6.0, y + 6.0)) for y, x in (*SPOTS, (240, 90))]
        finds = [*pits, FoundDefect("void", 0.8, (100.0, 100.0, 110.0, 110.0)), FoundDefect("pit", 0.3, (9, 9, 20, 20))]
        return tuple(each for each in finds if each.confidence >= (0.2 if threshold is None else threshold))


class Many(Finds):
    """As many as a model can tell."""

    def read(
        self, image: NDArray[np.uint8], scene: Scene, levels: Levels | None = None, threshold: float | None = None
    ) -> Defects:
        return tuple(
            FoundDefect("pit", 0.9, (x, y, x + 9.0, y + 9.0)) for x in range(0, 240, 15) for y in range(0, 240, 8)
        )


def picture(rng: np.random.Generator) -> NDArray[np.uint8]:
    still = np.full(SHAPE, 120.0, np.float32)
    for row, column in SPOTS:
        cv2.circle(still, (column, row), 5, 60.0, -1)
    return np.asarray(np.clip(still + rng.normal(0.0, 10.0, SHAPE), 1, 254), np.uint8)


@pytest.fixture
def recipes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one recipe, and the stand-in in service, also after a reload."""
    real = run.models

    def models(settings: Any) -> Any:
        return Perceiver(Moody(), None, Finds()), real(settings)[1]

    monkeypatch.setattr(run, "models", models)
    made = folder / "recipes"
    made.mkdir()
    (made / "via-2.toml").write_text(RECIPE)
    return made


def started(start: Start, recipes: Path, **settings: Any) -> tuple[Agent, Stream]:
    agent = start(recipes={"folder": recipes}, **settings)
    return agent, Stream(agent.wire, recipe="via-2", inspect=True, lot="L7", die_x=4)


def reload(agent: Agent) -> None:
    assert agent.wire.ask("reload")["ok"]
    agent.wire.flush()
    assert agent.loop.reload.wait(20.0)
    agent.wire.flush()


def test_at_twenty_frames_a_second_every_marked_frame_has_its_message_its_row_and_its_crops(
    start: Start, recipes: Path, folder: Path
) -> None:
    agent, stream = started(start, recipes)
    rng, wire = np.random.default_rng(1), agent.wire
    pictures, began = [picture(rng) for _ in range(8)], time.monotonic()
    for n in range(FRAMES):
        stream.send(pictures[n % 8] ^ np.uint8(n & 1))  # never the same pixels twice running
        wire.listen(max(began + (n + 1) / RATE_HZ - time.monotonic(), 0.0))
    wire.flush()
    books = wire.settled_books()
    assert books["received"] == books["processed"] == FRAMES + 1 and books["uninspected"] == 0
    told = {each["frame"]: each for each in wire.told("defects", lane="inspect") if each["recipe"] == "via-2"}
    assert sorted(told) == list(range(1, FRAMES + 1))
    for each in told.values():
        assert (each["count"], each["dropped"]) == (2, {"class": 1, "region": 1})
        assert [(d["class"], d["path"]) for d in each["defects"]] == [("pit", ["defect", "large", "pit"])] * 2
        assert each["defects"][0]["size_m"] == pytest.approx(12 * 10e-9)
    rows = {row["event"]: row for row in read(folder / "state" / FILE, topic="defects")}
    for each in told.values():
        row = rows[each["event"]]
        assert (row["frame"], row["body"]["lot"], row["body"]["die_x"]) == (each["frame"], "L7", 4)
        first = cv2.imread(str(folder / "state" / FOLDER / row["body"]["crops"][0]), cv2.IMREAD_UNCHANGED)
        assert first.shape == (48, 48) and first[20:28, 20:28].mean() < 80 < first[:8].mean()


def test_frames_without_a_recipe_are_told_as_the_model_read_them(start: Start, recipes: Path) -> None:
    agent, stream = started(start, recipes)
    stream.show(picture(np.random.default_rng(2)), recipe=None)
    agent.wire.flush()
    (told, *_) = agent.wire.told("defects", frame=1)
    assert (told["count"], told["recipe"], told["dropped"]) == (5, None, {})


def test_a_frame_full_of_defects_is_bounded_in_its_message_its_row_and_its_crops(
    start: Start, recipes: Path, folder: Path
) -> None:
    agent, stream = started(start, recipes, crops={"quota_bytes": 40_000})
    agent.look_with(Moody(), None, Many())
    for seed in range(4):
        stream.show(picture(np.random.default_rng(seed)))
    agent.wire.flush()
    told = agent.wire.told("defects", frame=4)[0]
    assert 400 < told["count"] <= 480 and len(told["defects"]) == told["count"]
    row = read(folder / "state" / FILE, told["event"] - 1)[0]
    assert len(row["body"]["crops"]) == 16
    kept = [path.stat().st_size for path in (folder / "state" / FOLDER).iterdir()]
    assert 0 < sum(kept) <= 40_000


def test_too_many_defects_in_the_last_frames_raise_an_alarm_that_ends(start: Start, recipes: Path) -> None:
    (recipes / "via-2.toml").write_text(f"{RECIPE}[density]\nframes = 3\nmost = 5\n")
    agent, stream = started(start, recipes)
    for seed in range(3):
        stream.show(picture(np.random.default_rng(seed)))
    flag = agent.wire.until(said("flag", code="defect_density", state="raised"))
    assert flag["frame"] == 3 and "via-2: 6 defects in the last 3 frames" in flag["detail"]
    agent.look_with(Moody(), None, None)
    stream.show(picture(np.random.default_rng(9)))  # no defect model: not looked for, and no clean frame
    assert not agent.wire.told("flag", code="defect_density", state="cleared")
    agent.look_with(Moody(), None, Clean())
    for seed in (4, 5):
        stream.show(picture(np.random.default_rng(seed)))
    agent.wire.until(said("flag", code="defect_density", state="cleared"))


class Clean(Finds):
    """Finds nothing."""

    def read(
        self, image: NDArray[np.uint8], scene: Scene, levels: Levels | None = None, threshold: float | None = None
    ) -> Defects:
        return ()


def test_a_reload_takes_up_a_changed_recipe_and_a_bad_one_leaves_the_last_good_one(start: Start, recipes: Path) -> None:
    agent, stream = started(start, recipes)
    rng = np.random.default_rng(3)

    def count() -> int:
        since = len(agent.wire.heard)
        number = stream.send(picture(rng))
        told = agent.wire.until(said("defects", frame=number), since=since)
        return int(told["count"])

    assert count() == 2
    (recipes / "via-2.toml").write_text(RECIPE.replace("0.5", "0.95"))
    reload(agent)
    assert count() == 0
    (recipes / "via-2.toml").write_text("threshold = 95\n")
    (recipes / "new.toml").write_text("regions = 3\n")
    reload(agent)
    assert count() == 0
    agent.wire.mark = len(agent.wire.heard)
    stream.send(picture(rng), recipe="new")
    flag = agent.wire.until(said("flag", code="recipe_doubtful", state="raised"))
    assert "new.toml" in flag["detail"] and "regions" in flag["detail"]
    assert agent.wire.until(said("flag", code="unknown_recipe", state="raised"))["frame"] == flag["frame"]


def test_a_recipe_that_was_never_measured_says_so_and_goes_by_the_models_own_threshold(
    start: Start, recipes: Path
) -> None:
    (recipes / "via-2.toml").write_text("false_alarms_per_frame = 0.01\n")
    agent, stream = started(start, recipes)
    stream.show(picture(np.random.default_rng(4)))
    flag = agent.wire.until(said("flag", code="recipe_doubtful", state="raised"))
    assert "calibrate recipe" in flag["detail"] and flag["frame"] == 1 and flag["severity"] == "warning"
    agent.wire.until(said("defects", frame=1, count=5))


def test_a_disk_without_room_for_crops_costs_no_row(start: Start, recipes: Path, folder: Path) -> None:
    agent, stream = started(start, recipes)
    (folder / "state" / FOLDER).write_text("a file where the folder should be")
    stream.show(picture(np.random.default_rng(5)))
    flag = agent.wire.until(said("flag", code="crops_unavailable", state="raised"))
    assert "rows are written without crops" in flag["detail"]
    (row,) = read(folder / "state" / FILE, topic="defects")
    assert row["body"]["count"] == 2 and row["body"]["crops"] == [None, None]
    assert not agent.wire.told("hold")
