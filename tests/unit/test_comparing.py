"""What a frame to inspect is compared with: where the reference comes from, when there is none, and how it is told."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

from agent.__main__ import app
from agent.commands.looking import Looker, Models, Told
from agent.commands.outputs import Outputs
from agent.commands.references import Beside, source_of
from agent.comparing import compared
from agent.control.inspection import Inspection
from agent.errors import ConfigurationError
from agent.loop import inspection_s
from agent.messages import NO_REFERENCE, Findings, Frame, Lane, Optics, ReferenceKind, ReferenceSource, Wanted
from agent.perceive import Perceiver
from engines import tiles
from engines.cascade import load_cascade
from engines.defects import DefectFinder
from engines.load import load
from engines.readings import Defects, FoundDefect
from engines.scene import Levels, Scene, padded
from tests.fakes import compares, judges
from tests.fakes.models import Reads

SHAPE = (200, 300)  # pads to 224 x 320
NOISE = np.random.default_rng(5).integers(20, 230, SHAPE, np.uint8)
SELF = ReferenceSource(expected=True)
NONE = ReferenceSource(kind=ReferenceKind.NONE)
PLACE = (152, 104)
BOX = (152.0, 104.0, 160.0, 112.0)


def lines(shape: tuple[int, int] = SHAPE, *, seed: int = 1, period_px: int = 20) -> NDArray[np.uint8]:
    """Upright lines; the noise is the seed's own."""
    x = np.arange(shape[1])[None, :] + np.zeros((shape[0], 1))
    noise = np.random.default_rng(seed).normal(0, 6, shape)
    return np.clip(120 + 50 * np.sign(np.sin(2.0 * np.pi * x / period_px)) + noise, 1, 254).astype(np.uint8)


def spoilt(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    out = image.copy()
    x, y = PLACE
    out[y : y + 8, x : x + 8] = 254 - image[y : y + 8, x : x + 8]
    return out


def golden(pixels: NDArray[np.uint8], kind: ReferenceKind = ReferenceKind.GOLDEN) -> ReferenceSource:
    return ReferenceSource(kind=kind, pixels=pixels, expected=True)


@pytest.fixture(scope="module")
def finder(tmp_path_factory: pytest.TempPathFactory) -> DefectFinder:
    models = compares.package(tmp_path_factory.mktemp("models")).parent
    return DefectFinder(load("defects", models=models, backend="onnxruntime", threads=1))


def look(perceiver: Perceiver, source: ReferenceSource, pixels: NDArray[Any], number: int = 1) -> Findings:
    optics = Optics(source="electron/SE2", pixel_size_m=2e-9)
    frame = Frame(number=number, pixels=pixels, optics=optics, lane=Lane.INSPECT, received_ns=0)
    return perceiver.look(frame, Wanted(inspection=True, reference=source))


def boxes(found: Any) -> set[Any]:
    return {each.box_px for each in found}


# --- where it comes from ---


def test_a_pattern_is_its_own_reference_and_a_scene_without_one_has_none() -> None:
    image = spoilt(lines())
    own = compared(image, ReferenceSource()).reference
    assert own is not None and own.shape == SHAPE and own.dtype == np.uint8
    x, y = PLACE
    there, clean = own[y : y + 8, x : x + 8].astype(float), lines()[y : y + 8, x : x + 8].astype(float)
    assert np.abs(there.mean(axis=0) - clean.mean(axis=0)).max() < 8.0  # grey levels: the defect is not in it
    nothing = compared(NOISE, ReferenceSource())
    assert (nothing.reference, nothing.missing) == (None, None)


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (SELF, "nothing in the picture repeats"),
        (golden(lines((100, 120))), "the golden frame is 120x100, the frame 300x200 pixels"),
        (golden(lines()), "shows another place"),
        (golden(lines(), ReferenceKind.CAD), "shows another place"),
        (ReferenceSource(kind=ReferenceKind.GOLDEN), "golden reference was not loaded"),
    ],
)
def test_a_reference_that_was_counted_on_and_is_not_there_is_told_with_its_reason(
    source: ReferenceSource, why: str
) -> None:
    found = compared(NOISE, source)
    assert found.reference is None and found.missing is not None and why in found.missing


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (31, 500), (500, 4)])
def test_a_tiny_picture_is_compared_with_nothing(shape: tuple[int, int]) -> None:
    image = lines((512, 512))[: shape[0], : shape[1]]
    assert compared(image, ReferenceSource()).missing is None
    for source in (SELF, golden(image)):
        found = compared(image, source)
        assert found.reference is None and f"{shape[1]}x{shape[0]} pixels are too few" in str(found.missing)


