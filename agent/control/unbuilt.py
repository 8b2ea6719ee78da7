"""Which sources send frames of a shape that no engine was built for: they are read, but slowly. Pure."""

from agent.messages import NOT_BUILT, SOURCES, Findings, Frame


class Unbuilt:
    """Remembers the last frame's shape of each such source."""

    def __init__(self) -> None:
        self._shapes: dict[str, str] = {}

    def note(self, frame: Frame, findings: Findings) -> str:
        """What to say of all of them; empty where there is none."""
        self._shapes.pop(frame.source, None)
        if NOT_BUILT in findings.flags:
            self._shapes[frame.source] = f"{frame.pixels.shape[0]}x{frame.pixels.shape[1]}"
            while len(self._shapes) > SOURCES:
                self._shapes.pop(next(iter(self._shapes)))
        return ", ".join(f"{source or 'frames'} of {shape}" for source, shape in self._shapes.items())
