"""Crops beside the journal: named in its rows, within their quota, whole, and no reason to lose a row."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from agent.clock import ManualClock
from agent.crops import FOLDER, Crops
from agent.journal import FILE, Journal, read
from agent.messages import Decision, Defect, Flag, FrameRef, Inspected, Lane, Mode

NOISE = np.random.default_rng(3).integers(0, 255, (48, 48), np.uint8)
DEFECT = Defect(name="pit", path=("defect", "pit"), box_px=(1, 2, 3, 4), confidence=0.9)
FLAG = Flag(code="stale", state="raised", severity="warning")


def decision(crops: int = 2, **more: object) -> Decision:
    seen = Inspected(recipe="via-2", shape_px=(64, 96), crops=(NOISE,) * crops)
    frame = FrameRef(number=1, session="s", lane=Lane.INSPECT)
    return Decision(now_ns=1, mode=Mode.SUGGEST, frame=frame, defects=(DEFECT,) * 3, inspected=seen, **more)  # type: ignore[arg-type]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def crops(tmp_path: Path) -> Crops:
    return Crops(tmp_path / FOLDER, quota_bytes=10**6)


def test_a_row_names_the_crops_that_were_written_for_it(tmp_path: Path, crops: Crops) -> None:
    journal = Journal.open(tmp_path / FILE, ManualClock(), crops=crops)
    journal.write(decision())
    numbers = journal.write(decision(flags=(FLAG, FLAG)))
    journal.close()
    assert numbers["defects", 0] == 4
    row = read(tmp_path / FILE)[-1]
    assert row["topic"] == "defects" and row["event"] == 4
    assert row["body"]["crops"] == ["0000000004-00.png", "0000000004-01.png"]
    assert (row["body"]["recipe"], row["body"]["shape_px"], row["body"]["count"]) == ("via-2", [64, 96], 3)
    assert names(crops.folder) == [f"{event:010d}-0{number}.png" for event in (1, 4) for number in (0, 1)]
    assert np.array_equal(cv2.imread(str(crops.folder / "0000000004-01.png"), cv2.IMREAD_UNCHANGED), NOISE)


def test_the_numbers_agree_after_a_restart_and_when_the_journal_was_lost(tmp_path: Path, crops: Crops) -> None:
    for lost in (False, True):
        journal = Journal.open(tmp_path / FILE, ManualClock(), crops=crops)
        event = journal.write(decision())["defects", 0]
        journal.close()
        assert read(tmp_path / FILE, event - 1)[0]["body"]["crops"][0] == f"{event:010d}-00.png"
        if lost:
            (tmp_path / FILE).unlink()
    journal = Journal.open(tmp_path / FILE, ManualClock(), crops=crops)
    event = journal.write(decision())["defects", 0]
    journal.close()
    assert event > 10_000 and read(tmp_path / FILE, event - 1)[0]["body"]["crops"][0] == f"{event:010d}-00.png"


def test_the_oldest_make_room_also_for_an_agent_that_was_restarted(tmp_path: Path) -> None:
    size = len(cv2.imencode(".png", NOISE, (cv2.IMWRITE_PNG_COMPRESSION, 0))[1])
    for event in range(1, 6):
        Crops(tmp_path / FOLDER, quota_bytes=4 * size).write(event, [NOISE, NOISE])
        assert sum(path.stat().st_size for path in (tmp_path / FOLDER).iterdir()) <= 4 * size
    assert names(tmp_path / FOLDER) == [f"{event:010d}-0{number}.png" for event in (4, 5) for number in (0, 1)]


def test_a_quota_of_nothing_keeps_nothing(tmp_path: Path) -> None:
    crops = Crops(tmp_path / FOLDER, quota_bytes=0)
    assert crops.write(1, [NOISE]) == (None,) and not crops.folder.exists() and crops.flags() == ()


def test_what_a_crash_left_half_written_is_removed(crops: Crops) -> None:
    crops.folder.mkdir()
    (crops.folder / "0000000001-00.png.new").write_bytes(b"half")
    crops.write(2, [NOISE])
    assert names(crops.folder) == ["0000000002-00.png"]


class FullDisk(Crops):
    """The disk refuses the second picture."""

    full = True

    def _write(self, name: str, picture: np.ndarray) -> str:  # type: ignore[type-arg]
        if self.full and name.endswith("-01.png"):
            raise OSError(28, "No space left on device", name)
        return super()._write(name, picture)


def test_a_full_disk_costs_the_picture_and_not_the_row_and_is_told_once_until_it_is_over(tmp_path: Path) -> None:
    crops = FullDisk(tmp_path / FOLDER, quota_bytes=10**6)
    journal = Journal.open(tmp_path / FILE, ManualClock(), crops=crops)
    for _ in range(2):
        journal.write(decision())
    (raised,) = journal.flags()
    assert (raised.code, raised.state) == ("crops_unavailable", "raised") and "No space left" in raised.detail
    assert [row["body"]["crops"] for row in read(tmp_path / FILE)] == [
        ["0000000001-00.png", None], ["0000000002-00.png", None],
    ]  # fmt: skip
    crops.full = False
    journal.write(decision())
    (cleared,) = journal.flags()
    assert (cleared.code, cleared.state) == ("crops_unavailable", "cleared") and journal.healthy
    assert read(tmp_path / FILE)[-1]["body"]["crops"] == ["0000000003-00.png", "0000000003-01.png"]
    journal.close()


def test_a_folder_that_cannot_be_made_is_told_and_rows_go_on(tmp_path: Path) -> None:
    (tmp_path / FOLDER).write_text("a file where the folder should be")
    journal = Journal.open(tmp_path / FILE, ManualClock(), crops=Crops(tmp_path / FOLDER, quota_bytes=10**6))
    journal.write(decision())
    assert [flag.state for flag in journal.flags()] == ["raised"]
    assert read(tmp_path / FILE)[0]["body"]["crops"] == [None, None]
    (tmp_path / FOLDER).unlink()
    journal.write(decision())
    assert [flag.state for flag in journal.flags()] == ["cleared"]
    journal.close()
