"""Packages swapped by `reload` while frames keep coming, every second one bad: a bad one is refused and the old model
serves on, a good one takes over between two frames, and nothing is lost or left behind."""

import re
import shutil
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import msgspec
import numpy as np
import onnx
import psutil
import pytest

from engines import manifest
from engines.errors import PackageError
from engines.load import MODELS, load
from tests.loop.harness import Message, Process, said
from tests.loop.test_agent_process import Supervisor
from tests.loop.test_soak import Long, check_books, check_inspected

pytestmark = pytest.mark.soak

TASKS = ("autofocus", "depth", "defects")
SWAPS = 200  # every second one bad
FRAMES = 4  # on their way when a swap is asked for, and as many again once it is over; half of them to be inspected
GROWTH_BYTES = 8 << 20  # of the median from swaps 51-100 to swaps 151-200: 80 KiB a swap; a model has megabytes
PAUSE_S = 0.02  # between the frames of a swap, two at a time: faster than they are read
SWAP_S = 60.0  # three models are read again and the frames around it looked at


@dataclass(frozen=True)
class Bad:
    """A way to spoil a package, and what the refusal must say."""

    spoil: Callable[[Path, str], None]  # package folder, task
    says: str


class Edition:
    """The folder of packages that the agent is told to read."""

    def __init__(self, folder: Path) -> None:
        shutil.copytree(MODELS, folder)
        self.folder = folder
        self._graphs = {task: onnx.load(str(MODELS / task / manifest.MODEL_FILE)) for task in TASKS}

    def renew(self, task: str, number: int) -> str:
        """The shipped network with another word in its file: the same answers, other bytes; its name@sha."""
        graph = self._graphs[task]
        graph.doc_string = f"edition {number}"
        return replace_model(self.folder / task, bytes(graph.SerializeToString()))


def replace_model(package: Path, model: bytes) -> str:
    """These bytes with a manifest that vouches for them; name@sha."""
    (package / manifest.MODEL_FILE).write_bytes(model)
    told = msgspec.structs.replace(read_manifest(package), sha256=manifest.digest(model))
    manifest.write(package, told)
    return told.label


def read_manifest(package: Path) -> manifest.Manifest:
    return msgspec.json.decode((package / manifest.MANIFEST_FILE).read_bytes(), type=manifest.Manifest)


def edit_the_manifest(package: Path, _: str) -> None:
    """Another name, which would be seen on the wire."""
    path = package / manifest.MANIFEST_FILE
    old, new = (f'"name": "{name}"' for name in (read_manifest(package).name, "edited"))
    told = path.read_text()
    assert old in told
    path.write_text(told.replace(old, new, 1))


def cut_the_model(package: Path, _: str) -> None:
    path = package / manifest.MODEL_FILE
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def take_the_model_of_another_task(package: Path, task: str) -> None:
    """With a manifest of this task that vouches for it: only the names of its outputs tell."""
    other = TASKS[TASKS.index(task) - 1]
    replace_model(package, (MODELS / other / manifest.MODEL_FILE).read_bytes())


