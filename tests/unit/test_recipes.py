"""Recipe files: what is refused and in which words, what a reload keeps, when a measured threshold is used."""

from datetime import date
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from agent.commands.recipe_references import drawn
from agent.control.recipe import Measured, Rules
from agent.errors import ConfigurationError
from agent.messages import ReferenceKind
from agent.recipes import RecipeError, Shelf, confidence, fingerprint, plain_reference, read, served

WHOLE = """
reference = "self"
false_alarms_per_frame = 0.01

[sizes]
small_m = 20e-9
large_m = 60e-9
least_m = 6e-9

[classes.bridge]
threshold = 0.6
least_size_m = 4e-9
[classes.residue]
report = false

[nuisance]
tear = false

[[regions]]
box_px = [0, 0, 512, 480]
do = "inspect"
[[regions]]
box_px = [10, 10, 40, 40]
do = "ignore"

[density]
frames = 20
most = 10
"""


def written(folder: Path, text: str, name: str = "via-2") -> Path:
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


def test_a_whole_recipe_is_read_as_it_is_written(tmp_path: Path) -> None:
    rules = read(written(tmp_path, WHOLE))
    assert (rules.sizes.bounds_m, rules.sizes.least_m) == ((20e-9, 60e-9), 6e-9)
    assert (rules.classes["bridge"].threshold, rules.classes["residue"].report) == (0.6, False)
    assert (rules.nuisance.streak, rules.nuisance.tear) == (True, False)
    assert [(each.do, each.box_px[2]) for each in rules.regions] == [("inspect", 512.0), ("ignore", 40.0)]
    assert rules.density is not None and (rules.density.frames, rules.density.clears) == (20, 5.0)


def test_an_empty_recipe_goes_by_the_models_own_threshold(tmp_path: Path) -> None:
    known = served(written(tmp_path, ""), plain_reference)
    assert (known.threshold, known.doubt, known.asked(0.5)) == (None, "", None)
    assert known.reference.kind is ReferenceKind.SELF and known.least("pit", 0.5) == 0.5


