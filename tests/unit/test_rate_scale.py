"""The score scale as a file: what it tells, where it is refused, and that the agent itself goes on as before."""

import json
from pathlib import Path

import msgspec
import pytest

from agent.commands.score_scales import described, read_score_scale
from agent.errors import ConfigurationError
from agent.settings import load
from engines.load import MODELS
from engines.manifest import read
from engines.score_scale import Rater, ScaleError, ScoreScale, on_scale


def scale(**changed: object) -> ScoreScale:
    """One for the model that came with beamside: half of its score up to 6, then steeper."""
    manifest, _ = read(MODELS / "autofocus")
    known = {
        "knots": ((0.0, 0.0), (6.0, 3.0), (9.0, 9.0)),
        "made": "2026-01-02T03:04:05+00:00",
        "model": manifest.label,
        "model_sha256": manifest.sha256,
        "raters": (Rater(name="Ada", frames=20, repeats=3, repeat_sigma=0.5),),
        "frames": 20,
        "rated_low": 1.0,
        "rated_high": 9.0,
        "spearman": 0.9,
        "error_before": 2.0,
        "error_left_out": 1.0,
        "error_after": 0.8,
    }
    return ScoreScale(**{**known, **changed})  # type: ignore[arg-type]


def test_between_knots_it_is_straight_and_beyond_them_constant() -> None:
    told = [scale().told(score) for score in (0.0, 3.0, 6.0, 7.5, 9.0, 10.0)]
    assert told == pytest.approx([0.0, 1.5, 3.0, 6.0, 9.0, 9.0])


def test_without_a_scale_or_a_score_nothing_changes() -> None:
    assert on_scale(None, 4.2) == 4.2
    assert on_scale(scale(), None) is None
    assert on_scale(scale(), 3.0) == pytest.approx(1.5)


def test_it_is_read_as_it_was_written_and_nothing_else_is_left(tmp_path: Path) -> None:
    scale().save(tmp_path / "s.json")
    assert ScoreScale.load(tmp_path / "s.json") == scale()
    assert [path.name for path in tmp_path.iterdir()] == ["s.json"]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"knots": [[0, 0]]}, "knots = 1; expected two at least"),
        ({"knots": [[0, 0], [5, 3], [5, 4]]}, "each above the last"),
        ({"knots": [[0, 5], [5, 3]]}, "none below the last"),
        ({"knots": [[0, 0], [5, 11]]}, "numbers from 0 to 10"),
        ({"knots": [[0, "x"], [5, 3]]}, r"not a score scale.*\$\.knots"),
        ({"schema": 2}, "schema = 2; expected 1"),
        ({"colour": 1}, "not a score scale.*colour"),
    ],
)
def test_an_impossible_file_is_refused_with_its_field(tmp_path: Path, changed: dict[str, object], says: str) -> None:
    path = tmp_path / "s.json"
    path.write_text(json.dumps({**msgspec.to_builtins(scale()), **changed}))
    with pytest.raises(ScaleError, match=f"s.json: .*{says}"):
        ScoreScale.load(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}"])
def test_what_is_no_scale_at_all_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(ConfigurationError, match=r"score scale .*s\.json: not a score scale"):
        read_score_scale(settings(tmp_path / "s.json"))


def settings(path: Path | None) -> object:
    return load(None, {"focus": {"score_scale": path}})


def test_the_setting_brings_it_and_a_missing_file_is_named(tmp_path: Path) -> None:
    assert read_score_scale(settings(None)) is None
    scale().save(tmp_path / "s.json")
    assert read_score_scale(settings(tmp_path / "s.json")) == scale()
    with pytest.raises(ConfigurationError, match=r"none\.json: No such file"):
        read_score_scale(settings(tmp_path / "none.json"))


def test_another_models_scale_is_refused_unless_its_maker_allows_any(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    scale(model="autofocus@0badcafe", model_sha256="0" * 64).save(path)
    with pytest.raises(
        ConfigurationError, match=r"made for autofocus@0badcafe, and autofocus@\w{8} is in service.*--any-"
    ):
        read_score_scale(settings(path))
    scale(model_sha256="0" * 64, any_model=True).save(path)
    assert read_score_scale(settings(path)) is not None


def test_it_is_described_in_a_line() -> None:
    assert described(scale()) == "by Ada, 20 frames rated from 1.0 to 9.0, error 1.0 of 10, made 2026-01-02"