def write_what_does_not_parse(package: Path, _: str) -> None:
    whole = (package / manifest.MODEL_FILE).read_bytes()
    replace_model(package, whole[: len(whole) // 2])


def fix_the_size(package: Path, _: str) -> None:
    """A graph of one picture size alone: every frame of another one would fail."""

    def fix(graph: onnx.GraphProto) -> None:
        for dim in graph.input[0].type.tensor_type.shape.dim[2:]:
            dim.Clear()
            dim.dim_value = 512

    change_the_graph(package, fix)


def take_sixteen_bits(package: Path, _: str) -> None:
    def widen(graph: onnx.GraphProto) -> None:
        graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT16

    change_the_graph(package, widen)


def lose_the_weights(package: Path, _: str) -> None:
    """A training that went astray: not a number, in every bias."""

    def lose(graph: onnx.GraphProto) -> None:
        for weight in graph.initializer:
            if weight.name.endswith("bias"):
                gone = np.full(tuple(weight.dims), np.nan, np.float32)
                weight.CopyFrom(onnx.numpy_helper.from_array(gone, weight.name))

    change_the_graph(package, lose)


def change_the_graph(package: Path, change: Callable[[onnx.GraphProto], None]) -> None:
    model = onnx.load(str(package / manifest.MODEL_FILE))
    change(model.graph)
    replace_model(package, bytes(model.SerializeToString()))


BAD = (
    Bad(edit_the_manifest, "the manifest was edited since it was made"),
    Bad(cut_the_model, "the model or its manifest was changed"),
    Bad(take_the_model_of_another_task, "the manifest names"),
    Bad(write_what_does_not_parse, "ONNX Runtime refuses the model"),
    Bad(fix_the_size, "the graph has uint8 (1, 1, 512, 512)"),
    Bad(take_sixteen_bits, "the graph has uint16"),
    Bad(lose_the_weights, "the model cannot read a picture"),
)


class Swapper:
    """Frames, a swap in their midst, frames; and what must hold of it."""

    def __init__(self, process: Process, edition: Edition, supervisor: Supervisor) -> None:
        self.wire, self.long, self.edition = process.wire, Long(process.wire), edition
        self.supervisor = supervisor
        self.refused: Counter[str] = Counter()
        self._agent = psutil.Process(process.popen.pid)
        self.resident: list[int] = []  # bytes, after each swap
        self.amid = 0  # good swaps that came between two frames which were both sent before
        self.models: list[str] = self._inspected(self._frames())["models"]

    def swap(self, number: int) -> None:
        """Good and bad ones by turns, each way for each task."""
        task, bad = TASKS[number // 2 % len(TASKS)], BAD[number // 2 % len(BAD)]
        if number % 2 == 0:
            self._good(task, number)
        else:
            self._bad(task, bad)
        self.resident.append(self._agent.memory_info().rss)

    def _good(self, task: str, number: int) -> None:
        """The name@sha of one model changes, between two frames."""
        place = TASKS.index(task)
        label = self.edition.renew(task, number)
        assert label not in self.models
        self._reload([*self.models[:place], label, *self.models[place + 1 :]])

    def _bad(self, task: str, bad: Bad) -> None:
        """Nothing changes; the package is whole again afterwards."""
        package, aside = self.edition.folder / task, self.edition.folder / "aside"
        shutil.copytree(package, aside)
        bad.spoil(package, task)
        self._reload(self.models)
        shutil.rmtree(package)
        aside.rename(package)
        self.refused[bad.says] += 1

    def _reload(self, expected: list[str]) -> None:
        """Ask for it in the midst of frames: those sent once it is over are read by the expected models."""
        self.wire.mark = len(self.wire.heard)
        before = self._frames()
        self.supervisor.listen()  # what was said before
        self.supervisor.heard.clear()
        assert self.wire.ask("reload")["ok"]
        amid = self._frames_until_ready()
        after = self._frames()
        assert self._inspected(after)["models"] == expected
        heard = [told for told in self.wire.heard[self.wire.mark :] if told["topic"] in ("focus", "defects")]
        check_order(heard, self.models, expected)
        assert all(set(told["models"]) <= set(expected) for told in heard if told["frame"] in after)
        waited = [told for told in heard if told["frame"] in before or told["frame"] in amid]
        self.amid += any(not set(told["models"]) <= set(self.models) for told in waited)
        self.models = expected

    def _frames(self, count: int = FRAMES) -> range:
        """Live and to be inspected by turns, the last one to be inspected; their numbers."""
        first = self.long.stream.number + 1
        for n in range(count):
            self.long.frame(inspect=n % 2 == 1)
        return range(first, first + count)

    def _frames_until_ready(self) -> range:
        """Frames without a pause, so that some wait when the swap comes; their numbers."""
        first, end = self.long.stream.number + 1, time.monotonic() + SWAP_S
        while "READY=1" not in self.supervisor.listen(PAUSE_S):
            assert time.monotonic() < end, self.supervisor.heard
            self._frames(2)
        return range(first, self.long.stream.number + 1)

    def _inspected(self, numbers: range) -> Message:
        """What was said of the last of them, which all three models read."""
        return self.wire.until(said("focus", frame=numbers[-1]), deadline_s=SWAP_S)


def check_order(heard: list[Message], old: list[str], new: list[str]) -> None:
    """Each frame was read by the old models alone, or by the new ones alone from one frame on."""
    serving = old
    for told in heard:
        if not set(told["models"]) <= set(serving):
            serving = new
        assert set(told["models"]) <= set(serving), f"frame {told['frame']} was read by {told['models']}"


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.spoil.__name__)
def test_every_way_to_spoil_a_package_is_found_out_before_it_serves(tmp_path: Path, task: str, bad: Bad) -> None:
    shutil.copytree(MODELS / task, tmp_path / task)
    bad.spoil(tmp_path / task, task)
    with pytest.raises(PackageError, match=re.escape(bad.says)):
        load(task, models=tmp_path, backend="onnxruntime", threads=1)


def test_200_swaps_of_a_package_half_of_them_bad_lose_no_frame_and_no_memory(
    launch: Callable[..., Process], folder: Path
) -> None:
    edition, supervisor = Edition(folder / "models"), Supervisor(folder / "notify")
    process = launch(
        BEAMSIDE_ENGINES__MODELS=str(edition.folder),
        NOTIFY_SOCKET=str(supervisor.path),
        BEAMSIDE_HEALTH__LOG_LEVEL="error",  # nobody reads the pipe until the end: what is refused fits into it
    ).start()
    swapper = Swapper(process, edition, supervisor)
    for number in range(SWAPS):
        swapper.swap(number)
    check_frames(swapper)
    check_memory(swapper.resident)
    process.popen.terminate()
    code, _, err = process.ended()
    assert code == 0
    check_refusals(err.splitlines(), swapper.refused)
    supervisor.close()


def check_frames(swapper: Swapper) -> None:
    """The gap in seq is looked for at the end of every run."""
    wire, long = swapper.wire, swapper.long
    wire.flush()
    books = check_books(wire, sent=long.stream.number + 1)
    assert books["uninspected"] == 0 and wire.status()["dropped"] == 0
    check_inspected(wire, long.inspected)
    assert wire.status()["models"] == swapper.models
    served = {label for told in wire.heard if told["topic"] == "focus" for label in told["models"]}
    assert len(served) == len(TASKS) + SWAPS // 2
    assert swapper.amid > SWAPS // 4, "most swaps found no frame waiting: they show nothing"
    print(f"frames: {books}; {swapper.amid} swaps while frames of the batch before them still waited")


def check_memory(resident: list[int]) -> None:
    quarter = len(resident) // 4
    early, late = median(resident[quarter : 2 * quarter]), median(resident[-quarter:])
    print(f"resident, MiB: {[round(each / 2**20, 1) for each in resident[:: max(1, quarter // 5)]]}")
    print(f"median of the second quarter {early / 2**20:.1f}, of the last {late / 2**20:.1f}")
    assert late - early < GROWTH_BYTES, f"resident memory grew: {resident}"


def check_refusals(told: list[str], expected: Counter[str]) -> None:
    """One line for each bad package, with its cause, and no other error."""
    assert len(told) == expected.total(), told[-5:]
    assert all("reload refused, the old ones keep serving" in line for line in told)
    assert {says: sum(says in line for line in told) for says in expected} == expected
