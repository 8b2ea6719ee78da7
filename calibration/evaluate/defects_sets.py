"""A folder in, a set of pictures with their true defects out: what kind it is, is told by what lies in it."""

from pathlib import Path

from calibration.dataset.index import INDEX
from calibration.evaluate import defects_boxes, defects_dataset, defects_scenes
from calibration.evaluate.defects_truth import PictureSet, Reader, SetError
from calibration.evaluate.scenes import LIST

EXPECTED = (
    f"give a dataset of `beamside calibrate dataset defects` ({INDEX}), scenes with {LIST}, or pictures with YOLO "
    "boxes (images/ and labels/, or both side by side)"
)


def open_set(folder: Path, reader: Reader) -> PictureSet:
    """reader: image files. Raises SetError in one sentence where the folder is none of these, or nothing is in it."""
    try:
        if not folder.is_dir():
            raise SetError(f"{folder}: {'no folder' if folder.exists() else 'no such folder'}; {EXPECTED}")
        if not any(folder.iterdir()):
            raise SetError(f"{folder}: the folder is empty; {EXPECTED}")
        if (folder / INDEX).exists():
            return defects_dataset.open_dataset(folder)
        if (folder / LIST).exists():
            return defects_scenes.open_scenes(folder, reader)
        if defects_boxes.holds_boxes(folder):
            return defects_boxes.open_boxes(folder, reader)
    except OSError as error:
        raise SetError(f"{error.filename or folder}: cannot be read: {error.strerror or error}") from error
    raise SetError(f"{folder}: nothing here that can be evaluated; {EXPECTED}")
