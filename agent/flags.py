"""The table of every condition the agent can raise: how bad it is, whether it stops advice, and what to do about it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Condition:
    """`holds`: while it stands no suggestion is made. `latched`: a good frame alone does not end it."""

    severity: str
    advice: str
    holds: bool = True
    latched: bool = False


def _stream(advice: str, severity: str = "warning") -> Condition:
    return Condition(severity, advice)


def _routine(advice: str) -> Condition:
    return Condition("warning", advice, latched=True)


def _note(advice: str, severity: str = "info") -> Condition:
    return Condition(severity, advice, holds=False)


CONDITIONS: dict[str, Condition] = {
    # the stream
    "no_frames": _stream("no frame has come yet: is the producer running, and does frames.endpoint name it?"),
    "stale": _stream("no frame for several frame times: is the scan stopped?"),
    "no_epochs": _stream(
        "the header lacks epochs, start time or working distance: frames are shown, not used to focus"
    ),
    "no_pixel_size": _stream("send pixel_size_m, or a field width or magnification with its reference"),
    "two_sessions": _stream("frames of an ended session came back: are two producers on one endpoint?", "error"),
    "clock_jump": _stream("the producer's clock went back"),
    "frame_repeated": _note("a frame number came twice; the second is not used", "warning"),
    "frame_jumped": _note("frame numbers went back, or forward by ten thousand", "warning"),
    "settling": _note("the optics have not settled since the last change"),
    # the picture
    "blank": _stream("the picture is empty or the beam blanked"),
    "saturated": _stream("more than a fifth of the pixels are at an end of the scale: lower contrast or brightness"),
    "frozen": _stream("the same pixels again: is the scan frozen?"),
    "inconsistent": _stream("the picture contradicts its header"),
    "averaging": _stream("an average still holds an older picture, or the scan is partial: wait or use frame averages"),
    "nonlinear": _stream("a look-up table bends the grey levels: use gamma 1"),
    "not_electron": _stream("ion frames are never evidence for the electron column's focus"),
    "stage_moving": _stream("the stage is moving"),
    "stage_linked": _stream("working distance moves the stage: unlink it before focus may be controlled", "error"),
    "auto_function": _stream("the microscope's own auto function is running"),
    "shape_not_built": _note("no engine for this shape, a slower backend serves it: add it to engines.shapes, build"),
    "no_reference": _note("no reference fits the frame: defects are read from it alone; mend the recipe's reference"),
    "recipe_doubtful": _note("a recipe cannot be followed as it is written: its detail says what to do", "warning"),
    "defect_density": _note("too many defects in the last inspected frames: look at the lot", "warning"),
    # the routine
    "featureless": _routine("nothing to focus on here: average more frames, or go to a site with texture"),
    "noise_only": _routine("noise hides the specimen: average more frames or raise the dose"),
    "ambiguous": _routine("the frames allow focus on either side"),
    "sign_unknown": _routine("one working distance cannot tell the sign"),
    "uncalibrated": _routine(
        "the convergence angle is unknown: give a certificate, or let a bracket of three be taken"
    ),
    "budget": _routine("the dose for this site is spent"),
    "limit_step": _note("a suggestion was shortened to the largest step"),
    "limit_absolute": _routine("focus lies outside the allowed working distances"),
    "limit_cumulative": _routine("focus lies further away than the agent may go"),
    "no_ack": _routine("a suggestion was not acknowledged: is the controller alive?"),
    "rejected": _routine("the controller rejected a suggestion"),
    "clipped": _routine("the controller could not go as far as suggested"),
    "actuator_dead": Condition("error", "the read-back changed, the picture did not", latched=True),
    "actuator_inverted": Condition("error", "the picture changed the other way", latched=True),
    "operator": _stream("somebody turned a knob: yielding", "info"),
    # the agent
    "lease_expired": _note("control was not renewed: suggestions only", "warning"),
    "unknown_recipe": _stream("the frame names a recipe this agent does not know: observed only"),
    "engine_error": _stream("a model failed on this frame", "error"),
    "engine_hang": Condition("error", "the loop stopped turning: the process ends and is restarted"),
    "journal_unavailable": Condition("error", "the journal cannot be written: free the disk or mend its permissions"),
    "crops_unavailable": _note("crops of defects cannot be written; their rows are: free the disk", "warning"),
    "shutdown": _stream("the agent was told to stop", "info"),
    "malformed": _note("a message could not be read", "warning"),
    "bad_field": _note("a header field could not be read and counts as unknown", "warning"),
    "uninspected": _note("a frame was to be inspected and was not", "error"),
}


def severity(code: str) -> str:
    return CONDITIONS[code].severity


def holds(code: str) -> bool:
    return CONDITIONS[code].holds