def test_none_is_no_reference_and_no_complaint() -> None:
    found = compared(lines(), NONE)
    assert (found.reference, found.missing) == (None, None)


# --- perception ---


def test_a_defect_shows_against_the_frames_own_repetition_and_against_a_golden_frame(finder: DefectFinder) -> None:
    perceiver = Perceiver(None, None, finder)
    for number, source in enumerate((ReferenceSource(), SELF, golden(lines(seed=2)))):
        seen = look(perceiver, source, spoilt(lines()), number)
        assert seen.defects is not None and boxes(seen.defects) == {BOX}, source.kind
        assert seen.unreferenced is None and seen.took_s["reference"] > 0.0
        assert inspection_s(seen.took_s) >= seen.took_s["reference"] + seen.took_s["defects"]


@pytest.mark.parametrize(
    ("source", "pixels", "why"),
    [
        (NONE, spoilt(lines()), None),
        (ReferenceSource(), NOISE, None),
        (SELF, NOISE, "repeats"),
        (golden(lines((96, 96))), spoilt(lines()), "96x96"),
    ],
)
def test_without_a_reference_the_frame_is_read_all_the_same(
    finder: DefectFinder, source: ReferenceSource, pixels: NDArray[np.uint8], why: str | None
) -> None:
    seen = look(Perceiver(None, None, finder), source, pixels)
    assert seen.defects == () and seen.models == (finder.name,)
    assert (seen.unreferenced is None) if why is None else (why in str(seen.unreferenced))


class Beholds(Reads):
    """A defect model that remembers what it was shown."""

    name = "beholds@1"

    def __init__(self, *, wants: bool) -> None:
        self.wants_reference = wants
        self.shown: list[tuple[NDArray[np.uint8], NDArray[np.uint8] | None]] = []

    def read(
        self, image: NDArray[np.uint8], scene: Scene, levels: Levels | None = None, *, reference: Any = None
    ) -> Defects:
        self.shown.append((image, reference))
        return (FoundDefect("pit", 0.9, BOX),)


def test_the_reference_is_made_of_the_whole_picture_and_padded_as_the_picture_is() -> None:
    model = Beholds(wants=True)
    frame = lines()
    look(Perceiver(None, None, model), ReferenceSource(), frame)
    ((image, reference),) = model.shown
    own = compared(frame, ReferenceSource()).reference
    assert own is not None and reference is not None
    np.testing.assert_array_equal(image, padded(frame))
    np.testing.assert_array_equal(reference, padded(own))


def test_a_model_that_does_not_compare_costs_no_reference() -> None:
    model = Beholds(wants=False)
    seen = look(Perceiver(None, None, model), SELF, NOISE)
    assert model.shown[0][1] is None and seen.unreferenced is None
    assert "reference" not in seen.took_s


def asks(perceiver: Perceiver, pixels: NDArray[np.uint8] | None = None, **wanted: Any) -> Findings:
    frame = Frame(
        number=1,
        pixels=spoilt(lines()) if pixels is None else pixels,
        optics=Optics(pixel_size_m=2e-9),
        lane=Lane.INSPECT,
        received_ns=0,
    )
    return perceiver.look(frame, Wanted(inspection=True, **wanted))