@pytest.mark.parametrize(("text", "kind", "expected"), [
    ("", "self", False), ("reference = 'self'\n", "self", True), ("reference = 'none'\n", "none", False),
])  # fmt: skip
def test_a_frame_in_which_nothing_repeats_is_told_where_a_recipe_counts_on_it(
    tmp_path: Path, text: str, kind: str, expected: bool
) -> None:
    reference = served(written(tmp_path, text), drawn).reference
    assert (reference.kind, reference.expected) == (kind, expected)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[sizes\n", "via-2.toml"),
        ("colour = 1\n", "unknown key `colour`"),
        ("[sizes]\nsmal_m = 1e-9\n", "sizes: unknown key `smal_m`; known are small_m, large_m, least_m"),
        (
            "[classes.pit]\nleast_m = 1e-9\n",
            "classes.*unknown key `least_m`; known are threshold, least_size_m, report",
        ),
        ("threshold = 'high'\n", "threshold: Expected `float"),
        ("threshold = 1.2\n", "threshold = 1.2"),
        ("threshold = 0\n", "threshold = 0;"),
        ("threshold = nan\n", "threshold = nan"),
        ("threshold = 0.5\nfalse_alarms_per_frame = 0.1\n", "contradict"),
        ("false_alarms_per_frame = 0.05\n", "expected one of 0.1, 0.01, 0.001"),
        ("[classes.hole]\nthreshold = 0.5\n", "classes.hole: no such class"),
        ("[classes.pit]\nthreshold = 2.0\n", "classes.pit.threshold = 2"),
        ("[classes.pit]\nreport = false\nthreshold = 0.5\n", "classes.pit: report = false and a rule"),
        ("[classes.pit]\nleast_size_m = -1e-9\n", "classes.pit.least_size_m = -1e-09"),
        ("[sizes]\nleast_m = 20.0\n", "sizes.least_m = 20; expected metres"),
        ("[sizes]\nsmall_m = 60e-9\nlarge_m = 20e-9\n", "small ends first"),
        ("[sizes]\nsmall_m = 60e-9\n", "go together"),
        ("[[regions]]\nbox_px = [5, 5, 5, 9]\ndo = 'ignore'\n", r"regions\[0\].box_px = \[5.0, 5.0, 5.0, 9.0\]"),
        ("[[regions]]\nbox_px = [-1, 0, 5, 9]\ndo = 'ignore'\n", r"regions\[0\].box_px"),
        ("[[regions]]\nbox_px = [0, 0, 5, 9]\ndo = 'skip'\n", "regions"),
        (
            "[[regions]]\nbox_px = [2, 2, 4, 4]\ndo = 'inspect'\n[[regions]]\nbox_px = [0, 0, 9, 9]\ndo = 'ignore'\n",
            "lies in a region to ignore",
        ),
        ("[density]\nframes = 0\nmost = 3\n", "density.frames = 0"),
        ("[density]\nframes = 5\nmost = 3\nclear = 4\n", "density.clear = 4"),
        ("reference = 'golden'\n", "golden is missing"),
        ("golden = 'a.png'\n", "golden is given"),
        ("reference = 'cad'\n", "cad is missing"),
        (
            "reference = 'cad'\n[cad]\nfile='a.gds'\npixel_size_m=-1.0\nwidth_px=9\nheight_px=9\nheight_m=5e-8\n",
            "cad.pixel_size_m = -1",
        ),
        ("reference = 'cad'\n[cad]\nfile='a.gds'\n", "cad: lacks `pixel_size_m`"),
        ("reference = 'twin'\n", "reference"),
    ],
)
def test_what_cannot_be_right_is_refused_with_its_key_and_value(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(RecipeError, match=says) as caught:
        read(written(tmp_path, text))
    assert "via-2.toml" in str(caught.value) and caught.value.exit_code == 78


def test_all_classes_left_out_is_a_mistake(tmp_path: Path) -> None:
    from agent.messages import DEFECT_CLASSES

    text = "".join(f"[classes.{name}]\nreport = false\n" for name in DEFECT_CLASSES)
    with pytest.raises(RecipeError, match="no class is reported"):
        read(written(tmp_path, text))


# --- the threshold ---


def with_measured(recipe: Rules, **changes: object) -> Rules:
    known = {
        "threshold": 0.7, "false_alarms_per_frame": 0.01, "frames": 400, "alarms": 0, "upper_per_frame": 0.0075,
        "date": date(2026, 1, 2), "model": "defects@aa", "rules": fingerprint(recipe),
    }  # fmt: skip
    return msgspec.structs.replace(recipe, measured=Measured(**{**known, **changes}))  # type: ignore[arg-type]


def test_a_measured_threshold_is_used_with_the_model_and_the_rules_it_was_measured_with(tmp_path: Path) -> None:
    rules = read(written(tmp_path, WHOLE))
    assert confidence(with_measured(rules), "defects@aa") == (0.7, "")
    threshold, doubt = confidence(with_measured(rules), "defects@bb")
    assert threshold is None and "defects@aa" in doubt and "defects@bb" in doubt and "calibrate recipe" in doubt
    threshold, doubt = confidence(with_measured(rules, rules="other"), "defects@aa")
    assert threshold is None and "rules were changed" in doubt
    threshold, doubt = confidence(rules, "defects@aa")
    assert threshold is None and "no clean frames" in doubt


def test_a_density_alarm_may_be_changed_without_measuring_again_and_a_region_may_not(tmp_path: Path) -> None:
    rules = read(written(tmp_path, WHOLE))
    assert fingerprint(msgspec.structs.replace(rules, density=None)) == fingerprint(rules)
    assert fingerprint(msgspec.structs.replace(rules, regions=())) != fingerprint(rules)


def test_the_model_is_asked_for_what_the_lowest_of_all_thresholds_needs(tmp_path: Path) -> None:
    known = served(written(tmp_path, "threshold = 0.8\n[classes.pit]\nthreshold = 0.3\n"), plain_reference)
    assert (known.asked(0.5), known.least("pit", 0.5), known.least("void", 0.5)) == (0.3, 0.3, 0.8)
    own = served(written(tmp_path, "[classes.pit]\nthreshold = 0.9\n"), plain_reference)
    assert (own.asked(0.5), own.least("pit", 0.5), own.least("void", 0.5)) == (0.5, 0.9, 0.5)


# --- a folder of them ---


def test_a_bad_recipe_is_refused_alone_and_a_changed_one_goes_on_as_it_was_until_it_is_mended(tmp_path: Path) -> None:
    written(tmp_path, "threshold = 0.8\n")
    shelf = Shelf(tmp_path, plain_reference)
    assert shelf.read().recipes["via-2"].threshold == 0.8
    written(tmp_path, "threshold = 8\n")
    written(tmp_path, "sise = 1\n", "new")
    known = shelf.read()
    assert known.recipes["via-2"].threshold == 0.8 and set(known.recipes) == {"via-2"}
    assert set(known.refused) == {"via-2", "new"} and "unknown key `sise`" in known.refused["new"]
    written(tmp_path, "threshold = 0.9\n")
    assert shelf.read().recipes["via-2"].threshold == 0.9
    (tmp_path / "via-2.toml").unlink()
    assert not shelf.read().recipes


def test_a_folder_that_is_none_is_an_error_and_no_folder_is_none(tmp_path: Path) -> None:
    assert not Shelf(None, plain_reference).read().recipes
    with pytest.raises(ConfigurationError, match="no such folder"):
        Shelf(tmp_path / "none", plain_reference).read()


# --- references ---


def test_a_golden_frame_is_loaded_from_beside_the_recipe_and_regions_must_lie_in_it(tmp_path: Path) -> None:
    picture = np.random.default_rng(1).integers(0, 255, (64, 96), np.uint8)
    cv2.imwrite(str(tmp_path / "die.png"), picture)
    text = "reference = 'golden'\ngolden = 'die.png'\n"
    known = served(written(tmp_path, text), drawn)
    assert known.reference.kind is ReferenceKind.GOLDEN and known.reference.expected
    assert known.reference.pixels is not None and np.array_equal(known.reference.pixels, picture)
    text += "[[regions]]\nbox_px = [0, 0, 97, 64]\ndo = 'inspect'\n"
    with pytest.raises(RecipeError, match=r"regions\[0\].*96x64 pixels"):
        served(written(tmp_path, text), drawn)


def test_a_golden_frame_that_is_missing_damaged_or_empty_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, "reference = 'golden'\ngolden = 'die.png'\n")
    with pytest.raises(RecipeError, match=r"via-2: golden .*die\.png"):
        served(path, drawn)
    (tmp_path / "die.png").write_bytes(b"no picture")
    with pytest.raises(RecipeError, match="not an image"):
        served(path, drawn)
    cv2.imwrite(str(tmp_path / "die.png"), np.full((64, 64), 7, np.uint8))
    with pytest.raises(RecipeError, match="empty picture"):
        served(path, drawn)


