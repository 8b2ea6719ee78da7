"""The whole configuration on one page: flags > BEAMSIDE_* > TOML file > defaults.

Environment names nest with two underscores: BEAMSIDE_FRAMES__ENDPOINT=tcp://127.0.0.1:5557.
"""

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from agent.errors import ConfigurationError

MIB = 1024 * 1024


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Frames(Section):
    """Where frames come from."""

    endpoint: str = ""  # empty: frames.ipc in the runtime directory
    pattern: Literal["sub", "pull"] = "sub"
    bind: bool = False
    topic: str = ""  # a leading topic part is expected when set
    dialect: Literal["psi", "adzmq_legacy"] = "psi"
    allow_plain_tcp: bool = False  # frames from another host without CURVE
    high_water_mark: int = Field(default=200, ge=100)  # the mailbox drops, not libzmq
    max_message_bytes: int = Field(default=1024 * MIB, ge=MIB)
    inspect_bytes: int = Field(default=256 * MIB, ge=MIB)
    stale_after_frame_times: float = Field(default=5.0, gt=1.0)
    stale_after_s: float = Field(default=5.0, gt=0.0)  # at least; alone where no frame told or showed its time


class Advice(Section):
    """Where suggestions, flags, defects and the heartbeat go."""

    endpoint: str = ""  # empty: advice.ipc in the runtime directory
    high_water_mark: int = Field(default=1000, ge=10)


class Commands(Section):
    """Where controllers ask."""

    endpoint: str = ""  # empty: commands.ipc in the runtime directory


class Keys(Section):
    """CURVE: our secret key and the public keys that may connect. Needed beyond loopback."""

    secret: Path | None = None
    allowed: Path | None = None  # folder of *.key files


class Focus(Section):
    """Focus control."""

    source: str = ""  # empty: the first source that delivers evidence
    mode: Literal["observe", "suggest"] = "suggest"  # control is only ever lent to a controller
    certificate: Path | None = None
    score_scale: Path | None = None  # of `calibrate rate`: the score is told on it; steering keeps the model's own
    step_limit_m: float | None = Field(default=None, gt=0)  # the smaller of this and the certificate's; else 100 um
    cumulative_limit_m: float | None = Field(default=None, gt=0)  # likewise; else 200 um
    working_distance_min_m: float = Field(default=0.5e-3, gt=0)
    working_distance_max_m: float = Field(default=50e-3, gt=0)
    dose_frames: int = Field(default=12, ge=3)  # frames a routine may spend on one site
    p_wrong_direction: float = Field(default=0.02, gt=0, lt=0.5)
    operator_yield_s: float = Field(default=10.0, ge=0)
    settle_s: float = Field(default=0.2, ge=0)  # without a certificate


class Exposure(Section):
    """Brightness and contrast."""

    advise: bool = True  # where both are read back: when levels are clipped, or in focus hardly used


STRIDE_PX = 32  # of the models: what reaches them is padded to it, so that no other shape is ever asked for


