"""The operator's score scale that the configuration or an option names, held against the model in service."""

from pathlib import Path

from agent.errors import ConfigurationError
from agent.settings import Engines, Settings
from engines.errors import ModelError
from engines.load import MODELS
from engines.manifest import read
from engines.score_scale import ScoreScale


def read_score_scale(settings: Settings) -> ScoreScale | None:
    """None where none is set: scores are told as they are. Raises ConfigurationError."""
    path = settings.focus.score_scale
    return None if path is None else scale_for(path, settings.engines)


def scale_for(path: Path, engines: Engines) -> ScoreScale:
    """Raises ConfigurationError where it cannot be used with the autofocus model of these engines."""
    try:
        scale = ScoreScale.load(path)
        manifest, _ = read((engines.models or MODELS) / "autofocus")
    except ModelError as error:
        raise ConfigurationError(f"score scale {error}") from error
    try:
        scale.check_model(manifest.label, manifest.sha256)
    except ModelError as error:
        raise ConfigurationError(f"score scale {path}: {error}") from error
    return scale


def described(scale: ScoreScale) -> str:
    """One line."""
    names = ", ".join(rater.name for rater in scale.raters)
    reach = f"rated from {scale.rated_low:.1f} to {scale.rated_high:.1f}"
    return f"by {names}, {scale.frames} frames {reach}, error {scale.error_left_out:.1f} of 10, made {scale.made[:10]}"
