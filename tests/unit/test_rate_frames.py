"""What is to be rated: files and folders in, each picture once out, the rest named."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from agent.commands.rate_frames import candidate_of, found_again, gathered, png
from agent.errors import ImageError, UsageError

SIDE = 160


def picture(sigma_px: float, seed: int = 1) -> NDArray[np.uint8]:
    """Grains that a probe of this width was scanned over."""
    rng = np.random.default_rng(seed)
    rough = cv2.GaussianBlur(rng.standard_normal((SIDE, SIDE)), (0, 0), 4.0) > 0.0
    seen = cv2.GaussianBlur(rough.astype(np.float32), (0, 0), sigma_px)
    return np.asarray(np.clip(60.0 + 120.0 * seen + rng.normal(0.0, 4.0, seen.shape), 0, 255), np.uint8)


def through_focus(folder: Path, count: int = 12) -> list[Path]:
    """count frames, the sharpest first."""
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{number:02}.png" for number in range(count)]
    for number, (path, sigma) in enumerate(zip(paths, np.geomspace(0.4, 10.0, count), strict=True)):
        cv2.imwrite(str(path), picture(float(sigma), seed=number))
    return paths


def quiet(done: int, of: int) -> None:
    """Progress that nobody watches."""


def test_a_folder_stands_for_its_pictures_and_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    paths = through_focus(tmp_path / "frames", 3)
    (tmp_path / "frames" / "03.png").write_bytes(b"no picture")
    (tmp_path / "frames" / "notes.txt").write_text("not asked")
    frames = gathered([tmp_path / "frames"], quiet)
    assert [each.path for each in frames.candidates] == paths
    assert [(Path(each.path).name, each.error.split(",")[0]) for each in frames.left_out] == [
        ("03.png", "not an image (TIFF")
    ]


def test_the_same_picture_under_two_names_is_rated_once(tmp_path: Path) -> None:
    first, *_ = through_focus(tmp_path, 1)
    (tmp_path / "copy.png").write_bytes(first.read_bytes())
    frames = gathered([first, first, tmp_path / "copy.png"], quiet)
    assert [each.path for each in frames.candidates] == [first]
    assert [each.path for each in frames.left_out] == [str(tmp_path / "copy.png")]
    assert "00.png" in frames.left_out[0].error


def test_a_picture_too_small_to_judge_is_named_with_its_size(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "small.png"), picture(1.0)[:100])
    with pytest.raises(UsageError, match=r"small\.png: 160 x 100 px is too small"):
        gathered([tmp_path / "small.png"], quiet)


def test_a_folder_without_pictures_and_a_missing_file_are_usage_errors(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.tif"):
        with pytest.raises(UsageError, match=str(path)):
            gathered([path], quiet)


def test_the_page_is_shown_the_very_pixels(tmp_path: Path) -> None:
    (path,) = through_focus(tmp_path, 1)
    shown = cv2.imdecode(np.frombuffer(png(candidate_of(path)), np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(shown, picture(0.4, seed=0))


def test_a_file_that_changed_since_is_not_shown(tmp_path: Path) -> None:
    (path,) = through_focus(tmp_path, 1)
    known = candidate_of(path)
    cv2.imwrite(str(path), picture(3.0))
    with pytest.raises(ImageError, match="another picture"):
        png(known)


def test_rated_frames_are_found_again_by_their_pixels(tmp_path: Path) -> None:
    kept, changed, _ = through_focus(tmp_path, 3)
    wanted = [(candidate_of(path).sha256, path) for path in (kept, changed)]
    cv2.imwrite(str(changed), picture(3.0))
    frames = found_again([*wanted, ("0" * 64, tmp_path / "gone.png")], quiet)
    assert [each.path for each in frames.candidates] == [kept]
    assert ["another picture" in each.error or "No such file" in each.error for each in frames.left_out] == [True, True]
