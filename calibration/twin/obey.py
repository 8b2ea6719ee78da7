"""A suggestion in, what became of it out: compare-and-set on the microscope, inside its own limits."""

import math
import re
from typing import Any

from agent.messages import Outcome
from calibration.twin.microscope import VirtualMicroscope
from calibration.twin.readback import Applied, applied

VALID_FOR_S = 5.0  # where a suggestion does not say


def obey(scope: VirtualMicroscope, told: dict[str, Any], *, age_s: float) -> Applied:
    """Apply the suggestion, or say why not. `age_s` counts from its receipt."""
    if age_s > (_number(told, "valid_for_s") or VALID_FOR_S):
        return applied(scope, Outcome.EXPIRED)
    if not current(scope, told):
        return applied(scope, Outcome.SUPERSEDED)
    outcomes = []
    for change in (_focus, _stigmate, _expose):
        done = change(scope, told)
        if done is Outcome.REJECTED:
            return applied(scope, done)
        outcomes.append(done)
    return applied(scope, Outcome.CLIPPED if Outcome.CLIPPED in outcomes else Outcome.APPLIED)


def current(scope: VirtualMicroscope, told: dict[str, Any]) -> bool:
    """Was the suggestion made for the state the microscope is in now?"""
    seen = (told.get("session"), told.get("optics_epoch"), told.get("scene_epoch"))
    return seen == (scope.session, scope.optics_epoch, scope.scene_epoch)


def acknowledgement(told: dict[str, Any], done: Applied) -> dict[str, Any]:
    """The fields of an `ack` request."""
    return {
        "suggestion": told.get("id"),
        "outcome": done.outcome.value,
        "working_distance_m": done.working_distance_m,
        "stigmator_x": done.stigmator_x,
        "stigmator_y": done.stigmator_y,
        "brightness": done.brightness,
        "contrast": done.contrast,
        "optics_epoch": done.optics_epoch,
        "scene_epoch": done.scene_epoch,
        "t_settled_ns": done.t_settled_ns,
    }


def _focus(scope: VirtualMicroscope, told: dict[str, Any]) -> Outcome:
    wanted = _number(told, "working_distance_m")
    return Outcome.APPLIED if wanted is None else scope.set_working_distance(wanted).outcome


def _stigmate(scope: VirtualMicroscope, told: dict[str, Any]) -> Outcome:
    x, y = _number(told, "stigmator_x"), _number(told, "stigmator_y")
    if x is None and y is None:
        return Outcome.APPLIED
    column = scope.column
    return scope.set_stigmators(column.stigmator_x if x is None else x, column.stigmator_y if y is None else y).outcome


def _expose(scope: VirtualMicroscope, told: dict[str, Any]) -> Outcome:
    brightness, contrast, averages = _number(told, "brightness"), _number(told, "contrast"), _averages(told)
    if brightness is None and contrast is None and averages is None:
        return Outcome.APPLIED
    return scope.set_exposure(brightness=brightness, contrast=contrast, averages=averages).outcome


def _averages(told: dict[str, Any]) -> int | None:
    """How many frames an `acquire` suggestion wants averaged, if it names a number."""
    wish = told.get("acquire")
    named = re.search(r"averag\w*\D{0,12}(\d+)|(\d+)\D{0,12}averag", wish) if isinstance(wish, str) else None
    return int(named[1] or named[2]) if named else None


def _number(told: dict[str, Any], name: str) -> float | None:
    value = told.get(name)
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if good and value is not None else None
