"""The closed focus loop in small: `beamside evaluate focus`, so many episodes that every stratum is met.

The command itself has more of them, baselines, faults and a page.
"""

import os

from agent.commands.evaluate_focus import measure as measured
from agent.commands.focus_account import Asked, account
from agent.commands.focus_table import sentences

EPISODES, MINUTES = 200, 14.0  # some eight minutes on two idle cores; a busy machine tells of fewer episodes
SEED = 1


def measure(episodes: int = EPISODES) -> list[dict[str, object]]:
    """A row a target."""
    jobs = os.cpu_count() or 1
    asked = Asked(
        episodes=episodes, seed=SEED, specimens=(), jobs=jobs, minutes=MINUTES, baselines=False, faults=False
    )  # fmt: skip
    told = account(asked, measured(asked))
    what = " ".join(sentences(told))
    words = {True: "met", False: "missed", None: ""}
    return [
        {
            "name": each.name, "asked": each.asked, "measured": each.measured, "met": words[each.met], "by": each.by,
            "n": each.n, "what": what,
        }
        for each in told.targets
    ]  # fmt: skip
