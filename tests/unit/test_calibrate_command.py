"""`beamside calibrate ...`: each model has its trainer, the plan reaches it, JSON is the manifest and nothing else."""

import json
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agent.commands import calibrate
from agent.errors import BeamsideError
from engines.load import load
from engines.manifest import Manifest

TASKS = ("autofocus", "depth", "defects")


@dataclass
class Trainer:
    """A trainer that trains nothing."""

    task: str
    asked: dict[str, Any]

    def plan_for(self, minutes: float, *, seed: int) -> tuple[float, int]:
        return minutes, seed

    def run(self, plan: Any, **more: Any) -> Manifest:
        more["progress"]("pictures", 1, 2)
        self.asked.update(more, plan=plan)
        return load(self.task, backend="onnxruntime").manifest


@pytest.fixture(params=TASKS)
def trainer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Trainer:
    stand_in = Trainer(request.param, {})
    module = import_module(f"calibration.train.{request.param}")
    monkeypatch.setattr(module, "plan_for", stand_in.plan_for)
    monkeypatch.setattr(module, "run", stand_in.run)
    return stand_in


def test_minutes_seed_folder_and_the_command_reach_the_trainer(trainer: Trainer, tmp_path: Path) -> None:
    options = ["--minutes", "7", "--seed", "3", "--out", str(tmp_path), "--validate-on", str(tmp_path)]
    result = CliRunner().invoke(calibrate.app, ["train", trainer.task, *options, "--json"])
    assert result.exit_code == 0
    assert trainer.asked["plan"] == (7.0, 3)
    assert trainer.asked["out"] == tmp_path
    assert trainer.asked["outside_data"] == tmp_path
    command = f"beamside calibrate train {trainer.task} --minutes 7 --seed 3 --validate-on {tmp_path.name}"
    assert trainer.asked["command"] == command


def test_json_is_the_manifest_and_nothing_else(trainer: Trainer, tmp_path: Path) -> None:
    result = CliRunner().invoke(calibrate.app, ["train", trainer.task, "--json", "--out", str(tmp_path)])
    assert json.loads(result.stdout)["task"] == trainer.task


def test_a_person_gets_a_table_of_what_the_model_can(trainer: Trainer, tmp_path: Path) -> None:
    result = CliRunner().invoke(calibrate.app, ["train", trainer.task, "--out", str(tmp_path)])
    assert result.exit_code == 0
    assert f"{trainer.task}@" in result.stdout


@pytest.mark.parametrize("task", TASKS)
def test_a_missing_extra_is_one_sentence_with_the_remedy(
    task: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(calibrate, "find_spec", lambda name: None)
    result = CliRunner().invoke(calibrate.app, ["train", task, "--out", str(tmp_path)])
    assert isinstance(result.exception, BeamsideError)
    assert "pip install 'beamside[calibrate]'" in str(result.exception)
