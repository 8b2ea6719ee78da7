"""`beamside run` with the shipped autofocus model on a stand-in GPU, which does not come back from its third frame."""

import sys
import threading
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.clock import SystemClock
from agent.commands.run import assemble, serve
from agent.perceive import Perceiver
from agent.settings import load
from engines import manifest
from engines.autofocus import Autofocus
from engines.cuda import Cuda
from engines.load import MODELS, Loaded
from engines.readings import FocusReading
from engines.trt import TrtEngine, Uploads
from tests.fakes.driver import FakeDriver
from tests.fakes.machine import FAKES, plan_for
from tests.fakes.models import Reads
from tests.loop.harness import SHAPE

sys.path.insert(0, str(FAKES))
import tensorrt


class Hanging(Reads):
    """Autofocus, whose third picture the device never finishes."""

    def __init__(self, model: Autofocus, driver: FakeDriver) -> None:
        self.name, self.backend, self.reason = model.name, model.backend, model.reason
        self._model, self._driver, self._frames = model, driver, 0

    def read(self, image: NDArray[np.uint8], pixel_size_m: float | None) -> FocusReading | None:
        self._frames += 1
        if self._frames == 3:
            self._driver.hanging = threading.Event()
        return self._model.read(image, pixel_size_m)


def model() -> Any:
    driver = FakeDriver()
    cuda, (known, data) = Cuda(driver), manifest.read(MODELS / "autofocus")
    engine = TrtEngine(plan_for(tensorrt, data, SHAPE), backend="tensorrt", cuda=cuda, uploads=Uploads(cuda))
    return Hanging(Autofocus(Loaded(engine, known, "a stand-in")), driver)


with ExitStack() as stack:
    loop = assemble(load(), SystemClock(), stack)
    loop.perceiver = Perceiver(model())
    serve(loop)
    sys.exit("it came back")
