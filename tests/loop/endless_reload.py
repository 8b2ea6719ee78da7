"""`beamside run` whose reload is always inside a library: models are started over and over."""

from typing import Any

from agent.commands import run
from engines.load import load

started = run.models
times = 0


def models(settings: Any) -> Any:
    global times
    times += 1
    while times > 1:
        load("autofocus", backend="onnxruntime")
    return started(settings)


run.models = models
run.run(config=None, frames="", advice="", commands="", certificate=None, as_json=False)
