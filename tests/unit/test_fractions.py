"""Element fractions beside the frames: what a file may hold, what is refused, and which candidate they belong to."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from agent.commands.recipe_references import drawn
from agent.control.fractions import lost, of_boxes, of_frame, read
from agent.recipes import RecipeError, plain_reference, served
from engines.cascade_features import ELEMENTS

TABLE = "frame,session,x_px,y_px,Si,O\n7,,100,50,0.4,0.5\n7,s2,10,20,1,0\n8,,100,50,0.2,\n"


def test_a_candidate_gets_the_mean_of_the_places_in_its_box_and_no_number_where_there_is_none() -> None:
    places = of_frame(read(TABLE + "7,,104,52,0.2,0.7\n"), 7, "s1")
    told = of_boxes(places, [(90.0, 40.0, 110.0, 60.0), (0.0, 0.0, 30.0, 30.0)])
    assert told.shape == (2, len(ELEMENTS))
    assert told[0, ELEMENTS.index("Si")] == pytest.approx(0.3) and told[0, ELEMENTS.index("O")] == pytest.approx(0.6)
    assert told[0, ELEMENTS.index("W")] == 0.0 and np.isnan(told[1]).all()


def test_numbers_that_repeat_in_another_session_are_told_apart() -> None:
    places = read(TABLE)
    assert [each.x_px for each in of_frame(places, 7, "s2")] == [100.0, 10.0]
    assert [each.x_px for each in of_frame(places, 7, None)] == [100.0]
    assert of_frame(places, 9, "s2") == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no column frame"),
        ("frame,x_px,Si\n1,2,0.5\n", "no column y_px"),
        ("frame,x_px,y_px\n1,2,3\n", "no column of an element"),
        ("frame,x_px,y_px,Xx\n1,2,3,0.5\n", "'Xx' is not known"),
        ("frame,x_px,y_px,Si\n1,2,3,much\n", "line 2: Si = 'much'"),
        ("frame,x_px,y_px,Si\n1,2,nan,0.5\n", "line 2: y_px = 'nan'"),
        ("frame,x_px,y_px,Si\n1.5,2,3,0.5\n", "line 2: frame = '1.5'"),
        ("frame,x_px,y_px,Si,O\n1,2,3,0.6,0.6\n", "line 2: shares add up to 1.2"),
        ("frame,x_px,y_px,Si,O\n1,2,3,-0.1,0.6\n", "0..1 each"),
        ("frame,x_px,y_px,Si\n1,2,3,0.6\n1,-2,3,0.6\n", "line 3: the place -2, 3 px lies out of any frame"),
    ],
)
def test_a_file_that_cannot_be_right_is_refused_with_its_recipe(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "edx.csv").write_text(text)
    (tmp_path / "via-2.toml").write_text("[fractions]\nfile = 'edx.csv'\n")
    with pytest.raises(RecipeError, match=says) as caught:
        served(tmp_path / "via-2.toml", plain_reference)
    assert "via-2.toml" in str(caught.value) and "edx.csv" in str(caught.value)


def test_places_of_a_frame_are_found_in_a_file_of_any_order() -> None:
    places = read("frame,x_px,y_px,Si\n9,1,1,0.1\n7,2,2,0.2\n9,3,3,0.3\n8,4,4,0.4\n")
    assert [each.x_px for each in of_frame(places, 9, None)] == [1.0, 3.0]
    assert [each.x_px for each in of_frame(places, 8, None)] == [4.0]


def test_a_place_out_of_its_frame_is_told_where_the_size_is_known(tmp_path: Path) -> None:
    (tmp_path / "via-2.toml").write_text("reference = 'golden'\ngolden = 'clean.png'\n[fractions]\nfile = 'edx.csv'\n")
    (tmp_path / "edx.csv").write_text(TABLE)
    assert cv2.imwrite(str(tmp_path / "clean.png"), np.arange(64 * 96, dtype=np.uint8).reshape(64, 96))
    with pytest.raises(RecipeError, match=r"edx\.csv: the place 100, 50 px of frame 7 lies out of the frame of 96x64"):
        served(tmp_path / "via-2.toml", drawn)
    assert cv2.imwrite(str(tmp_path / "clean.png"), np.arange(64 * 128, dtype=np.uint8).reshape(64, 128))
    assert len(served(tmp_path / "via-2.toml", drawn).fractions) == 3
    assert lost(read(TABLE), (64, 128)) == "" and "100, 50 px" in lost(read(TABLE), (50, 128))


def test_a_recipe_has_the_fractions_of_its_file_and_names_one_that_is_missing(tmp_path: Path) -> None:
    (tmp_path / "via-2.toml").write_text("[fractions]\nfile = 'edx.csv'\n")
    with pytest.raises(RecipeError, match=r"edx\.csv: No such file"):
        served(tmp_path / "via-2.toml", plain_reference)
    (tmp_path / "edx.csv").write_text(TABLE)
    assert len(served(tmp_path / "via-2.toml", plain_reference).fractions) == 3
