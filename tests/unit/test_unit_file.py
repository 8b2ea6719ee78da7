"""The systemd unit: what it promises, and that systemd understands it."""

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from agent.errors import ConfigurationError
from agent.settings import load

SYSTEMD = Path(__file__).parents[2] / "systemd"
UNIT = SYSTEMD / "beamside.service"


class Repeating(dict[str, str]):
    """systemd repeats keys; configparser would refuse: keep all values, a line each."""

    def __setitem__(self, key: str, value: str) -> None:
        # configparser first sets lists of lines, then the joined text.
        if key in self and isinstance(value, list):
            value = [*self[key], *value]
        super().__setitem__(key, value)


@pytest.fixture(scope="module")
def service() -> dict[str, str]:
    parser = configparser.RawConfigParser(dict_type=Repeating, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(UNIT.read_text())
    return dict(parser["Service"])


def test_systemd_finds_nothing_to_complain_about() -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    done = subprocess.run(["systemd-analyze", "verify", str(UNIT)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_systemd_rates_its_exposure_as_low() -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(UNIT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    found = re.search(r"Overall exposure level.*?: ([\d.]+)", done.stdout)
    if found is None:
        pytest.skip("this systemd-analyze cannot rate a unit offline")
    assert float(found[1]) < 2.5


@pytest.mark.parametrize(
    ("key", "value"),
    {
        "Type": "notify",
        "Restart": "always",
        "RestartPreventExitStatus": str(ConfigurationError.exit_code),
        "DynamicUser": "yes",
        "Group": "beamside",
        "UMask": "0007",
        "RuntimeDirectory": "beamside",
        "RuntimeDirectoryMode": "0750",
        "RuntimeDirectoryPreserve": "no",  # else the group cannot reach the sockets
        "StateDirectory": "beamside",
        "CacheDirectory": "beamside",
        "KillSignal": "SIGTERM",
        "NoNewPrivileges": "yes",
        "ProtectSystem": "strict",
        "MemoryDenyWriteExecute": "no",  # TensorRT compiles
    }.items(),
)
def test_promises(service: dict[str, str], key: str, value: str) -> None:
    assert service[key] == value


def test_the_watchdog_waits_longer_than_the_agent_allows_itself(service: dict[str, str]) -> None:
    assert int(service["WatchdogSec"]) > 10


def test_the_dynamic_user_is_not_named_as_the_static_group(service: dict[str, str]) -> None:
    assert service["User"] != service["Group"]
    assert f"g {service['Group']} " in (SYSTEMD / "beamside.sysusers").read_text()


def test_keeps_the_gpu_in_reach(service: dict[str, str]) -> None:
    assert "PrivateDevices" not in service
    assert "char-nvidia rw" in service["DeviceAllow"]


def test_the_example_configuration_is_one_the_agent_accepts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(SYSTEMD / "beamside.toml").frames.bind


def test_the_install_page_has_ten_steps() -> None:
    steps = re.findall(r"^\d+\.", (SYSTEMD / "INSTALL.md").read_text(), re.MULTILINE)
    assert len(steps) == 10
