"""`beamside calibrate recipe`: clean frames fix a threshold, with its bound, or are told to be too few."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from agent.commands import calibrate
from agent.commands import run as running
from agent.commands.calibrate_recipe import write
from agent.control.alarm_rate import upper
from agent.errors import BeamsideError, ImageError, UsageError
from agent.messages import Mode, Status
from agent.perceive import Perceiver
from agent.recipes import confidence, read
from engines.readings import Defects, FoundDefect
from engines.scene import Levels, Scene
from tests.fakes.models import Reads

RATE = "false_alarms_per_frame = 0.1\n"
SHAPE = (64, 64)


class Told(Reads):
    """Finds a pit as surely as the first pixel is bright, and a bridge where the second says so."""

    name = "told@1"

    def read(
        self, image: NDArray[np.uint8], scene: Scene, levels: Levels | None = None, threshold: float | None = None
    ) -> Defects:
        finds = [
            FoundDefect(name, float(image[0, column]) / 255.0, (20.0, 20.0, 34.0, 30.0))
            for column, name in ((0, "pit"), (1, "bridge"))
        ]
        return tuple(each for each in finds if each.confidence >= (threshold or 0.5))


def frames(folder: Path, pits: list[int], bridges: list[int] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(1)
    for number, (pit, bridge) in enumerate(zip(pits, bridges or [0] * len(pits), strict=True)):
        picture = rng.integers(60, 200, SHAPE, np.uint8)
        picture[0, :2] = pit, bridge
        cv2.imwrite(str(folder / f"{number:03d}.png"), picture)
    return folder


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "via-2.toml"
    path.write_text(f"# for the second via\n{RATE}\n[nuisance]\nnoise = false\n")
    return path


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    models = (Perceiver(None, None, Told()), Status(mode=Mode.OBSERVE))
    monkeypatch.setattr(running, "models", lambda _: models)


def run(*arguments: str | Path) -> str:
    return CliRunner().invoke(calibrate.app, ["recipe", *map(str, arguments)], catch_exceptions=False).stdout


def told(*arguments: str | Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(*arguments, "--json"))
    return found


@pytest.mark.usefixtures("stand_in")
def test_the_threshold_lies_above_what_the_rate_does_not_allow_and_goes_into_the_recipe(
    tmp_path: Path, recipe: Path
) -> None:
    rules, pits = read(recipe), [*range(100, 108), *[5] * 92]  # of eight alarms in 100 frames four may pass
    found = told(recipe, frames(tmp_path / "clean", pits))
    assert found["threshold"] == pytest.approx(103 / 255, abs=2e-6) and found["threshold"] > 103 / 255
    assert (found["alarms"], found["frames"], found["model"]) == (4, 100, "told@1")
    assert found["upper_per_frame"] == pytest.approx(upper(4, 100), abs=1e-6) and found["upper_per_frame"] <= 0.1
    text = recipe.read_text()
    assert text.startswith("# for the second via\n") and text.count("[measured]") == 1
    assert confidence(read(recipe), "told@1") == (pytest.approx(found["threshold"]), "")
    assert confidence(rules, "told@1")[0] is None
    assert "4 in 100 clean frames" in run(recipe, tmp_path / "clean") and recipe.read_text().count("[measured]") == 1


@pytest.mark.usefixtures("stand_in")
def test_too_few_frames_are_refused_with_the_number_that_is_needed(tmp_path: Path, recipe: Path) -> None:
    before = recipe.read_text()
    with pytest.raises(UsageError, match=r"29 clean frames cannot show 0.1 .* 30 are needed"):
        run(recipe, frames(tmp_path / "clean", [0] * 29))
    recipe.write_text(before.replace("0.1", "0.001"))
    with pytest.raises(UsageError, match="2996 are needed"):
        run(recipe, tmp_path / "clean")
    assert "[measured]" not in recipe.read_text()


@pytest.mark.usefixtures("stand_in")
def test_classes_with_a_threshold_of_their_own_cannot_be_silenced_by_another(tmp_path: Path, recipe: Path) -> None:
    recipe.write_text(f"{RATE}[classes.bridge]\nthreshold = 0.4\n")
    clean = frames(tmp_path / "clean", [0] * 40, [200] * 10 + [0] * 30)
    with pytest.raises(BeamsideError, match="10 alarms are of classes with a threshold of their own"):
        run(recipe, clean)
    recipe.write_text(f"{RATE}[classes.bridge]\nreport = false\n")
    assert told(recipe, clean)["alarms"] == 0  # what is not reported raises no alarm


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("text", ["threshold = 0.5\n", ""])
def test_a_recipe_that_asks_for_no_rate_has_nothing_to_measure(tmp_path: Path, recipe: Path, text: str) -> None:
    recipe.write_text(text)
    with pytest.raises(UsageError, match="names no false_alarms_per_frame"):
        run(recipe, frames(tmp_path / "clean", [0]))


@pytest.mark.usefixtures("stand_in")
def test_a_frame_given_twice_an_empty_folder_and_a_blank_frame_are_named(tmp_path: Path, recipe: Path) -> None:
    clean = frames(tmp_path / "clean", [0] * 30)
    with pytest.raises(UsageError, match=r"007\.png is given twice"):
        run(recipe, clean, clean / "007.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="no images here"):
        run(recipe, tmp_path / "empty")
    cv2.imwrite(str(clean / "030.png"), np.full(SHAPE, 9, np.uint8))
    with pytest.raises(ImageError, match=r"030\.png: the picture is blank"):
        run(recipe, clean)


def test_a_recipe_whose_table_cannot_be_replaced_is_left_as_it_is(tmp_path: Path, recipe: Path) -> None:
    from tests.unit.test_recipes import with_measured

    new = with_measured(read(recipe)).measured
    assert new is not None
    recipe.write_text(recipe.read_text() + "[density]\nframes = 3\nmost = 2\n")
    before = recipe.read_text()
    with pytest.raises(BeamsideError, match="take it out by hand"):
        write(recipe, read(tmp_path / "via-2.toml").__class__(), new)  # rules that are not the file's
    assert recipe.read_text() == before and [path.name for path in tmp_path.iterdir()] == ["via-2.toml"]


def test_the_shipped_model_is_measured_as_it_serves(tmp_path: Path, recipe: Path) -> None:
    found = told(recipe, frames(tmp_path / "clean", [90] * 30))
    assert found["model"].startswith("defects@") and 0.0 < found["threshold"] <= 1.0
    assert found["upper_per_frame"] <= 0.1 and found["frames"] == 30
    assert confidence(read(recipe), found["model"])[1] == ""
