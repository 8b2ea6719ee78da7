"""What `beamside look` writes: names that never clash, height maps that are whole or not there."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from agent.__main__ import app
from agent.commands.looking import Looker, Models, Told
from agent.commands.outputs import Outputs
from agent.commands.relief import Relief
from agent.errors import UsageError
from engines.readings import Defects, DepthMap, FocusReading, FoundDefect
from engines.scene import Levels, Scene
from engines.tiles import tiles

PIXEL_M = 2e-9


class Focus:
    def read(self, image: NDArray[np.uint8], pixel_size_m: float | None) -> FocusReading | None:
        return FocusReading(score=5.0, blur_px=1.0, blur_uncertainty_px=0.2, content=1.0)


class Heights:
    """As high as it is bright: one pixel for 100 levels."""

    def __init__(self) -> None:
        self.levels: set[Levels | None] = set()

    def read(self, image: NDArray[np.uint8], scene: Scene, levels: Levels | None = None) -> DepthMap | None:
        self.levels.add(levels)
        if scene.pixel_size_m is None:
            return None
        height_m = image.astype(np.float32) * np.float32(scene.pixel_size_m / 100.0)
        return DepthMap(height_m=height_m, scale_m=np.ones_like(height_m))


class Bright:
    """Whatever is white is a particle."""

    wants_reference = False

    def read(
        self, image: NDArray[np.uint8], scene: Scene, levels: Levels | None = None, *, reference: object = None
    ) -> Defects:
        _, _, boxes, _ = cv2.connectedComponentsWithStats((image == 255).astype(np.uint8))
        return tuple(FoundDefect("particle", 0.9, (x, y, x + w, y + h)) for x, y, w, h, _ in boxes[1:].tolist())


def looker(depth_dir: Path | None, overlay_dir: Path | None, *inputs: Path) -> Looker:
    outputs = Outputs(depth_dir, overlay_dir, map(str, inputs))
    return Looker(Models(Focus(), Heights(), Bright()), Told(PIXEL_M, None), outputs)


def scene(rows: int, columns: int) -> NDArray[np.uint8]:
    """A shallow ramp with three white particles, one in the corner."""
    ramp = np.linspace(20, 200, columns, dtype=np.uint8)[None, :].repeat(rows, axis=0)
    for y, x in ((rows // 2, columns // 2), (40, 60), (rows - 9, columns - 7)):
        ramp[y : y + 12, x : x + 12] = 255
    return ramp


def saved(path: Path, pixels: NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)
    return path


def ignored(_: float) -> None:
    """No progress."""


# Names


def test_inputs_of_one_stem_do_not_overwrite_each_other(tmp_path: Path) -> None:
    files = [saved(tmp_path / name, scene(64, 96 + 32 * i)) for i, name in enumerate(("1/a.png", "2/a.png", "2/a.bmp"))]
    at = looker(tmp_path / "d", tmp_path / "o", *files)
    maps = [at.look(str(file), ignored).depth for file in files]
    assert [Path(each.map or "").name for each in maps if each] == ["a.npy", "a_2.npy", "a_3.npy"]
    assert [np.load(each.map or "").shape[1] for each in maps if each] == [96, 128, 160]
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["a.png", "a_2.png", "a_3.png"]
    assert sorted(path.suffix for path in (tmp_path / "d").iterdir()) == [".npy"] * 3 + [".png"] * 3


def test_an_input_is_never_overwritten_whatever_comes_first(tmp_path: Path) -> None:
    files = [saved(tmp_path / "a.png", scene(64, 96)), saved(tmp_path / "a_2.png", scene(64, 96))]
    before = [file.read_bytes() for file in files]
    at = looker(tmp_path, tmp_path, *files)
    for file in files:
        at.look(str(file), ignored)
    assert [file.read_bytes() for file in files] == before
    assert (tmp_path / "a_3.png").exists()


def test_maps_and_overlays_may_share_a_folder(tmp_path: Path) -> None:
    file = saved(tmp_path / "in" / "a.png", scene(64, 96))
    looker(tmp_path / "out", tmp_path / "in" / ".." / "out", file).look(str(file), ignored)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.npy", "a.png", "a_depth.png"]


def test_capitals_are_not_enough_to_tell_names_apart(tmp_path: Path) -> None:
    at = Outputs(tmp_path / "d", None, [])
    assert [at.targets(Path(name)).depth for name in ("A.png", "a.png")] == [
        tmp_path / "d" / "A.npy",
        tmp_path / "d" / "a_2.npy",
    ]


def test_a_second_run_takes_the_same_names(tmp_path: Path) -> None:
    file = saved(tmp_path / "a.png", scene(64, 96))
    for _ in range(2):
        looker(tmp_path / "d", None, file).look(str(file), ignored)
    assert sorted(path.name for path in (tmp_path / "d").iterdir()) == ["a.npy", "a.png"]


def test_a_folder_that_cannot_be_made_is_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(UsageError, match=r"--overlay-dir .*taken: cannot be made"):
        Outputs(None, tmp_path / "taken", [])


# Large pictures, by tiles


def test_a_picture_larger_than_one_tile_gives_the_same_map_and_each_defect_once(tmp_path: Path) -> None:
    pixels = scene(2081, 3201)  # no multiple of the models' stride
    file = saved(tmp_path / "large.png", pixels)
    heights, shares = Heights(), []
    models = Models(Focus(), heights, Bright())
    row = Looker(models, Told(PIXEL_M, None), Outputs(tmp_path / "d", tmp_path / "o", [])).look(
        str(file), shares.append
    )
    assert row.depth is not None and row.depth.map is not None
    found = np.load(row.depth.map)
    assert found.dtype == np.float32
    assert np.allclose(found, pixels * (PIXEL_M / 100.0), rtol=1e-6, atol=0.0)
    assert row.depth.mean_m == pytest.approx(pixels.mean() * PIXEL_M / 100.0, rel=1e-6)
    assert sorted(each.box_px for each in row.defects) == [
        (60, 40, 72, 52),
        (1600, 1040, 1612, 1052),
        (3194, 2072, 3201, 2081),
    ]
    assert len(heights.levels) == 1, "each tile must be told the levels of the whole picture"
    assert shares == sorted(shares) and shares[-1] == 1.0 and len(shares) == len(tiles((2112, 3232))) > 1


def test_a_defect_is_as_high_as_it_stands_above_what_is_around_it(tmp_path: Path) -> None:
    pixels = np.full((2080, 3200), 55, np.uint8)
    pixels[1000:1020, 1500:1530] = 255
    row = looker(None, None).look(str(saved(tmp_path / "l.png", pixels)), ignored)
    assert [each.height_m for each in row.defects] == [pytest.approx(2.0 * PIXEL_M, rel=1e-3)]
    assert row.depth is not None and row.depth.map is None


def test_a_map_that_could_not_be_finished_leaves_no_file(tmp_path: Path) -> None:
    (tile,) = tiles((64, 64))
    with pytest.raises(MemoryError), Relief((64, 64), tmp_path / "m.npy") as relief:
        relief.take(tile, np.zeros((64, 64), np.float32))
        raise MemoryError
    assert list(tmp_path.iterdir()) == []


def test_the_preview_of_a_large_map_is_its_mean_over_blocks_also_at_ragged_ends() -> None:
    height, width = 2051, 4101
    truth = np.random.default_rng(3).normal(0, 1e-8, (height, width)).astype(np.float32)
    padded = np.pad(truth, ((0, -height % 32), (0, -width % 32)))
    with Relief((height, width), None) as relief:
        for tile in tiles((padded.shape[0], padded.shape[1]), largest_px=1):
            rows, columns = tile.rows, tile.columns
            relief.take(tile, padded[rows.start : rows.stop, columns.start : columns.stop])
    times = relief.reduced
    assert times == 4
    assert relief.preview.shape == (513, 1026)
    blocks = truth[:2048, :4096].reshape(512, times, 1024, times).mean(axis=(1, 3))
    assert np.allclose(relief.preview[:512, :1024], blocks, atol=1e-12)
    assert relief.mean_m == pytest.approx(float(truth.mean(dtype=np.float64)), rel=1e-6)
    assert np.isfinite(relief.preview).all()


def test_a_map_that_cannot_be_written_is_the_row_of_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = saved(tmp_path / "a.png", scene(64, 96))
    monkeypatch.setattr(Models, "loaded", classmethod(lambda cls, _=None: Models(Focus(), Heights(), Bright())))
    (tmp_path / "d" / "a.npy").mkdir(parents=True)  # a folder in the way
    result = CliRunner().invoke(
        app, ["look", str(file), "--json", "--pixel-size-m", "2e-9", "--depth-dir", str(tmp_path / "d")]
    )
    assert result.exit_code == 1
    (row,) = json.loads(result.stdout)
    assert "cannot be written" in row["error"]
    assert "a.npy" in row["error"]
