"""`beamside replay` as a process of its own, over real sockets; recordings."""

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
import zmq

from agent.bridges.recording import HEAD, MAGIC, VERSION, Recorder, Recording
from agent.bridges.vendor import TESCAN
from agent.errors import ImageError
from agent.messages import Frame, Optics
from agent.wire import array1

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
DEADLINE_MS = 20_000
COMMAND = "import typer; from agent.commands.replay import replay; typer.run(replay)"


class Listener:
    """What `beamside run` would receive."""

    def __init__(self, folder: Path) -> None:
        self.endpoint = f"ipc://{folder}/frames.ipc"
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._sockets: list[zmq.Socket[bytes]] = []
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", COMMAND, *arguments, "--frames", self.endpoint]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
        self.processes.append(process)
        return process

    def connect(self, kind: int = zmq.SUB) -> "zmq.Socket[bytes]":
        socket = self._context.socket(kind)
        self._sockets.append(socket)
        socket.setsockopt(zmq.RCVTIMEO, DEADLINE_MS)
        if kind == zmq.SUB:
            socket.subscribe(b"")
        socket.connect(self.endpoint)
        return socket

    def messages(self, count: int, kind: int = zmq.SUB) -> list[list[bytes]]:
        socket = self.connect(kind)
        return [socket.recv_multipart() for _ in range(count)]

    def frames(self, count: int) -> list[Frame]:
        return [array1.decode(parts, dialect="psi", topic="", received_ns=0) for parts in self.messages(count)]

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()
        self._context.destroy(linger=0)


@pytest.fixture
def listener(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listener]:
    heard = Listener(tmp_path_factory.mktemp("z"))
    yield heard
    heard.close()


def pictures(folder: Path, count: int = 3) -> Path:
    folder.mkdir()
    for n in range(count):
        assert cv2.imwrite(str(folder / f"{n}.png"), np.full((40, 60), 10 * n + 1, np.uint8))
    return folder


def tescan(path: Path, working_distance_m: float) -> None:
    tag = f"PixelSizeX=1e-8\r\nWD={working_distance_m}\r\nImageStripSize=4\r\n".encode()
    tifffile.imwrite(path, np.zeros((32, 32), np.uint8), extratags=[(TESCAN, 1, len(tag), tag, True)])


