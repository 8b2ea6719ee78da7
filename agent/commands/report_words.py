"""The demo in plain words, made from what happened: also where the agent held, failed, missed or cried wolf."""

from collections import Counter
from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

from agent.commands.canvas import length
from agent.commands.overlay import said
from agent.commands.picture import in_focus
from agent.commands.report_fields import kind
from agent.commands.report_focus import specimen_name
from agent.commands.report_heights import agreement
from agent.commands.report_html import listed

if TYPE_CHECKING:
    from calibration.twin.episode import Episode
    from calibration.twin.inspecting import InspectedField

NAMED = 5  # missed defects that are named one by one
WORSE_H = 0.25  # half depths of focus: less is the play of the lens


def cards(episodes: "Sequence[Episode]", fields: "Sequence[InspectedField]") -> list[tuple[str, str]]:
    """(a figure, what it counts): the day at a glance."""
    shown = []
    if episodes:
        good = [e for e in episodes if in_focus(e)]
        shown.append((f"{len(good)} of {len(episodes)}", "brought into focus"))
        shown.append((f"{median(e.frames for e in good):.3g}" if good else "–", "frames used, median"))
    seen = [each for each in fields if each.inspected]
    if seen:
        hidden = sum(len(each.shown.defects) for each in seen)
        shown.append((f"{sum(len(each.pairs) for each in seen)} of {hidden}", "hidden defects found"))
        false = sum(len(each.false_alarms) for each in seen)
        shown.append((str(false), f"false alarm{'s' if false != 1 else ''} in {_count(len(seen), 'field')}"))
    return shown


# --- focus ---


def focus_words(episodes: "Sequence[Episode]") -> list[str]:
    if not episodes:
        return []
    return [_asked(episodes), *filter(None, (_good(episodes), _held(episodes), _failed(episodes), _wrong(episodes)))]


def _asked(episodes: "Sequence[Episode]") -> str:
    metres = max(abs(e.start_defocus_m) for e in episodes)
    h = max(abs(e.start_defocus_m) / e.half_depth_of_focus_m for e in episodes)
    far = f"{length(metres)} ({h:.1f} half depths of focus) from focus"
    if len(episodes) == 1:
        return f"The agent was asked to bring a specimen into focus that it had never seen. It began {far}."
    times = f"The agent was asked {len(episodes)} times to bring a specimen into focus that it had never seen"
    return f"{times}, at most {far}."


def _good(episodes: "Sequence[Episode]") -> str:
    good = [e for e in episodes if in_focus(e)]
    if not good:
        return "No episode ended in focus."
    who = "It" if len(episodes) == 1 else f"{len(good)} of {len(episodes)}" if len(good) < len(episodes) else "All"
    rest = max(abs(e.residual_m) / e.half_depth_of_focus_m for e in good)
    least, most = min(e.frames for e in good), max(e.frames for e in good)
    frames = f"{_count(most, 'frame')}" if least == most else f"{least} to {most} frames"
    at_most = "" if len(good) == 1 else "at most "
    return f"{who} ended in focus, {at_most}{rest:.2f} half depths of focus away from the best, after {frames}."


def _held(episodes: "Sequence[Episode]") -> str:
    held = [e for e in episodes if e.end == "held"]
    if not held:
        return ""
    named = listed(f"{specimen_name(e)}, seed {e.seed} ({e.reason})" for e in held)
    return f"{_times(len(held))} the agent stopped advising and said why instead of guessing: {named}."


def _failed(episodes: "Sequence[Episode]") -> str:
    failed = [e for e in episodes if e.end == "failed"]
    if not failed:
        return ""
    named = listed(f"{specimen_name(e)}, seed {e.seed} ({e.reason})" for e in failed)
    return f"{_count(len(failed), 'episode').capitalize()} failed: {named}."


def _wrong(episodes: "Sequence[Episode]") -> str:
    """What must not happen, said as plainly as the rest."""
    false = [e for e in episodes if e.end == "converged" and not in_focus(e)]
    worse = [e for e in episodes if _worse_h(e) > WORSE_H]
    told = []
    if false:
        named = listed(
            f"{specimen_name(e)}, seed {e.seed}: {abs(e.residual_m) / e.half_depth_of_focus_m:.1f} half depths"
            for e in false
        )
        told.append(f"{_times(len(false))} it believed to be in focus and was not ({named}).")
    if worse:
        named = listed(f"{specimen_name(e)}, seed {e.seed}" for e in worse)
        told.append(f"{_times(len(worse))} the specimen ended further out of focus than it began: {named}.")
    return " ".join(told)


def _worse_h(episode: "Episode") -> float:
    return (abs(episode.residual_m) - abs(episode.start_defocus_m)) / episode.half_depth_of_focus_m


