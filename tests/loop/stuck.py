"""`beamside run` with a model that never comes back from its third frame: a stand-in for a hung driver."""

import sys
import threading
from contextlib import ExitStack
from typing import Any

from agent.clock import SystemClock
from agent.commands.run import assemble, serve
from agent.perceive import Perceiver
from agent.settings import load
from engines.readings import FocusReading
from tests.fakes.models import Reads


class Stuck(Reads):
    name = "stuck@0"

    def __init__(self) -> None:
        self.frames = 0

    def read(self, image: Any, pixel_size_m: float | None) -> FocusReading:
        self.frames += 1
        if self.frames == 3:
            threading.Event().wait()
        return FocusReading(score=7.0, blur_px=1.0, blur_uncertainty_px=0.1, content=0.9)


with ExitStack() as stack:
    loop = assemble(load(), SystemClock(), stack)
    loop.perceiver = Perceiver(Stuck())
    serve(loop)
    sys.exit("it came back")