def ended(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


def test_waits_for_its_first_subscriber_and_then_sends_every_picture_once(listener: Listener, tmp_path: Path) -> None:
    process = listener.start(str(pictures(tmp_path / "p")), "--rate", "200", "--json")
    found = listener.frames(3)
    code, out, err = ended(process)
    assert [frame.number for frame in found] == [1, 2, 3]
    assert [int(frame.pixels[0, 0]) for frame in found] == [1, 11, 21]
    assert [frame.optics.scene_epoch for frame in found] == [1, 2, 3]
    assert len({frame.optics.session for frame in found}) == 1
    assert [frame.bad_fields for frame in found] == [()] * 3
    assert code == 0
    assert json.loads(out) == {
        "published": 3,
        "skipped": [],
        "endpoint": listener.endpoint,
        "session": found[0].optics.session,
    }
    assert "waiting for a subscriber" in err


def test_the_optics_epoch_grows_only_when_the_working_distance_or_a_stigmator_changed(
    listener: Listener, tmp_path: Path
) -> None:
    for n, working_distance_m in enumerate((5e-3, 5e-3, 6e-3)):
        tescan(tmp_path / f"{n}.tif", working_distance_m)
    listener.start(str(tmp_path), "--rate", "200")
    found = listener.frames(3)
    assert [frame.optics.optics_epoch for frame in found] == [1, 1, 2]
    assert [frame.optics.working_distance_m for frame in found] == [5e-3, 5e-3, 6e-3]
    assert [frame.optics.databar_rows for frame in found] == [4, 4, 4]
    assert found[0].pixels.shape == (32, 32)  # the whole picture, data bar included


def test_scans_follow_one_another_in_time(listener: Listener, tmp_path: Path) -> None:
    listener.start(str(pictures(tmp_path / "p")), "--rate", "50")
    times = [(f.optics.t_start_ns or 0, f.optics.t_end_ns or 0) for f in listener.frames(3)]
    for (_, end), (start, _) in itertools.pairwise(times):
        assert start >= end
    assert all(end - start == 20_000_000 for start, end in times)


def test_marks_frames_to_be_inspected_when_asked(listener: Listener, tmp_path: Path) -> None:
    listener.start(str(pictures(tmp_path / "p", 2)), "--rate", "200", "--inspect")
    assert [frame.optics.inspect for frame in listener.frames(2)] == [True, True]


def test_passes_over_what_cannot_be_read_and_ends_with_1(listener: Listener, tmp_path: Path) -> None:
    folder = pictures(tmp_path / "p", 2)
    (folder / "0b.png").write_bytes(b"\x89PNG\r\n\x1a\n cut off")
    process = listener.start(str(folder), "--rate", "200", "--json")
    assert len(listener.frames(2)) == 2
    code, out, err = ended(process)
    answer = json.loads(out)
    assert (code, answer["published"]) == (1, 2)
    assert [skipped["path"] for skipped in answer["skipped"]] == [str(folder / "0b.png")]
    assert len([line for line in err.splitlines() if "0b.png" in line]) == 1


def test_begins_again_until_the_count_is_reached(listener: Listener, tmp_path: Path) -> None:
    process = listener.start(str(pictures(tmp_path / "p", 2)), "--rate", "500", "--loop", "--count", "5")
    assert [frame.number for frame in listener.frames(5)] == [1, 2, 3, 4, 5]
    assert ended(process)[0] == 0


def test_pushes_to_a_puller(listener: Listener, tmp_path: Path) -> None:
    process = listener.start(str(pictures(tmp_path / "p", 2)), "--rate", "200", "--pattern", "push")
    assert len(listener.messages(2, zmq.PULL)) == 2
    assert ended(process)[0] == 0


def test_a_slow_subscriber_loses_nothing(listener: Listener, tmp_path: Path) -> None:
    process = listener.start(str(pictures(tmp_path / "p", 2)), "--rate", "10000", "--loop", "--count", "3000")
    socket = listener.connect()
    socket.poll(DEADLINE_MS)  # nothing is taken out until some are waiting
    numbers = [json.loads(socket.recv_multipart()[0])["frame"] for _ in range(3000)]
    assert numbers == list(range(1, 3001))
    assert ended(process)[0] == 0


def test_gives_up_waiting_when_told_how_long(listener: Listener, tmp_path: Path) -> None:
    process = listener.start(str(pictures(tmp_path / "p", 1)), "--wait", "0.2")
    code, _, err = ended(process)
    assert code != 0
    assert "nobody subscribed" in err


def test_sends_the_pixel_sizes_and_working_distance_that_thermo_wrote(listener: Listener) -> None:
    folder = DATA / "thermo_tiff"
    if not folder.exists():
        pytest.skip(f"{folder} is not here: real images are not part of the project")
    process = listener.start(str(folder), "--rate", "50")
    found = listener.frames(9)
    assert {round((f.optics.pixel_size_m or 0) * 1e9, 1) for f in found} == {325.5, 65.1}
    assert {round((f.optics.working_distance_m or 0) * 1e3, 1) for f in found} == {5.0}
    assert {f.pixels.shape[0] - (f.optics.databar_rows or 0) for f in found} == {1024}
    assert ended(process)[0] == 0


# Recordings


def recorded(path: Path, messages: list[tuple[int, list[bytes]]]) -> Path:
    with Recorder(path) as recorder:
        for now_ns, parts in messages:
            recorder.write(now_ns, parts)
    return path


def some_messages(count: int = 4) -> list[tuple[int, list[Any]]]:
    pixels = np.arange(12, dtype=np.uint16).reshape(3, 4)
    frames = [array1.encode(n, pixels, Optics(session="old")) for n in range(count)]
    return [(10**9 + n * 50_000_000, [bytes(part) for part in parts]) for n, parts in enumerate(frames)]


def test_a_recording_is_read_back_byte_for_byte(tmp_path: Path) -> None:
    messages = [*some_messages(), (2 * 10**9, []), (3 * 10**9, [b"", b"not json", b"\xff" * 5])]
    recording = Recording(recorded(tmp_path / "r.b1s", messages))
    assert list(recording) == messages
    assert list(recording) == messages  # a second time
    assert not recording.truncated


def test_replay_repeats_a_recording_byte_for_byte_with_its_spacing(listener: Listener, tmp_path: Path) -> None:
    messages = [*some_messages(), (1_200_000_000, [b"not a header", b"at all"])]
    process = listener.start(str(recorded(tmp_path / "r.b1s", messages)), "--json")
    assert listener.messages(5) == [parts for _, parts in messages]
    code, out, _ = ended(process)
    assert (code, json.loads(out)["published"]) == (0, 5)


def test_a_recording_cut_off_in_its_last_message_gives_all_before_it_with_a_warning(
    listener: Listener, tmp_path: Path
) -> None:
    path = recorded(tmp_path / "r.b1s", some_messages())
    whole = path.read_bytes()
    for cut in range(1, 60):
        path.write_bytes(whole[:-cut])
        recording = Recording(path)
        assert list(recording) == some_messages()[:3]
        assert recording.truncated
    process = listener.start(str(path), "--rate", "500")
    assert len(listener.messages(3)) == 3
    code, _, err = ended(process)
    assert code == 0
    assert "ends in the middle of a message" in err


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "not a recording"),
        (b"\x89PNG....", "not a recording"),
        (MAGIC + bytes([VERSION + 1]), "version 2"),
        (MAGIC + bytes([VERSION]) + HEAD.pack(1, 2**31), "damaged"),
        (MAGIC + bytes([VERSION]) + HEAD.pack(1, 1) + b"\xff" * 8, "damaged"),
    ],
)
def test_what_is_not_a_recording_says_so(tmp_path: Path, data: bytes, complaint: str) -> None:
    (tmp_path / "r.b1s").write_bytes(data)
    with pytest.raises(ImageError, match=complaint):
        list(Recording(tmp_path / "r.b1s"))


def test_a_recording_cannot_be_marked_for_inspection(listener: Listener, tmp_path: Path) -> None:
    process = listener.start(str(recorded(tmp_path / "r.b1s", some_messages())), "--inspect")
    code, _, err = ended(process)
    assert code != 0
    assert "--inspect" in err
