"""Did the lens go where the headers say? The likelihood that it stayed, against that of the best account. Pure."""

from dataclasses import replace

from agent.control.climbing import Mode
from agent.control.search import Search
from agent.control.starts import grid

STUCK_NATS, STUCK_SHARE = 100.0, 0.005  # by which a lens that stayed must explain the frames better: models err too
UNMOVED_H = 1.5  # of h: working distances closer than this make pictures that are alike


def stuck(search: Search, best: Mode) -> bool:
    """Does the last picture fit the one before better where that one was taken than where it says it was?"""
    scene = search.scene
    step = search.reference.working_distance_m - search.evidence[-2].working_distance_m
    if abs(step) < UNMOVED_H * search.h:
        return False
    # Seen from the last frame, all the others lie where they would if it had stayed.
    scene, here = scene.elsewhere(range(scene.n - 1), step), search.at(best.theta)
    stayed = scene.likelihood([replace(here, z_m=z * search.h) for z in grid(scene, search.h)])
    return float(stayed.max()) > best.value + max(STUCK_NATS, STUCK_SHARE * best.value)


def unmoved(search: Search, best: Mode) -> bool:
    """Do the frames agree with one another better than any defocus makes them differ?

    Frames that moved differ by thousands of nats, frames that did not by less than none.
    """
    offsets = [view.offset_m for view in search.scene.views]
    return max(offsets) - min(offsets) > UNMOVED_H * search.h and search.scene.unmoved() > best.value