def _known_shapes(shapes: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    for shape in shapes:
        if any(side < STRIDE_PX or side % STRIDE_PX for side in shape):
            raise ValueError(f"{list(shape)}: height and width must be multiples of {STRIDE_PX}, {STRIDE_PX} at least")
        if shapes.count(shape) > 1:
            raise ValueError(f"{list(shape)} stands there more than once")
    return shapes


Shapes = Annotated[tuple[tuple[int, int], ...], AfterValidator(_known_shapes)]


class Engines(Section):
    """The models and what runs them."""

    backend: Literal["auto", "tensorrt", "tensorrt_rtx", "onnxruntime_cuda", "onnxruntime"] = "auto"
    models: Path | None = None  # empty: the packages that came with beamside
    threads: int = Field(default=2, ge=1)
    shapes: Shapes = ((768, 1024), (1024, 1536), (2048, 3072))
    live_budget: float = Field(default=0.25, ge=0, le=1)  # share of the time for depth and defects on live frames


class Depth(Section):
    """Height maps."""

    publish: bool = False  # topic depth, with the map as a third part: megabytes, at most once a second


class Recipes(Section):
    """Recipes this agent knows; a frame that names another is observed only."""

    folder: Path | None = None


class Crops(Section):
    """Pictures of what was found in frames to inspect, beside the journal; the oldest are deleted first."""

    quota_bytes: int = Field(default=256 * MIB, ge=0)  # some 50,000 of them; 0: none


class Health(Section):
    prometheus_port: int = Field(default=0, ge=0, le=65535)  # 0: no metrics page; always on loopback
    step_limit_s: float | None = None  # None: 10 s on a CPU, 2 s on a GPU
    log_level: Literal["debug", "info", "warning", "error"] = "info"


class Settings(BaseSettings):
    """Everything `beamside run` can be told."""

    model_config = SettingsConfigDict(
        env_prefix="BEAMSIDE_", env_nested_delimiter="__", extra="forbid", frozen=True, validate_default=True
    )

    frames: Frames = Frames()
    advice: Advice = Advice()
    commands: Commands = Commands()
    keys: Keys = Keys()
    focus: Focus = Focus()
    exposure: Exposure = Exposure()
    engines: Engines = Engines()
    depth: Depth = Depth()
    recipes: Recipes = Recipes()
    crops: Crops = Crops()
    health: Health = Health()
    state_dir: Path | None = None  # None: $STATE_DIRECTORY, else the XDG folder

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        toml = TomlConfigSettingsSource(settings_cls)
        return init_settings, env_settings, toml


def load(config: Path | None = None, flags: dict[str, Any] | None = None) -> Settings:
    """Read the configuration. `flags` nests as the settings do: {"frames": {"endpoint": ...}}.

    Raises ConfigurationError naming the file or variable, the value and what would be accepted.
    """
    if config is not None:
        _check_toml(config)
    _check_environment(os.environ)

    class Sourced(Settings):
        model_config = SettingsConfigDict(toml_file=config)

    try:
        return Sourced(**(flags or {}))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError(f"setting {where} = {first.get('input')!r}: {first['msg']}") from None


def _check_toml(config: Path) -> None:
    # pydantic-settings passes over a missing file in silence.
    try:
        tomllib.loads(config.read_text())
    except OSError as error:
        raise ConfigurationError(f"configuration file {config}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigurationError(f"configuration file {config}: {error}") from error


def _check_environment(environment: "os._Environ[str] | dict[str, str]") -> None:
    # pydantic-settings passes over a misspelt variable in silence.
    known = _variables(Settings, "BEAMSIDE_")
    for name in environment:
        if name.startswith("BEAMSIDE_") and name not in known:
            raise ConfigurationError(f"unknown environment variable {name}; known are {', '.join(sorted(known))}")


def _variables(model: type[BaseModel], prefix: str) -> set[str]:
    names = set()
    for name, field in model.model_fields.items():
        names.add(f"{prefix}{name.upper()}")
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            names |= _variables(field.annotation, f"{prefix}{name.upper()}__")
    return names


def runtime_dir() -> Path:
    """Where the ipc endpoints live: $RUNTIME_DIRECTORY, else $XDG_RUNTIME_DIR/beamside, else a folder in /tmp."""
    systemd = os.environ.get("RUNTIME_DIRECTORY")
    if systemd:
        return Path(systemd.split(":")[0])
    xdg = os.environ.get("XDG_RUNTIME_DIR")
    return Path(xdg) / "beamside" if xdg else Path(f"/tmp/beamside-{os.getuid()}")


def state_dir(settings: Settings) -> Path:
    """Where the journal lives: the setting, $STATE_DIRECTORY, else the XDG folder."""
    if settings.state_dir is not None:
        return settings.state_dir
    systemd = os.environ.get("STATE_DIRECTORY")
    if systemd:
        return Path(systemd.split(":")[0])
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "beamside"


def endpoints(settings: Settings) -> tuple[str, str, str]:
    """frames, advice, commands: as configured, else ipc sockets in the runtime directory."""
    folder = runtime_dir()
    return (
        settings.frames.endpoint or f"ipc://{folder}/frames.ipc",
        settings.advice.endpoint or f"ipc://{folder}/advice.ipc",
        settings.commands.endpoint or f"ipc://{folder}/commands.ipc",
    )
