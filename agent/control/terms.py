"""What the instrument and the configuration allow the decision, in one piece: a reload replaces it as such."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from agent.control.envelope import Envelope
from agent.control.instrument import Instrument
from agent.control.recipe import Recipe
from agent.messages import Evidence
from engines.score_scale import ScoreScale


@dataclass(frozen=True)
class Terms:
    """Certificate and settings as the decision needs them."""

    instrument: Instrument
    envelope: Envelope
    settle_s: float = 0.2
    dose_frames: int = 12
    p_wrong_direction: float = 0.02
    operator_yield_s: float = 10.0
    expose: bool = True  # advise on brightness and contrast
    source: str = ""  # empty: the first that sends frames
    stale_after_s: float = 5.0
    stale_after_frame_times: float = 5.0
    recipes: Mapping[str, Recipe] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)  # recipes that cannot be used, and why
    defect_threshold: float = 0.0  # the defect model's own
    live_budget: float = 0.25  # share of the time that depth and defects may take on live frames
    publish_depth: bool = False
    height_scale: float | None = None  # of the certificate: None where nothing vouches for heights
    score_scale: ScoreScale | None = None  # an operator's: what is told of a score; decisions keep the model's own

    def instrument_for(self, evidence: Evidence) -> Instrument:
        """The certificate's, or else what the header tells of the angle."""
        header, known = evidence.semi_convergence_angle_rad, self.instrument
        known = known if known.alpha_rad is not None or header is None else replace(known, alpha_rad=header)
        # Evidence comes at one magnification when the certificate knows how it changes.
        return replace(known, scale_per_m=0.0) if known.scale_per_m is not None else known
