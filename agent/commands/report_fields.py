"""The report's part on inspection: each field with what was hidden and what was found, its heights, and all counted."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from agent.commands.overlay import said
from agent.commands.plate import told
from agent.commands.report_focus import scale_bar
from agent.commands.report_heights import heights, signed_nm
from agent.commands.report_html import (
    Drawing,
    both,
    column,
    figure,
    grid,
    legend,
    paragraph,
    section,
    table,
    text_width,
    words,
)

if TYPE_CHECKING:
    from calibration.twin.inspecting import Box, Find, InspectedField
    from calibration.twin.inspection import TrueDefect

SHOWN = 8  # fields with their pictures: a megabyte each
GAP_PX = 4.0  # between a defect and its box, so that the line does not cover what it points at


def inspection_section(fields: "Sequence[InspectedField]") -> str:
    if not fields:
        return section("inspection", "Looking for defects", paragraph("No field was inspected."))
    intro = (
        "Fields of a chip's pattern that the agent has never seen, drawn with some defects hidden in them, were sent "
        "as frames to inspect. Only the virtual microscope knows what is hidden; the finds were compared afterwards. "
        "A find counts where its box and the true one mean the same place; its class is judged separately."
    )
    keys = legend(
        ("frame", "s-blue", "found, and really there (1, 2, …)"),
        ("frame", "s-vermillion", "false alarm: nothing is there (F1, …)"),
        ("dashed-frame", "s-orange", "missed by the agent (M1, …)"),
        ("dashed-frame", "s-sky", "true outline of what was found"),
    )
    chosen = most_telling_fields(fields)
    left_out = len(fields) - len(chosen)
    note = f"{left_out} more fields are counted, but not shown here." if left_out else ""
    shown = "".join(_field(i + 1, fields[i]) for i in chosen) + paragraph(note, "soft")
    return section("inspection", "Looking for defects", paragraph(intro), _overview(fields), keys, shown, _all(fields))


def most_telling_fields(fields: "Sequence[InspectedField]") -> list[int]:
    """Which are shown with their pictures, in their order: those that went wrong before those that went well."""
    order = sorted(range(len(fields)), key=lambda i: not (fields[i].missed or fields[i].false_alarms))
    return sorted(order[:SHOWN])


def _overview(fields: "Sequence[InspectedField]") -> str:
    rows = [_overview_row(i + 1, each) for i, each in enumerate(fields)]
    headings = ("Field", "Hidden", "Found", "Missed", "False alarms", "Class right")
    return table(headings, rows, caption="All fields.")


def _overview_row(i: int, each: "InspectedField") -> list[str]:
    name = both(f"{i}: {each.shown.pattern}", f"seed {each.seed}")
    if not each.inspected:
        return [name, words(len(each.shown.defects)), '<span class="badge bad">▲ failed</span>', "–", "–", "–"]
    right = f"{each.class_right} of {len(each.pairs)}" if each.pairs else "–"
    counts = (len(each.shown.defects), len(each.pairs), len(each.missed), len(each.false_alarms))
    return [name, *map(words, counts), words(right)]


# --- one field ---


def _field(i: int, each: "InspectedField") -> str:
    title = f"<h3>Field {i}: {words(each.shown.pattern)}, seed {each.seed}</h3>"
    if not each.inspected:
        return title + grid(_boxes(i, each), paragraph(f"Not inspected: {each.word.reason}."))
    return f"<article>{title}{grid(column(_boxes(i, each), _defects(each)), column(*heights(each)))}</article>"


def verdict(each: "InspectedField") -> str:
    """One sentence on a field."""
    hidden, found, false = len(each.shown.defects), len(each.pairs), len(each.false_alarms)
    if not each.inspected:
        return f"not inspected: {each.word.reason}"
    if not hidden:
        return f"a clean field, {_alarms(false)}"
    return f"{found} of {hidden} hidden defects found, {_alarms(false)}"


def _alarms(false: int) -> str:
    return "no false alarm" if not false else f"{false} false alarm{'s' if false != 1 else ''}"


def _boxes(i: int, each: "InspectedField") -> str:
    height, width = each.shown.pixels.shape
    label = f"Field {i}, {each.shown.pattern}: {verdict(each)}"
    drawing = Drawing(width, height, label, font=width / 28)
    drawing.picture(each.shown.pixels)
    thick = width / 200
    taken: list[Box] = []
    told_of = [t for t, _ in each.pairs] if each.inspected else range(len(each.shown.defects))
    for t in told_of:
        _box(drawing, each.shown.defects[t].box_px, "s-sky dash", 0.7 * thick)
    for name, defect in _missed(each) if each.inspected else ():
        _named_box(drawing, defect.box_px, name, "orange dash", taken)
    for name, find, is_there in _named(each):
        _named_box(drawing, find.box_px, name, "blue" if is_there else "vermillion", taken)
    scale_bar(drawing, each.shown.pixel_size_m)
    return figure(str(drawing), f"Field {i}: {verdict(each)}. {_taken_with(each)}")


def _taken_with(each: "InspectedField") -> str:
    shown = each.shown
    height, width = shown.pixels.shape
    return (
        f"{width} × {height} px of {told(shown.pixel_size_m)}, {shown.accelerating_voltage_v / 1e3:.1f} kV, "
        f"{shown.electrons_per_pixel:.0f} electrons a pixel."
    )


def _named(each: "InspectedField") -> "list[tuple[str, Find, bool]]":
    """Every find with its number on the page: 1, 2, ... are there, F1, F2, ... are not."""
    right = {f for _, f in each.pairs}
    order = sorted(range(len(each.word.found)), key=lambda f: -each.word.found[f].confidence)
    there = [f for f in order if f in right]
    false = [f for f in order if f not in right]
    named = [(f"{n + 1}", each.word.found[f], True) for n, f in enumerate(there)]
    return named + [(f"F{n + 1}", each.word.found[f], False) for n, f in enumerate(false)]


def _missed(each: "InspectedField") -> "list[tuple[str, TrueDefect]]":
    return [(f"M{n + 1}", defect) for n, defect in enumerate(each.missed)]


def _box(drawing: Drawing, box: "Box", kind: str, thick: float) -> None:
    low = (max(box[0] - GAP_PX, 1.0), max(box[1] - GAP_PX, 1.0))
    high = (min(box[2] + GAP_PX, drawing.width - 1.0), min(box[3] + GAP_PX, drawing.height - 1.0))
    drawing.box(low, high, "s-halo", 2.2 * thick)  # a dark edge, lest the colour drown in a bright picture
    drawing.box(low, high, kind, thick)


def _named_box(drawing: Drawing, box: "Box", name: str, kind: str, taken: "list[Box]") -> None:
    """A box with its number on a chip beside it, where no other chip stands."""
    _box(drawing, box, f"s-{kind}", drawing.width / 200)
    font = drawing.font
    wide, high = text_width(name, font) + 0.7 * font, 1.3 * font
    x0, y0, x1, y1 = box[0] - GAP_PX, box[1] - GAP_PX, box[2] + GAP_PX, box[3] + GAP_PX
    corners = [(x0, y0 - high), (x1, y0), (x0, y1), (x0 - wide, y0), (x1, y1), (x0 - wide, y1), (x1, y0 - high)]
    places = [(x, y, x + wide, y + high) for x, y in corners]
    inside = [p for p in places if p[0] >= 0 and p[1] >= 0 and p[2] <= drawing.width and p[3] <= drawing.height]
    free = [p for p in inside if not any(_meet(p, other) for other in taken)]
    place = next(iter(free or inside), (0.0, 0.0, wide, high))
    taken.append(place)
    drawing.box(place[:2], place[2:], f"f-{kind.split()[0]}")
    drawing.text((place[0] + wide / 2, place[3] - 0.33 * font), name, kind="f-paper bold", align="middle")


def _meet(a: "Box", b: "Box") -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _defects(each: "InspectedField") -> str:
    """Found, false and missed ones of a field."""
    truth = {f: each.shown.defects[t] for t, f in each.pairs}
    rows = []
    for name, find, is_there in _named(each):
        true = truth.get(each.word.found.index(find)) if is_there else None
        rows.append(_found_row(name, find, true))
    for name, missed in _missed(each):
        rows.append(
            [f"<b>{name}</b>", both("not found", f"is {kind(missed.name)}"), "–", _height(None, missed.height_m)]
        )
    if not rows:
        return paragraph("Nothing is hidden here, and the agent found nothing.")
    return table(("No.", "Class", "Confidence", "Height"), rows, caption=_CAPTION, left=2)


_CAPTION = "What the agent said; underneath, what is true. Height against the surroundings, + up."


def _found_row(name: str, find: "Find", true: "TrueDefect | None") -> list[str]:
    if true is None:
        truth = "nothing is there"
    else:
        truth = "right" if true.name == find.name else f"is {kind(true.name)}"
    height = _height(find.height_m, true.height_m if true else None)
    return [f"<b>{name}</b>", both(kind(find.name), truth), words(f"{find.confidence:.2f}"), height]


def kind(name: str) -> str:
    """A class as a page for people has it."""
    return "of another kind" if name == "other" else said(name)


def _height(read_m: float | None, true_m: float | None) -> str:
    read = "–" if read_m is None else signed_nm(read_m)
    return both(read, "" if true_m is None else f"true {signed_nm(true_m)}")


# --- all fields counted ---


def _all(fields: "Sequence[InspectedField]") -> str:
    seen = {i: each for i, each in enumerate(fields, 1) if each.inspected}
    if not seen:
        return ""
    return "<h3>All fields counted</h3>" + grid(_pareto(list(seen.values())), _by_truth(seen))


def _pareto(fields: "Sequence[InspectedField]") -> str:
    """Classes as the agent named them, the most frequent first."""
    real: Counter[str] = Counter()
    false: Counter[str] = Counter()
    for each in fields:
        for _, find, is_there in _named(each):
            (real if is_there else false)[find.name] += 1
    total = real + false
    if not total:
        return paragraph("The agent found nothing in any field.")
    drawing = _bars(total.most_common(), real, false)
    keys = legend(("band", "f-blue", "really there"), ("band", "hatch", "false alarm"))
    caption = "Pareto of the finds by class as the agent named them; at the right the number and the share so far."
    return figure(str(drawing) + keys, caption)


def _bars(ordered: list[tuple[str, int]], real: Counter[str], false: Counter[str]) -> Drawing:
    row, left, right = 30.0, 134.0, 400.0
    label = "Finds by class: " + ", ".join(f"{count} {said(name)}" for name, count in ordered)
    drawing = Drawing(500, row * len(ordered) + 8, label)
    unit, so_far, total = (right - left) / ordered[0][1], 0, sum(count for _, count in ordered)
    for i, (name, count) in enumerate(ordered):
        y, middle = i * row + 6, left + unit * real[name]
        drawing.text((left - 10, y + 16), kind(name), align="end")
        drawing.box((left, y), (middle, y + 22), "f-blue")
        drawing.box((middle, y), (middle + unit * false[name], y + 22), "hatch")
        so_far += count
        drawing.text((left + unit * count + 8, y + 16), f"{count} · {100 * so_far / total:.0f} %", kind="f-soft")
    return drawing


def _by_truth(fields: "Mapping[int, InspectedField]") -> str:
    """How each true class fared. fields: by their number on the page."""
    hidden, found, right = Counter[str](), Counter[str](), Counter[str]()
    missed_in: dict[str, list[str]] = {}
    for i, each in fields.items():
        hidden.update(true.name for true in each.shown.defects)
        pairs = [(each.shown.defects[t].name, each.word.found[f].name) for t, f in each.pairs]
        found.update(true for true, _ in pairs)
        right.update(true for true, said_to_be in pairs if true == said_to_be)
        for name, defect in _missed(each):
            missed_in.setdefault(defect.name, []).append(f"{name} in field {i}")
    rows = [
        [words(kind(name)), words(count), words(found[name]), words(right[name]), words(_where(missed_in.get(name)))]
        for name, count in hidden.most_common()
    ]
    if not rows:
        return paragraph("No defect was hidden in these fields: only false alarms could be made.")
    return table(("True class", "Hidden", "Found", "Class right", "Missed"), rows, caption="By true class.")


def _where(missed: list[str] | None) -> str:
    return ", ".join(missed) if missed else "none"
