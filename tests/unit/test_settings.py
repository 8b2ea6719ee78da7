"""One page of configuration: flags, environment, file, defaults; every mistake is named."""

import json
from pathlib import Path

import pytest

from agent.errors import ConfigurationError
from agent.settings import endpoints, load, state_dir
from calibration.certificate import Certificate, CertificateError, Limits


def test_flags_outrank_the_environment_and_that_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "b.toml"
    config.write_text('[frames]\nendpoint = "ipc://file"\n[commands]\nendpoint = "ipc://file"\n')
    monkeypatch.setenv("BEAMSIDE_FRAMES__ENDPOINT", "ipc://environment")
    monkeypatch.setenv("BEAMSIDE_ADVICE__ENDPOINT", "ipc://environment")
    settings = load(config, {"advice": {"endpoint": "ipc://flag"}})
    assert endpoints(settings) == ("ipc://environment", "ipc://flag", "ipc://file")


@pytest.mark.parametrize("folder", ["RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"])
def test_the_default_endpoints_lie_in_the_runtime_directory(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    monkeypatch.setenv(folder, "/run/here")
    frames, advice, commands = endpoints(load())
    inside = "/run/here" if folder == "RUNTIME_DIRECTORY" else "/run/here/beamside"
    assert frames == f"ipc://{inside}/frames.ipc"
    assert advice.endswith("/advice.ipc")
    assert commands.endswith("/commands.ipc")


def test_state_lives_where_systemd_or_xdg_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/home/me/.state")
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    assert state_dir(load()) == Path("/home/me/.state/beamside")
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/beamside")
    assert state_dir(load()) == Path("/var/lib/beamside")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[frames\n", "b.toml"),
        ("[frames]\nendpont = 'x'\n", "frames.endpont"),
        ("[frames]\nhigh_water_mark = 5\n", "frames.high_water_mark"),
        ("[focus]\nmode = 'control'\n", "focus.mode"),
        ("[engines]\nlive_budget = 1.5\n", "engines.live_budget"),
        ("[engines]\nshapes = [[768, 1000]]\n", r"engines.shapes.*\[768, 1000\].*multiples of 32"),
        ("[engines]\nshapes = [[0, 1024]]\n", r"engines.shapes.*\[0, 1024\]"),
        ("[engines]\nshapes = [[-32, 1024]]\n", r"engines.shapes.*\[-32, 1024\]"),
        ("[engines]\nshapes = [[64, 96], [96, 64], [64, 96]]\n", r"engines.shapes.*\[64, 96\].*more than once"),
        ("[depth]\npublished = true\n", "depth.published"),
        ("colour = 1\n", "colour"),
    ],
)
def test_a_mistake_in_the_file_is_named_with_its_place(tmp_path: Path, text: str, says: str) -> None:
    config = tmp_path / "b.toml"
    config.write_text(text)
    with pytest.raises(ConfigurationError, match=says) as caught:
        load(config)
    assert caught.value.exit_code == 78


def test_a_missing_file_and_a_misspelt_variable_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.toml"):
        load(tmp_path / "none.toml")
    monkeypatch.setenv("BEAMSIDE_FRAMES__ENDPONT", "x")
    with pytest.raises(ConfigurationError, match="BEAMSIDE_FRAMES__ENDPONT"):
        load()


def certificate(**changed: object) -> Certificate:
    known = {
        "instrument": "bench",
        "made": "2026-01-01T00:00:00+00:00",
        "expires": "2027-01-01T00:00:00+00:00",
        "alpha_rad": 5e-3,
        "alpha_sigma_rad": 1e-4,
        "stigmator_matrix_m": ((2e-5, 2e-6), (-2e-6, 2e-5)),
        "limits": Limits(1e-3, 2e-2, 1e-4, 2e-4),
    }
    return Certificate(**{**known, **changed})  # type: ignore[arg-type]


def test_a_certificate_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    certificate().save(path)
    assert Certificate.load(path) == certificate()
    assert not (tmp_path / "c.json.part").exists()


def test_a_certificate_may_vouch_for_heights_and_an_older_one_does_not(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    certificate(height_scale=1.07, height_scale_sigma=0.02).save(path)
    assert Certificate.load(path).height_scale == 1.07
    written = json.loads(path.read_text())
    path.write_text(json.dumps({name: value for name, value in written.items() if "height" not in name}))
    assert Certificate.load(path).height_scale is None


def test_whether_depth_is_published_can_be_told_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load().depth.publish is False
    monkeypatch.setenv("BEAMSIDE_DEPTH__PUBLISH", "true")
    assert load().depth.publish is True


def test_a_certificate_turns_astigmatism_into_stigmator_units_and_back() -> None:
    known = certificate()
    ax, ay = known.stigmator_to_astigmatism_m(0.3, -0.2)
    assert known.astigmatism_to_stigmator(ax, ay) == pytest.approx((0.3, -0.2))
    assert certificate(stigmator_matrix_m=((0.0, 0.0), (0.0, 0.0))).astigmatism_to_stigmator(1e-6, 0) is None


@pytest.mark.parametrize(
    "changed",
    [
        {"alpha_rad": -1.0},
        {"alpha_sigma_rad": 1.0},
        {"hysteresis_m": -1e-6},
        {"limits": Limits(2.0, 1.0, 1, 1)},
        {"height_scale": -1.0, "height_scale_sigma": 0.1},
        {"height_scale": float("nan"), "height_scale_sigma": 0.1},
        {"height_scale": 1.0},  # a scale without its doubt
        {"height_scale_sigma": 0.1},
        {"height_scale_sigma": 2.0, "height_scale": 1.0},
    ],
)
def test_an_impossible_certificate_is_refused(changed: dict[str, object]) -> None:
    with pytest.raises(CertificateError, match=next(iter(changed)).split("_")[0]):
        certificate(**changed)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"alpha_rad": "wide"}'])
def test_an_unreadable_certificate_names_its_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(CertificateError, match=r"c\.json"):
        Certificate.load(path)
