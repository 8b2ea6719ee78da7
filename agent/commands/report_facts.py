"""The report's part on what ran: how long each stage took, models, backends, certificate, machine. HTML out."""

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from agent.commands.canvas import length
from agent.commands.report_html import Drawing, grid, paragraph, section, table, words

if TYPE_CHECKING:
    from calibration.certificate import Certificate
    from calibration.twin.inspecting import InspectedField

STAGES = {  # as the agent names them, in a frame's order: what people call them
    "receive": "waiting to be looked at",
    "convert": "to 8 bits",
    "autofocus": "autofocus model",
    "depth": "depth model",
    "defects": "defect model",
    "evidence": "spectra of the patches",
    "decide": "focus estimate and decision",
    "journal": "flags, finds and advice on disk",
    "send": "to the socket",
}
BAR = (170.0, 18.0)  # px


def timings_section(status: Mapping[str, Any], fields: "Sequence[InspectedField]") -> str:
    timings = {name: (each["p50_s"], each["p99_s"]) for name, each in (status.get("timings") or {}).items()}
    if not timings:
        return section("timings", "How long it took", paragraph("The agent's status told no timings."))
    longest = max(p99 for _, p99 in timings.values())
    order = [*(name for name in STAGES if name in timings), *(name for name in timings if name not in STAGES)]
    rows = [_stage(name, timings[name], longest, _inspected(name, fields)) for name in order]
    headings = ("Stage", "", "p50", "p99", "Inspected")
    caption = (
        "Milliseconds a frame, over the last frames of the demo: half of them took no longer than p50 (dark bar), 99 "
        "of 100 no longer than p99 (light bar). At the right the median of the inspected frames."
    )
    return section("timings", "How long it took", _together(fields), table(headings, rows, caption=caption, left=2))


def _together(fields: "Sequence[InspectedField]") -> str:
    known = [sum(each.word.took_s.values()) for each in fields if each.word.took_s]
    return paragraph(f"An inspected frame took {_ms(median(known))} ms, all stages together." if known else "")


def _inspected(name: str, fields: "Sequence[InspectedField]") -> str:
    known = [each.word.took_s[name] for each in fields if name in each.word.took_s]
    return _ms(median(known)) if known else "–"


def _stage(name: str, timing: tuple[float, float], longest: float, inspected: str) -> list[str]:
    told = f'{words(name)}<span class="soft">{words(STAGES[name])}</span>' if name in STAGES else words(name)
    return [told, _bars(timing, longest), words(_ms(timing[0])), words(_ms(timing[1])), words(inspected)]


def _bars(timing: tuple[float, float], longest: float) -> str:
    drawing = Drawing(*BAR, f"p50 {_ms(timing[0])} ms, p99 {_ms(timing[1])} ms")
    p50, p99 = (max(BAR[0] * seconds / longest, 1.0) for seconds in timing)
    drawing.box((0, 6), (p99, 12), "f-sky")
    drawing.box((0, 2), (p50, 16), "f-blue")
    return str(drawing)


def _ms(seconds: float) -> str:
    ms = seconds * 1e3
    return f"{ms:.0f}" if ms >= 99.5 else f"{ms:.1f}" if ms >= 0.95 else f"{ms:.2f}"


# --- what ran ---


def ran_section(status: Mapping[str, Any], certificate: "Certificate", facts: Sequence[tuple[str, str]]) -> str:
    tables = grid(_certificate(certificate), _pairs("This demo", facts))
    return section("ran", "What ran", _models(status), tables)


def _models(status: Mapping[str, Any]) -> str:
    """name@sha and the backend that serves it; backends go by the model's name, with or without its sha."""
    backends = status.get("backends") or {}
    rows = []
    for label in status.get("models") or ():
        name, _, sha = str(label).partition("@")
        rows.append([words(name), f"<code>{words(sha)}</code>", words(backends.get(label, backends.get(name, "–")))])
    if not rows:
        return paragraph("The agent named no model.")
    return table(("Model", "Version (sha256)", "Backend"), rows, caption="Models in service.", left=3)


def _certificate(c: "Certificate") -> str:
    facts = (
        ("Instrument", c.instrument),
        ("Made, expires", f"{c.made[:10]}, {c.expires[:10]}"),
        ("Convergence angle", f"{c.alpha_rad * 1e3:.2f} ± {c.alpha_sigma_rad * 1e3:.2f} mrad"),
        ("Probe in focus", length(c.fw50_m)),
        ("Largest step", length(c.limits.step_m)),
        ("Play of the lens", length(c.hysteresis_m)),
        ("Heights vouched for", "yes" if getattr(c, "height_scale", None) is not None else "no: metres as trained"),
    )
    return _pairs("The column's certificate", facts)


def _pairs(caption: str, facts: Sequence[tuple[str, str]]) -> str:
    return table(("What", "Value"), [[words(name), words(value)] for name, value in facts], caption=caption, left=2)


def machine() -> str:
    """Processor, cores, system; no name of the machine's own."""
    system = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    return f"{_processor()}, {os.cpu_count()} cores, {system}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.machine()
