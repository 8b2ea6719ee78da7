"""What happens to a microscope that nobody planned: an operator's hand on the knobs, faults in the byte stream."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from calibration.twin.column import Actuator
from calibration.twin.microscope import VirtualMicroscope

Part = bytes | memoryview
Parts = Sequence[Part]
StreamFilter = Callable[[int, Parts], Iterable[Parts]]  # one message in; none, one or several out


class Do(StrEnum):
    """What an operator may do. `value` is the change for knobs, ignored elsewhere."""

    WORKING_DISTANCE = "working_distance"  # turn by so many metres
    STIGMATOR_X = "stigmator_x"
    STIGMATOR_Y = "stigmator_y"
    BRIGHTNESS = "brightness"
    CONTRAST = "contrast"
    STAGE = "stage"  # another site, `value` metres further out of focus
    AUTO_CONTRAST = "auto_contrast"
    AUTO_FUNCTION = "auto_function"  # value 1: an auto function of the vendor is running; 0: it ended
    BLANK = "blank"  # value 1 or 0
    FREEZE = "freeze"
    FREEZE_SILENTLY = "freeze_silently"  # the header does not say so
    STICK = "stick"  # the lens supply ignores what it is told
    INVERT = "invert"  # ... or does the opposite
    STOP = "stop"  # ... or ends `value` metres from here, to the side of its sign, and reads back that it went on


@dataclass(frozen=True)
class Action:
    """One thing done, as the frame with this count (from 0, in this session) is about to be scanned."""

    frame: int
    do: Do
    value: float = 1.0


def act(scope: VirtualMicroscope, action: Action) -> None:
    """Turn one knob."""
    column, value, on = scope.column, action.value, action.value != 0
    match action.do:
        case Do.WORKING_DISTANCE:
            scope.set_working_distance(column.working_distance_m + value)
        case Do.STIGMATOR_X:
            scope.set_stigmators(column.stigmator_x + value, column.stigmator_y)
        case Do.STIGMATOR_Y:
            scope.set_stigmators(column.stigmator_x, column.stigmator_y + value)
        case Do.BRIGHTNESS:
            scope.set_exposure(brightness=scope.brightness + value)
        case Do.CONTRAST:
            scope.set_exposure(contrast=scope.contrast + value)
        case Do.STAGE:
            scope.move_stage(defocus_change_m=value)
        case Do.AUTO_CONTRAST:
            scope.auto_contrast()
        case Do.AUTO_FUNCTION:
            scope.auto_function_active = on
        case Do.BLANK:
            scope.blank(on)
        case Do.FREEZE | Do.FREEZE_SILENTLY:
            scope.freeze(on, tell=action.do is Do.FREEZE)
        case Do.STICK | Do.INVERT:
            column.actuator = Actuator.STUCK if action.do is Do.STICK else Actuator.INVERTED
        case Do.STOP:
            column.stop(value)


def sound(_number: int, parts: Parts) -> Iterable[Parts]:
    """The stream as it should be."""
    return [parts]


def malformed_before(*numbers: int, junk: Parts = (b"{", b"")) -> StreamFilter:
    """A message that cannot be read, ahead of these frames."""
    return lambda number, parts: [junk, parts] if number in numbers else [parts]


def repeated(*numbers: int) -> StreamFilter:
    """These frames come twice."""
    return lambda number, parts: [parts, parts] if number in numbers else [parts]


def dropped(*numbers: int) -> StreamFilter:
    """These frames never arrive."""
    return lambda number, parts: [] if number in numbers else [parts]


def chain(*filters: StreamFilter) -> StreamFilter:
    """One fault after the other."""

    def through(number: int, parts: Parts) -> Iterable[Parts]:
        messages: list[Parts] = [parts]
        for each in filters:
            messages = [out for message in messages for out in each(number, message)]
        return messages

    return through