class Empty(Beholds):
    """... and finds nothing."""

    def read(self, *told: Any, **more: Any) -> Defects:
        super().read(*told, **more)
        return ()


def test_finds_that_a_recipe_looks_at_again_are_compared_though_the_model_compares_nothing() -> None:
    model = Beholds(wants=False)
    seen = asks(Perceiver(None, None, model), nuisances=True)
    assert model.shown[0][1] is None and seen.took_s["reference"] > 0.0
    own = compared(spoilt(lines()), ReferenceSource()).reference
    assert seen.shown is not None and seen.shown.reference is not None and own is not None
    np.testing.assert_array_equal(seen.shown.reference, own)


def test_a_cascade_judges_beside_a_reference_though_the_model_compares_nothing(tmp_path: Path) -> None:
    judges.package(tmp_path)
    cascade = load_cascade(tmp_path)
    told = []
    for source in (NONE, ReferenceSource()):
        seen = asks(Perceiver(None, None, Beholds(wants=False), cascade=cascade), reference=source)
        assert seen.defects is not None
        told.append(seen.defects[0].levels[0].probability)
    assert told == pytest.approx([judges.ALONE, judges.BESIDE], abs=1e-3)


def test_without_a_find_nothing_is_compared_unless_a_recipe_counts_on_it() -> None:
    perceiver = Perceiver(None, None, Empty(wants=False))
    assert "reference" not in asks(perceiver, nuisances=True).took_s
    for pixels in (None, NOISE):  # whether the flag stands must not hang on whether there are finds
        seen = asks(perceiver, pixels, nuisances=True, reference=SELF)
        assert "reference" in seen.took_s and (seen.unreferenced is None) is (pixels is None)


def test_a_blank_frame_is_neither_read_nor_compared(finder: DefectFinder) -> None:
    seen = look(Perceiver(None, None, finder), SELF, np.full(SHAPE, 90, np.uint8))
    assert seen.unseen is not None and seen.defects is None and "reference" not in seen.took_s


def test_the_flag_begins_and_ends_with_the_frames_and_says_why() -> None:
    inspection, told = Inspection(), []
    for number, why in enumerate((None, "the golden frame is 8x8", "the golden frame is 8x8", None)):
        frame = Frame(number=number, pixels=NOISE, optics=Optics(pixel_size_m=1e-9), lane=Lane.INSPECT, received_ns=0)
        told += inspection.flags(frame, Findings(unreferenced=why), (), frozenset())
    assert [(flag.code, flag.state, flag.severity, flag.frame) for flag in told] == [
        (NO_REFERENCE, "raised", "info", 1),
        (NO_REFERENCE, "cleared", "info", 3),
    ]
    assert "without the reference" in told[0].detail and "8x8" in told[0].detail


# --- look ---


@pytest.fixture(scope="module")
def models(finder: DefectFinder) -> Models:
    return replace(Models.loaded(), defects=finder, cascade=None)


@pytest.fixture
def command(models: Models, monkeypatch: pytest.MonkeyPatch) -> Models:
    monkeypatch.setattr(Models, "loaded", classmethod(lambda cls, _=None: models))
    return models


def written(path: Path, pixels: NDArray[np.uint8]) -> Path:
    assert cv2.imwrite(str(path), pixels)
    return path


def run(*words: object) -> Result:
    return CliRunner().invoke(app, ["look", *map(str, words), "--pixel-size-m", "2e-9", "--json"])


