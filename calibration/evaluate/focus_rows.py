"""One episode of one method as numbers, and what it was. Lengths in half depths of focus (h_eff) unless named."""

from dataclasses import dataclass

from calibration.evaluate.focus_method import End


@dataclass(frozen=True)
class Said:
    """An estimate beside the truth of its frame; the first of an episode has evidence 2 or more."""

    evidence: int
    defocus_h: float
    sigma_h: float
    true_h: float
    astigmatism_h: tuple[float, float] | None = None
    sigma_astigmatism_h: float | None = None
    true_astigmatism_h: tuple[float, float] | None = None
    floor_h: float | None = None  # Cramer and Rao's least sigma of defocus from the same frames

    @property
    def off(self) -> float:
        """Of its own sigma, signed."""
        return (self.defocus_h - self.true_h) / self.sigma_h if self.sigma_h > 0.0 else float("inf")


@dataclass(frozen=True, kw_only=True)
class Row:
    """What became of one episode."""

    method: str
    number: int
    fault: str | None
    specimen: str
    textured: bool
    stratum: int
    snr: float
    h_m: float
    pixel_size_m: float
    alpha_rad: float
    start_h: float  # signed
    start_astigmatism_h: float
    hysteresis_h: float
    end: End
    reason: str
    residual_h: float  # signed
    astigmatism_h: float  # left, its size
    moved_h: float  # untouched focus: how far the world itself moved it (a stage move)
    frames: int  # used as evidence, verify included
    scans: int  # that the specimen bore
    electrons: float  # primary, all scans
    seconds: float  # virtual
    moves: int
    wrong_moves: int  # corrections that took it further away
    said: tuple[Said, ...]
    took_ms: tuple[float, ...]  # processor time from a frame to what is said of it, evidence only
    method_s: float  # processor time of the method
    twin_s: float  # ... and of the microscope

    @property
    def untouched_h(self) -> float:
        """How far from focus it would have been without the method."""
        return abs(self.start_h + self.moved_h)

    @property
    def worse_h(self) -> float:
        """Further from focus than if nobody had done anything."""
        return abs(self.residual_h) - self.untouched_h
