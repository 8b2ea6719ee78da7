"""Parts of the field that do not go with the others: charging, contamination, something that moved by itself. Pure."""

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.control.likelihood import Hypothesis
from agent.control.patchwise import Patchwise
from agent.messages import Evidence

MOST = 0.45  # of the patches may be left out: fewer than half, or the others would be the odd ones
CHANCES = 8.0  # times what chance makes of it, beyond the others: in a field that only blurs it reaches 5
SHARE = 0.05  # of what a patch tells: a misfit smaller than this is the model's, not the patch's
SPREADS = 6.0  # times how far the better half lies apart


def odd(patchwise: Patchwise, at: Hypothesis, *, most: int) -> list[int]:
    """Patches whose frames do not show one object at that account of the optics, worst first.

    Each is judged by the power that its own frames leave unexplained, against the better half of all patches.
    """
    if patchwise.patches < 3:
        return []
    unexplained, chance = patchwise.unexplained(at)
    told = float(np.median(patchwise.likelihood([at])[:, 0]))
    usual = float(np.median(unexplained))
    spread = usual - float(np.quantile(unexplained, 0.1))
    bound = usual + max(CHANCES * chance, SHARE * told, SPREADS * spread)
    beyond = [int(i) for i in np.argsort(-unexplained) if unexplained[i] > bound]
    return beyond[: max(most, 0)]


def only(evidence: Sequence[Evidence], patches: NDArray[np.intp]) -> list[Evidence]:
    """The same frames, seen in those parts of the field alone."""
    return [msgspec.structs.replace(e, spectra=e.spectra[patches], centres_px=e.centres_px[patches]) for e in evidence]
