"""What is told of focus with each frame: the routine and what the model read in, the message's body out. Pure."""

from agent.control.routine import Routine
from agent.messages import Findings, FocusState
from engines.score_scale import ScoreScale, on_scale


def focus_state(routine: Routine, findings: Findings, *, own: bool, scale: ScoreScale | None) -> FocusState:
    """own: the frame is one that focus uses; the estimate belongs to no other. scale: an operator's, of the score."""
    found = routine.estimate if own else None
    answered = found is not None and found.answered
    ax, ay = (found.astigmatism_m or (None, None)) if found else (None, None)
    return FocusState(
        phase=routine.phase,
        score=on_scale(scale, findings.score),
        blur_px=findings.blur_px,
        blur_uncertainty_px=findings.blur_uncertainty_px,
        content=findings.content,
        defocus_m=found.defocus_m if found and answered else None,
        sigma_m=found.sigma_m if found else None,
        astigmatism_x_m=ax,
        astigmatism_y_m=ay,
        sigma_astigmatism_m=found.sigma_astigmatism_m if found else None,
        half_depth_of_focus_m=found.half_depth_of_focus_m if found else None,
        p_wrong_direction=found.p_wrong_direction if found else None,
        evidence_frames=routine.spent,
    )
