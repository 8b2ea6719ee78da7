"""The constants of a focus calibration in words for people: um, mrad, %, each with one standard deviation."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from calibration.certificate import Certificate

if TYPE_CHECKING:
    from calibration.sweep.run import Swept

UM, MRAD, NM, MS = 1e6, 1e3, 1e9, 1e3


@dataclass(frozen=True)
class Figure:
    """One line of the table."""

    name: str
    value: str
    doubt: str
    remark: str


def figures(swept: "Swept", certificate: Certificate) -> list[Figure]:
    return [*_lens(swept, certificate), *_stigmators(swept), *_picture(swept, certificate)]


def _lens(swept: "Swept", certificate: Certificate) -> list[Figure]:
    alpha, sigma = certificate.alpha_rad, certificate.alpha_sigma_rad
    up, down = swept.legs
    settling = swept.settling
    return [
        Figure(
            "Convergence angle",
            f"{alpha * MRAD:.3f} mrad",
            f"{sigma * MRAD:.3f} mrad ({100 * sigma / alpha:.1f} %)",
            signed(f"upwards {up.found.alpha_rad * MRAD:.3f}, downwards {down.found.alpha_rad * MRAD:.3f} mrad"),
        ),
        Figure(
            "Half a depth of focus",
            f"{swept.optic.half_depth_of_focus_m * UM:.3f} um",
            "",
            f"with a focused probe of {certificate.fw50_m * NM:.1f} nm by theory, which is not measured here"
            if certificate.fw50_m
            else "by pixel size and angle alone",
        ),
        Figure(
            "Play of the working distance",
            f"{certificate.hysteresis_m * UM:.3f} um",
            f"{swept.hysteresis_sigma_m * UM:.3f} um",
            f"{certificate.hysteresis_m / swept.optic.half_depth_of_focus_m:.2f} half depths of focus",
        ),
        Figure(
            "Settling time",
            f"{settling.settle_s * MS:.0f} ms",
            f"{settling.sigma_s * MS:.0f} ms",
            f"after a change of {(settling.to_m - settling.from_m) * UM:.1f} um; a frame takes "
            f"{settling.frame_time_s * MS:.0f} ms",
        ),
    ]


def _stigmators(swept: "Swept") -> list[Figure]:
    found = swept.stigmation
    shift = swept.displacement
    rows = []
    for j, knob in enumerate("xy"):
        for i, axis in enumerate("xy"):
            rows.append(
                Figure(
                    f"Astigmatism {axis} per unit of stigmator {knob}",
                    signed(f"{found.matrix_m[i, j] * UM:+.2f} um"),
                    f"{found.matrix_sigma_m[i, j] * UM:.2f} um",
                    "",
                )
            )
    for j, knob in enumerate("xy"):
        value, sigma = found.defocus_m[j], found.defocus_sigma_m[j]
        rows.append(
            Figure(
                f"Defocus per unit of stigmator {knob}",
                signed(f"{value * UM:+.2f} um"),
                f"{sigma * UM:.2f} um",
                _whether(value, sigma),
            )
        )
        for i, axis in enumerate("xy"):
            value, sigma = float(shift.per_unit[i, j]), float(shift.per_unit_sigma[i, j])
            rows.append(
                Figure(
                    f"Image shift {axis} per unit of stigmator {knob}",
                    signed(f"{value:+.2f} px"),
                    f"{sigma:.2f} px",
                    _whether(value, sigma),
                )
            )
    return rows


def _picture(swept: "Swept", certificate: Certificate) -> list[Figure]:
    shift, scale = swept.displacement, swept.scale
    rows = [
        Figure(
            f"Image shift {axis} with working distance",
            signed(f"{shift.per_m[i] / UM:+.4f} px/um"),
            f"{shift.per_m_sigma[i] / UM:.4f} px/um",
            "",
        )
        for i, axis in enumerate("xy")
    ]
    alone = 1.0 / swept.legs[0].in_focus_m
    remark = f"{scale.per_m / alone:.2f} of what an uncorrected column has (1 / working distance)"
    if not scale.resolved:
        remark = "not resolved at this pixel size: the certificate says 0"
    rows.append(
        Figure(
            "Scale with working distance",
            signed(f"{1e-4 * scale.per_m:+.4f} %/um"),
            f"{1e-4 * scale.sigma_per_m:.4f} %/um",
            remark,
        )
    )
    return rows


def _whether(value: float, sigma: float) -> str:
    return "none that could be seen" if abs(value) < 2.0 * sigma else ""


def signed(told: str) -> str:
    """With minus signs that are ones."""
    return told.replace("-", "−")