# --- inspection ---


def inspection_words(fields: "Sequence[InspectedField]") -> list[str]:
    if not fields:
        return ["No field was inspected in this demo."]
    seen = [each for each in fields if each.inspected]
    lost = [(i, each) for i, each in enumerate(fields, 1) if not each.inspected]
    told = [_found(seen), _clean(seen), _missed(fields), _heights(seen)] if seen else []
    told += [f"Field {i} was not inspected: {each.word.reason}." for i, each in lost]
    return [each for each in told if each]


def _found(seen: "Sequence[InspectedField]") -> str:
    hidden, found = sum(len(e.shown.defects) for e in seen), sum(len(e.pairs) for e in seen)
    false, right = sum(len(e.false_alarms) for e in seen), sum(e.class_right for e in seen)
    shown = f"Then it was shown {_count(len(seen), 'fresh field')} of a chip's pattern"
    alarms = (
        f"{_count(false, 'place')} {'was' if false == 1 else 'were'} flagged where nothing is wrong" if false else ""
    )
    if not hidden:
        return f"{shown} in which nothing is wrong; {alarms or 'it flagged nothing'}."
    some = f"{found} of them" if found else "none of them"
    classes = f" and named the class of {right} rightly" if found else ""
    ends = alarms or "no false alarm was raised"
    return f"{shown} with {_count(hidden, 'defect')} hidden in them. It found {some}{classes}; {ends}."


def _clean(seen: "Sequence[InspectedField]") -> str:
    clean = [each for each in seen if not each.shown.defects]
    if not clean or len(clean) == len(seen):
        return ""
    flagged = sum(bool(each.word.found) for each in clean)
    which = "The field without defects" if len(clean) == 1 else f"Of {len(clean)} fields without defects"
    if len(clean) == 1:
        return f"{which} was {'flagged all the same' if flagged else 'passed without a flag'}."
    return f"{which} {flagged or 'none'} {'was' if flagged <= 1 else 'were'} flagged."


def _missed(fields: "Sequence[InspectedField]") -> str:
    """Each by its field; of many only how often each class was missed."""
    missed = [(i, true.name) for i, each in enumerate(fields, 1) if each.inspected for true in each.missed]
    if len(missed) > NAMED:
        by_class = Counter(name for _, name in missed).most_common()
        return f"Missed: {', '.join(f'{kind(name)} ({count})' for name, count in by_class)}."
    return f"Missed: {listed(f'{_article(name)} in field {i}' for i, name in missed)}." if missed else ""


def _heights(seen: "Sequence[InspectedField]") -> str:
    """Shape and scale apart: a map may follow every edge and still be too low."""
    known = [(told, each) for each in seen if (told := agreement(each)) is not None]
    if not known:
        return ""
    shape = median(told[0] for told, _ in known)
    off = median(told[1] / float(each.shown.height_m.std()) for told, each in known)
    follow = "follow" if shape >= 0.85 else "roughly follow" if shape >= 0.5 else "do not follow"
    scale = "" if off < 0.3 else ", the scale is the weaker part"
    return (
        f"The heights it read {follow} the true shapes (correlation {shape:.2f} in the median field); their error is "
        f"{off:.0%} of the heights' own spread{scale}."
    )


# --- what the numbers do not tell ---


def caveats(*, snr: float, alpha_error: float) -> list[str]:
    knew = (
        f"wrong on purpose, for the convergence angle is off by {100 * alpha_error:+.0f} %."
        if alpha_error
        else "the true constants."
    )
    return [
        "All of this happened on a virtual microscope. Its optics, noise, drift and play are modelled on real columns, "
        "but no real electron was counted: a real instrument brings charging, contamination, vibration and patterns "
        "that nobody has drawn.",
        "The depth and defect models were trained on pictures of the same virtual microscope. Fresh seeds are not a "
        "fresh world: expect less on a real column until the models have been shown its own pictures.",
        "A handful of episodes and fields shows that the loop works, not how often it does. One defect more or less "
        "moves the shares above by many per cent.",
        f"Frames for focus had a signal-to-noise ratio of {snr:g} a pixel. Of the column the agent knew what its "
        f"certificate told: {knew}",
        "Times were measured while the virtual microscope used the same processor. Beside a real one the agent has it "
        "to itself.",
    ]


def _count(many: int, what: str) -> str:
    words = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
    return f"{words[many] if many < len(words) else many} {what}{'' if many == 1 else 's'}"


def _times(many: int) -> str:
    return {1: "Once", 2: "Twice"}.get(many, f"{many} times")


def _article(name: str) -> str:
    return f"a defect {kind(name)}" if name == "other" else f"a {said(name)}"
