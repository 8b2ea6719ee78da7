"""Which scenes the constants have seen: a score on those that were fitted to says less than one on the others.

Known of the shipped constants on the scenes they were fitted to, of a profile by the frames it names, and of any other
list that says so itself: `"fitted": true` or `false` in an entry.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from hashlib import sha256

from calibration.evaluate.scenes import Scene, Unread

# The Monte Carlo that `Emission`'s constants were fitted to: first digits of the hash of its scenes' names, in order.
SHIPPED = "8de059ce9f574153"
EVERY = 2  # of those scenes, from the first


def split(scenes: Sequence[Scene | Unread], frames: Collection[str] | None = None) -> list[Scene | Unread]:
    """The scenes, each with `fitted` where it is known. frames: names that a profile was fitted to; None: shipped."""
    seen = _shipped(scenes) if frames is None else frames
    if not seen or not any(each.name in seen for each in scenes):
        return list(scenes)  # of another list nothing is known but what it says itself
    return [replace(each, fitted=_is(each, seen)) if isinstance(each, Scene) else each for each in scenes]


def _is(scene: Scene, seen: Collection[str]) -> bool:
    """The same sample under other electrons has been seen too."""
    return scene.name in seen or scene.repeat_of in seen


def _shipped(scenes: Sequence[Scene | Unread]) -> list[str]:
    """Every second scene that repeats no other; none where these are other scenes."""
    names = [each.name for each in scenes if not (isinstance(each, Scene) and each.repeat_of)]
    same = sha256("\n".join(names).encode()).hexdigest().startswith(SHIPPED)
    return names[::EVERY] if same else []
