"""What `beamside demo` leaves behind for people: one HTML file that tells what happened, and needs nothing else.

Pictures are inline, curves are drawn as SVG, there is no script and no address: it opens from a mail or a stick.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.commands.report_facts import ran_section, timings_section
from agent.commands.report_fields import inspection_section
from agent.commands.report_focus import focus_section
from agent.commands.report_html import bullets, paragraph, section, words
from agent.commands.report_words import cards, caveats, focus_words, inspection_words

if TYPE_CHECKING:
    from calibration.certificate import Certificate
    from calibration.twin.episode import Episode
    from calibration.twin.inspecting import InspectedField

TITLE = "beamside demo"
# Hatches for what must not be told by colour alone; every drawing on the page may use them.
HATCH = (
    '<svg width="0" height="0" aria-hidden="true" class="defs"><defs>'
    '<pattern id="hatch" width="7" height="7" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect width="7" height="7" class="f-paper"/><rect width="4" height="7" class="f-vermillion"/></pattern>'
    "</defs></svg>"
)
GLOSSARY = (
    ("Defocus", "how far below (+) or above (−) the surface the beam is sharpest"),
    ("Working distance", "from the lens to the plane it focuses on: the knob that focuses"),
    ("Half a depth of focus, h", "the defocus that is just about to be seen at this pixel size"),
    ("95 % interval", "the agent's own doubt: the truth should lie within it 19 times out of 20"),
    ("Held", "the agent does not know and says so; nothing is moved on a guess"),
    ("False alarm", "a find where nothing is wrong"),
)


@dataclass(frozen=True)
class Account:
    """All that the page tells of one demo."""

    episodes: "Sequence[Episode]"
    fields: "Sequence[InspectedField]"
    certificate: "Certificate"
    made: datetime
    machine: str
    status: Mapping[str, Any] = field(default_factory=dict)  # the agent's last one, as it came off the wire
    snr: float = 1.8
    alpha_error: float = 0.0


def write(account: Account, path: Path) -> None:
    """Raises OSError when it cannot be written."""
    path.write_text(page(account), encoding="utf-8")


def page(account: Account) -> str:
    parts = (
        _heading(account),
        _summary(account),
        focus_section(account.episodes),
        inspection_section(account.fields),
        timings_section(account.status, account.fields),
        ran_section(account.status, account.certificate, _facts(account)),
        _limits(account),
        _glossary(),
    )
    style = resources.files("agent.commands").joinpath("report.css").read_text(encoding="utf-8")
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{words(TITLE)}, {account.made:%Y-%m-%d %H:%M}</title><style>{style}</style>"
    )
    body = f"<main>{''.join(parts)}</main>"
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>{HATCH}{body}</body></html>\n'


def _heading(account: Account) -> str:
    lead = (
        "A virtual scanning electron microscope and the agent beside it, two programs that talked over real sockets. "
        "The microscope knows the truth and kept it to itself; this page compares it with what the agent said and did."
    )
    when = f"{account.made:%Y-%m-%d %H:%M} UTC · agent {account.status.get('agent', 'of unknown version')}"
    return f'<header><p class="soft">{words(when)}</p><h1>{words(TITLE)}</h1>{paragraph(lead, "lead")}</header>'


def _summary(account: Account) -> str:
    shown = "".join(
        f'<li><b>{words(figure)}</b><span class="soft">{words(what)}</span></li>'
        for figure, what in cards(account.episodes, account.fields)
    )
    told = [" ".join(focus_words(account.episodes)), " ".join(inspection_words(account.fields))]
    figures = f'<ul class="cards">{shown}</ul>' if shown else ""
    return section("summary", "What happened", figures, *(paragraph(each) for each in told))


def _facts(account: Account) -> list[tuple[str, str]]:
    books = account.status.get("frames") or {}
    told = ", ".join(
        f"{books[name]} {name}" for name in ("received", "processed", "superseded", "uninspected") if name in books
    )
    episodes = "1 episode" if len(account.episodes) == 1 else f"{len(account.episodes)} episodes"
    return [
        ("Made", f"{account.made:%Y-%m-%d %H:%M:%S} UTC"),
        ("Agent", f"version {account.status.get('agent', 'unknown')}"),
        ("Machine", account.machine),
        ("Focus", f"{episodes}, signal-to-noise {account.snr:g} a pixel"),
        ("Inspection", f"{len(account.fields)} fields"),
        ("Frames by the agent's books", told or "not told"),
    ]


def _limits(account: Account) -> str:
    listed = bullets(caveats(snr=account.snr, alpha_error=account.alpha_error))
    return section("limits", "What these numbers do not tell", listed)


def _glossary() -> str:
    told = "".join(f"<dt>{words(term)}</dt><dd>{words(meaning)}</dd>" for term, meaning in GLOSSARY)
    return section("words", "Words used here", f"<dl>{told}</dl>")
