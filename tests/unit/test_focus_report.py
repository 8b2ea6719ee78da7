"""`beamside focus --report`: what lies behind an answer, on a page; held against a simulator that is not the twin."""

import csv
import json
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from agent.__main__ import app
from agent.control.estimate import Estimate, estimate
from agent.control.surface import Surface, surface
from agent.errors import UsageError
from agent.messages import Evidence
from tests.simulator import ALPHA_RAD, H_M, PX_M, series
from tests.unit.test_control_estimate import KNOWN, seen

PLACES_H = (7.0, 13.0, 1.0)


def frames() -> list[Evidence]:
    return seen("blobs", PLACES_H, seed=3)


@lru_cache(maxsize=1)
def looked_at() -> tuple[Estimate, Surface]:
    found, known = surface(frames(), KNOWN)
    assert known is not None
    return found, known


def test_the_answer_is_the_estimators_own() -> None:
    assert looked_at()[0] == estimate(frames(), KNOWN)


def test_the_likelihood_is_highest_where_focus_is_and_falls_on_both_sides() -> None:
    _, known = looked_at()
    top = int(np.argmax(known.nats))
    assert known.defocus_m[top] / H_M == pytest.approx(PLACES_H[0], abs=0.3)
    assert known.nats[top] == 0.0
    assert max(known.nats[0], known.nats[-1]) < -50.0
    row, column = np.unravel_index(int(np.argmax(known.astigmatism_nats)), known.astigmatism_nats.shape)
    assert np.hypot(known.astigmatism_m[row], known.astigmatism_m[column]) < 0.5 * H_M


def test_each_frame_has_the_signal_left_that_the_answer_expects() -> None:
    _, known = looked_at()
    np.testing.assert_allclose(known.frames_m / H_M, PLACES_H, atol=0.3)
    expected = np.interp(known.frames_m, known.through_m, known.expected)
    np.testing.assert_allclose(known.passed, expected, atol=0.05)
    assert list(np.argsort(known.passed)) == [1, 0, 2]


def test_every_patch_says_by_itself_what_the_whole_field_says() -> None:
    _, known = looked_at()
    assert len(known.patches) == 9
    off = [(each.defocus_m or np.inf) / H_M - PLACES_H[-1] for each in known.patches]
    assert np.abs(off).max() < 0.6


def test_of_a_flat_field_no_patch_says_anything() -> None:
    found, known = surface(seen("flat", [4.0, 0.0]), KNOWN)
    assert found.reason == "featureless"
    assert known is None or all(each.defocus_m is None for each in known.patches)


def written(folder: Path, kind: str) -> Path:
    pictures = series(kind, [z * H_M for z in PLACES_H], snr=1.8, seed=3)
    names = ("path", "working_distance_m", "stigmator_x", "stigmator_y", "pixel_size_m", "semi_convergence_angle_rad")
    with (folder / "series.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(names)
        for number, (picture, z) in enumerate(zip(pictures, PLACES_H, strict=True)):
            cv2.imwrite(str(folder / f"f{number}.png"), picture)
            rows.writerow([f"f{number}.png", 5e-3 + (z - PLACES_H[0]) * H_M, 0, 0, PX_M, ALPHA_RAD])
    return folder / "series.csv"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["focus", *map(str, arguments)])


def test_the_page_tells_the_answer_that_json_tells(tmp_path: Path) -> None:
    path = written(tmp_path, "blobs")
    done = run(path, "--report", tmp_path / "page", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told == json.loads(run(path, "--json").stdout)
    page = (tmp_path / "page" / "focus.html").read_text()
    assert f"Defocus +{told['defocus_m'] * 1e6:.2f}" in page
    assert "3. f2.png" in page and "9 of 9 patches" in page
    assert "http" not in page.replace("http://www.w3.org", "")


def test_an_abstention_has_a_page_too(tmp_path: Path) -> None:
    done = run(written(tmp_path, "flat"), "--report", tmp_path / "page")
    assert done.exit_code == 0, done.output
    assert "No answer: featureless" in (tmp_path / "page" / "focus.html").read_text()


def test_a_page_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    path = written(tmp_path, "blobs")
    (tmp_path / "file").write_text("")
    done = run(path, "--report", tmp_path / "file" / "page")
    assert isinstance(done.exception, UsageError)
    assert "cannot be written" in str(done.exception)
