"""What `beamside calibrate focus --report DIR` leaves for people: one page with every measurement and its fit.

Drawings are inline SVG; no script, no address.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agent.commands import sweep_curves
from agent.commands.report_html import bullets, document, grid, paragraph, section, table, words, write_page
from agent.commands.sweep_figures import MRAD, MS, UM, Figure, figures
from calibration.certificate import Certificate

if TYPE_CHECKING:
    from calibration.sweep.run import Swept

TITLE = "Focus calibration"
STYLE = ".narrow{max-width:460px}"


@dataclass(frozen=True)
class Account:
    """All that the page tells."""

    swept: "Swept"
    certificate: Certificate


def write(account: Account, path: Path) -> None:
    """Whole or not at all. Raises OSError when it cannot be written."""
    write_page(page(account), path)


def page(account: Account) -> str:
    parts = (_heading(account), _summary(account), _constants(account), _pictures(account), _left(account), _limits())
    return document(f"{TITLE}: {account.certificate.instrument}", parts, style=STYLE)


def _heading(account: Account) -> str:
    c, swept = account.certificate, account.swept
    lead = (
        f"{swept.frames} frames, {swept.span_m * UM:.1f} µm either side of focus. Every number is by the agent's own "
        "estimator on these frames; the microscope was left as it was found."
    )
    when = f"made {c.made} · valid until {c.expires}"
    title = f"{TITLE}: {c.instrument}"
    return f'<header><p class="soft">{words(when)}</p><h1>{words(title)}</h1>{paragraph(lead, "lead")}</header>'


def _summary(account: Account) -> str:
    c, swept = account.certificate, account.swept
    cards = (
        (f"{c.alpha_rad * MRAD:.2f} mrad", f"convergence angle, ± {c.alpha_sigma_rad * MRAD:.2f}"),
        (f"{c.hysteresis_m * UM:.2f} µm", f"play, ± {swept.hysteresis_sigma_m * UM:.2f}"),
        (f"{c.settle_s * MS:.0f} ms", f"settling, ± {swept.settling.sigma_s * MS:.0f}"),
        (f"{swept.optic.half_depth_of_focus_m * UM:.2f} µm", "half a depth of focus, h"),
    )
    shown = "".join(f'<li><b>{words(figure)}</b><span class="soft">{words(what)}</span></li>' for figure, what in cards)
    return section("summary", "In short", f'<ul class="cards">{shown}</ul>')


def _constants(account: Account) -> str:
    rows = [_row(each) for each in figures(account.swept, account.certificate)]
    caption = "Image axes: x right, y down. Defocus is positive where the beam is focused below the surface."
    return section(
        "constants",
        "What the certificate says",
        table(("Constant", "", "Value", "One sigma"), rows, caption=caption, left=2),
    )


def _row(each: Figure) -> list[str]:
    told = [words(_micro(part)) for part in (each.name, each.value, each.doubt, each.remark)]
    return [told[0], f'<span class="soft">{told[3]}</span>', told[1], told[2]]


def _pictures(account: Account) -> str:
    swept = account.swept
    drawn = (
        sweep_curves.legs(swept),
        sweep_curves.loop(swept),
        sweep_curves.stigmators(swept),
        sweep_curves.settling(swept),
        sweep_curves.shift(swept),
        sweep_curves.scale(swept),
    )
    return section("pictures", "Measurements and fits", grid(*drawn))


def _left(account: Account) -> str:
    """What each fit leaves, beside how much there was."""
    swept = account.swept
    up, down = swept.legs
    s, d, k = swept.settling, swept.displacement, swept.scale
    shown = (
        ("Defocus upwards", len(up.placed), f"{up.rms_m * UM:.3f} µm"),
        ("Defocus downwards", len(down.placed), f"{down.rms_m * UM:.3f} µm"),
        ("Astigmatism by the stigmators", 1 + len(swept.stigmation.turns), f"{swept.stigmation.rms_m * UM:.3f} µm"),
        ("Way of the lens while it settles", len(s.moments), f"{s.rms_m * UM:.3f} µm"),
        ("Displacement", len(d.steps), f"{d.rms_px:.3f} px"),
        ("Growth", len(k.points), f"{100 * k.rms:.4f} %"),
    )
    rows = [[words(name), str(count), words(rms)] for name, count, rms in shown]
    caption = "Root mean square of what is left; the legs' frames count by how well each tells its defocus."
    return section("left", "What the fits leave", table(("Fit", "Measurements", "Left"), rows, caption=caption))


def _limits() -> str:
    told = (
        "An angle is that of this aperture, voltage and working distance: change one and calibrate anew.",
        "The in-focus probe is not measured: its width is by theory, with aberrations that are usual.",
        "Play is that of the way which was gone here; magnetic lenses may have more after a long one.",
        "Settling is that of one change of this size; larger ones may take longer.",
        "A working distance that acts the wrong way cannot be told from pictures of a column that corrects its scale: "
        "there only a certificate of before gives it away.",
        "Signs of astigmatism follow from the sign of the working distance.",
    )
    return section("limits", "What these numbers do not tell", bullets(told))


def _micro(told: str) -> str:
    return told.replace(" um", " µm").replace("/um", "/µm")
