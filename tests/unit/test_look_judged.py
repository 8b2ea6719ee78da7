"""`beamside look` beside a cascade: each find judged as the agent judges it, in the row and on the picture."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from agent.__main__ import app
from agent.bridges.files import read_image
from agent.commands import overlay
from agent.commands.look import look_at
from agent.commands.looking import Looked, Looker, Models, Told
from agent.commands.outputs import Outputs
from agent.commands.run import cascade as served
from agent.errors import ConfigurationError
from agent.messages import Defect, Frame, Lane, Level, Optics, ReferenceKind, ReferenceSource, Wanted
from agent.perceive import Perceiver
from agent.settings import Settings
from engines import tiles
from engines.cascade import load_cascade
from engines.readings import Defects, FoundDefect
from engines.scene import Levels, Scene
from tests.fakes import judges

PIXEL_M = 2e-9
SPOTS = ((300, 40), (500, 420), (730, 610))  # x, y of the middle of what is found
NONE = ReferenceSource(kind=ReferenceKind.NONE, expected=True)


class Spots:
    """A detector that finds bright squares, in whatever part of the picture it is shown."""

    name, wants_reference = "spots@1", False

    def read(
        self, image: NDArray[np.uint8], scene: Scene, levels: Levels | None = None, *, reference: Any = None
    ) -> Defects:
        count, _, boxes, _ = cv2.connectedComponentsWithStats(cv2.inRange(image, 250, 255))
        sides = [tuple(float(side) for side in box[:4]) for box in boxes[1:count]]
        return tuple(FoundDefect("pit", 0.9, (x, y, x + w, y + h)) for x, y, w, h in sides)

    def begin(self, *told: Any, reference: Any = None, threshold: Any = None) -> Any:
        return lambda: self.read(*told)


def lines(shape: tuple[int, int] = (640, 800)) -> NDArray[np.uint8]:
    x = np.arange(shape[1])[None, :] + np.zeros((shape[0], 1))
    noise = np.random.default_rng(1).normal(0, 6, shape)
    made = np.clip(100 + 40 * np.sign(np.sin(2.0 * np.pi * x / 20)) + noise, 1, 240).astype(np.uint8)
    for x_px, y_px in SPOTS:
        made[y_px - 5 : y_px + 5, x_px - 5 : x_px + 5] = 255
    return made


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp("models")
    judges.package(folder)
    return replace(Models.loaded(), defects=Spots(), cascade=load_cascade(folder))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("frames") / "a.png"
    assert cv2.imwrite(str(path), lines())
    return path


def looked(models: Models, file: Path, reference: ReferenceSource | None = None) -> Looked:
    told = Told(PIXEL_M, None) if reference is None else Told(PIXEL_M, None, reference)
    (row,) = look_at([str(file)], Looker(models, told, Outputs(None, None, [str(file)])))
    assert isinstance(row, Looked), row
    return row


def sure(row: Looked) -> list[float]:
    """Of each find, that it is a defect."""
    return [each.levels[0].probability for each in row.defects]


def test_the_row_tells_path_and_levels_and_what_it_was_compared_with(
    models: Models, file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Models, "loaded", classmethod(lambda cls, _=None: models))
    words = ["look", str(file), "--pixel-size-m", "2e-9", "--overlay-dir", str(tmp_path), "--json"]
    done = CliRunner().invoke(app, [*words, "--reference", "self"])
    assert done.exit_code == 0, (done.output, done.exception)
    (row,) = json.loads(done.stdout)
    assert "it was not used" not in done.stderr and {"reference", "cascade"} <= set(row["took_s"])
    for each in row["defects"]:
        assert (each["class"], each["path"], each["size_m"]) == ("bridge", ["defect", "bridge"], pytest.approx(20e-9))
        assert [(level["level"], level["said"]) for level in each["levels"]][::3] == [
            ("defect", "defect"),
            ("leaf", "bridge"),
        ]
    assert row["count"] == len(SPOTS) and cv2.imread(str(tmp_path / "a.png")) is not None


def test_a_picture_is_judged_beside_its_own_repetition_or_beside_nothing(models: Models, file: Path) -> None:
    assert sure(looked(models, file)) == pytest.approx([judges.BESIDE] * 3, abs=1e-3)
    alone = looked(models, file, NONE)
    assert sure(alone) == pytest.approx([judges.ALONE] * 3, abs=1e-3) and alone.flags == ()


def test_it_says_what_the_agent_says_of_the_same_picture(models: Models, file: Path) -> None:
    pixels, _ = read_image(file)
    frame = Frame(number=1, pixels=pixels, optics=Optics(pixel_size_m=PIXEL_M), lane=Lane.INSPECT, received_ns=0)
    depth: Any = models.depth
    agent = Perceiver(None, depth, Spots(), cascade=models.cascade).look(frame, Wanted(inspection=True))
    mine = looked(models, file).defects
    assert agent.defects is not None and len(agent.defects) == len(mine) == len(SPOTS)
    for one, other in zip(agent.defects, mine, strict=True):
        assert (one.name, one.path, one.box_px, one.size_m) == (other.name, other.path, other.box_px, other.size_m)
        assert one.height_m == pytest.approx(other.height_m, rel=1e-4, abs=1e-12)
        for mine_of_it, its in zip(other.levels, one.levels, strict=True):
            assert mine_of_it.said == its.said and mine_of_it.probability == pytest.approx(its.probability, abs=1e-5)


def test_in_tiles_each_find_is_judged_as_in_the_whole(
    models: Models, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = looked(models, file)
    cut = tiles.tiles
    monkeypatch.setattr("agent.commands.looking.tiles", lambda shape: cut(shape, largest_px=1, side_px=480))
    tiled = looked(models, file)
    assert {each.box_px: each.path for each in tiled.defects} == {each.box_px: each.path for each in whole.defects}
    assert sure(tiled) == pytest.approx(sure(whole), abs=1e-5)


def test_without_a_package_nothing_is_judged_and_an_edited_one_is_refused(
    tmp_path: Path, file: Path, models: Models
) -> None:
    row = looked(replace(models, cascade=None), file)
    assert [each.levels for each in row.defects] == [()] * 3 and "cascade" not in row.took_s
    judges.package(tmp_path)
    assert served(Settings(engines={"models": tmp_path})) is not None
    (tmp_path / "cascade" / "model.onnx").write_bytes(b"another")
    with pytest.raises(ConfigurationError, match=r"cascade/model\.onnx: sha256 is"):
        served(Settings(engines={"models": tmp_path}))


# --- on the picture ---


def defect(*levels: Level, path: tuple[str, ...] = ("defect", "large", "bridge")) -> Defect:
    return Defect(name="bridge", path=path, box_px=(100.0, 60.0, 140.0, 90.0), confidence=0.9, levels=levels)


def test_a_name_says_the_path_and_below_it_what_each_level_said() -> None:
    judged = defect(
        Level(level="defect", said="defect", probability=0.95), Level(level="kind", said="unsized", probability=0.6)
    )
    assert overlay.path_said(judged) == "large bridge"
    assert overlay.levels_said(judged) == "defect 0.95 > known 0.60"
    assert overlay.path_said(defect(path=("defect", "unknown"))) == "unknown"
    plain = FoundDefect("closed_contact", 0.9, (0.0, 0.0, 9.0, 9.0))
    assert (overlay.path_said(plain), overlay.levels_said(plain)) == ("closed contact", "")


def test_levels_are_left_out_where_there_is_no_room_for_them() -> None:
    grey = np.full((300, 400), 90, np.uint8)
    level = Level(level="defect", said="defect", probability=0.95)
    drawn = [overlay.draw(grey, [defect(level)] * n, 1e-9)[:600] for n in (1, overlay.MOST_LEVELS + 1)]
    bare = overlay.draw(grey, [defect()], 1e-9)[:600]
    papers = [int((page == overlay.PAPER).all(axis=2).sum()) for page in (*drawn, bare)]
    assert papers[0] > papers[2]
    assert papers[1] < (overlay.MOST_LEVELS + 1) * papers[2]