def row_of(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, (result.output, result.exception)
    (row,) = json.loads(result.stdout)
    assert isinstance(row, dict)
    return row


@pytest.mark.usefixtures("command")
def test_look_compares_with_the_picture_itself_with_a_file_or_with_nothing(tmp_path: Path) -> None:
    file, clean = written(tmp_path / "a.png", spoilt(lines())), written(tmp_path / "golden.png", lines(seed=2))
    for words in ((), ("--reference", "self"), ("--reference", clean)):
        row = row_of(run(file, *words))
        assert [tuple(each["box_px"]) for each in row["defects"]] == [BOX]
        assert row["flags"] == [] and "unreferenced" not in row and row["took_s"]["reference"] > 0.0
    assert row_of(run(file, "--reference", "none"))["count"] == 0


@pytest.mark.usefixtures("command")
def test_look_tells_what_did_not_fit_and_reads_the_file_all_the_same(tmp_path: Path) -> None:
    noise, small = written(tmp_path / "a.png", NOISE), written(tmp_path / "small.png", lines((96, 128)))
    assert NO_REFERENCE not in row_of(run(noise))["flags"]  # nobody counted on a repetition
    for words, why in ((("--reference", "self"), "repeats"), (("--reference", small), "128x96, the frame 300x200")):
        result = run(noise, *words)
        row = row_of(result)
        assert NO_REFERENCE in row["flags"] and why in row["unreferenced"] and row["defects"] == []
        assert f"no_reference, {noise}: " in result.stderr and why in result.stderr


@pytest.mark.usefixtures("command")
def test_a_reference_that_is_no_picture_is_one_sentence_and_78(tmp_path: Path) -> None:
    file = written(tmp_path / "a.png", NOISE)
    (tmp_path / "notes.png").write_text("no picture")
    for name in ("missing.png", "notes.png"):
        result = run(file, "--reference", tmp_path / name)
        assert isinstance(result.exception, ConfigurationError) and result.exception.exit_code == 78
        assert name in str(result.exception) and "expected self, none, or a picture" in str(result.exception)


def test_a_model_that_does_not_compare_says_that_the_option_was_not_used(
    models: Models, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plain = replace(models, defects=Beholds(wants=False), cascade=None)
    monkeypatch.setattr(Models, "loaded", classmethod(lambda cls, _=None: plain))
    file = written(tmp_path / "a.png", NOISE)
    assert "it was not used" in run(file, "--reference", "self").stderr
    assert "--reference" not in run(file).stderr


def test_the_data_bar_of_a_golden_picture_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import agent.commands.references as references

    told = Optics(databar_rows=20)
    monkeypatch.setattr(references, "read_image", lambda _: (np.vstack([lines(), NOISE[:20]]), told))
    source = source_of(str(tmp_path / "a.tif"))
    assert source.pixels is not None and source.kind is ReferenceKind.GOLDEN
    np.testing.assert_array_equal(source.pixels, lines())


def test_a_large_picture_is_compared_tile_by_tile(
    models: Models, finder: DefectFinder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = spoilt(lines((700, 1000)))
    file = written(tmp_path / "a.png", whole)
    cut = tiles.tiles
    monkeypatch.setattr("agent.commands.looking.tiles", lambda shape: cut(shape, largest_px=1, side_px=480))
    for source in (ReferenceSource(), golden(lines((700, 1000), seed=2))):
        looker = Looker(models, Told(2e-9, None, source), Outputs(None, None, [str(file)]))
        row = looker.look(str(file), lambda _: None)
        assert boxes(row.defects) == {BOX} and row.unreferenced is msgspec.UNSET
    parts = Beside(whole, golden(lines((700, 990))))
    for tile in cut((704, 1024), largest_px=1, side_px=480):
        assert parts.of(tile).reference is None
    assert parts.missing is not None and parts.missing.startswith("the golden frame is 990x700, the frame 1000x700")


def test_it_is_told_in_how_many_tiles_there_was_nothing_to_compare_with() -> None:
    half = np.hstack([lines((480, 480)), np.random.default_rng(3).integers(20, 230, (480, 512), np.uint8)])
    beside = Beside(half, SELF)
    found = [beside.of(tile) for tile in tiles.tiles(half.shape, largest_px=1, side_px=480)]
    without = sum(each.reference is None for each in found)
    assert 0 < without < len(found)
    assert beside.missing is not None and beside.missing.startswith(f"in {without} of {len(found)} tiles nothing")