CAD = "reference = 'cad'\n[cad]\nfile = 'mask.png'\nscale_m = 2e-9\npixel_size_m = 4e-9\nheight_m = 50e-9\n"


def mask(folder: Path) -> None:
    """Upright lines of 40 nm at a pitch of 96 nm, at 2 nm a pixel."""
    lines = np.tile(np.arange(384) % 48 < 20, (256, 1)).astype(np.uint8) * 255
    cv2.imwrite(str(folder / "mask.png"), lines)


def test_a_design_is_rendered_at_the_frames_own_pixel_size_and_place(tmp_path: Path) -> None:
    mask(tmp_path)
    known = served(written(tmp_path, f"{CAD}width_px = 96\nheight_px = 64\nleft_m = 96e-9\n"), drawn)
    seen = known.reference.pixels
    assert known.reference.kind is ReferenceKind.CAD and seen is not None and seen.shape == (64, 96)
    profile = seen.mean(axis=0)
    assert np.allclose(profile[4:28], profile[28:52], atol=3.0)  # a pitch of 24 px
    assert np.ptp(seen, axis=0).max() <= 6  # upright lines
    tops, gaps = profile[28:31].mean(), profile[39:43].mean()  # of a line, and of the space beside it
    assert tops > gaps + 30.0
    other = served(written(tmp_path, f"{CAD}width_px = 96\nheight_px = 64\nleft_m = 144e-9\n"), drawn).reference.pixels
    assert other is not None and np.allclose(other.mean(axis=0)[8:60], profile[20:72], atol=3.0)  # 12 px further on


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("width_px = 96\nheight_px = 64\nleft_m = 600e-9\n", "reaches out of the design"),
        ("width_px = 8\nheight_px = 64\n", "8x64 pixels"),
        ("width_px = 96\nheight_px = 64\ncell = 'TOP'\n", "no layers and cells"),
    ],
)
def test_a_design_that_does_not_show_the_frame_is_refused(tmp_path: Path, more: str, says: str) -> None:
    mask(tmp_path)
    with pytest.raises(RecipeError, match=says):
        served(written(tmp_path, CAD + more), drawn)
