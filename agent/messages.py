"""The nouns. Frozen structs that travel between stages; no dict crosses a stage, no unit is unsaid.

SI units, in the names. Image axes: x right, y down; angles from +x towards +y. Defocus z = working distance minus
in-focus working distance: positive = focused below the surface. Unknown is None, never 0.
"""

from enum import StrEnum
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from engines.readings import DepthMap

SOURCES = 16  # columns times detectors; a producer that invents sources must not fill the memory
NOT_BUILT = "shape_not_built"  # of FLAG_CODES
NO_REFERENCE = "no_reference"  # of FLAG_CODES
RECIPE_CODES = ("recipe_doubtful", "defect_density", "crops_unavailable")  # likewise
Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels of the frame; x1 and y1 exclusive


class Mode(StrEnum):
    """What the agent may do (design, section 2)."""

    OBSERVE = "observe"
    SUGGEST = "suggest"
    CONTROL = "control"
    HOLD = "hold"


class Lane(StrEnum):
    """Live frames are latest-wins and may steer; inspected frames are never skipped and never steer."""

    LIVE = "live"
    INSPECT = "inspect"


class Kind(StrEnum):
    """What a suggestion asks for."""

    PROBE = "probe"
    CORRECT = "correct"
    VERIFY = "verify"
    RESTORE = "restore"
    EXPOSURE = "exposure"
    ACQUIRE = "acquire"


class Outcome(StrEnum):
    """What a controller did with a suggestion."""

    APPLIED = "applied"
    CLIPPED = "clipped"
    REJECTED = "rejected"
    SUPERSEDED = "superseded"
    EXPIRED = "expired"
    FAILED = "failed"


class Phase(StrEnum):
    """Where the focus routine stands."""

    IDLE = "idle"  # not asked to steer, or nothing is wrong
    MEASURING = "measuring"  # gathering frames where the microscope stands
    PROBING = "probing"
    CORRECTING = "correcting"
    VERIFYING = "verifying"
    CONVERGED = "converged"
    HELD = "held"


class Optics(msgspec.Struct, frozen=True, kw_only=True):
    """The instrument's state as the frame's header tells it; every field alone may be unknown."""

    session: str | None = None
    source: str | None = None
    optics_epoch: int | None = None
    scene_epoch: int | None = None
    t_start_ns: int | None = None  # producer's clock, never compared with ours
    t_end_ns: int | None = None
    averaging: str | None = None  # none, line, frame, recursive
    average_count: int | None = None
    complete: bool | None = None
    rows_valid: int | None = None
    working_distance_m: float | None = None
    stigmator_x: float | None = None
    stigmator_y: float | None = None
    stigmator_unit: str | None = None
    pixel_size_m: float | None = None  # resolved by the wire from whatever gives it
    pixel_size_y_m: float | None = None
    horizontal_field_width_m: float | None = None
    full_width_px: int | None = None
    roi_px: tuple[int, int, int, int] | None = None
    magnification: float | None = None
    magnification_reference_width_m: float | None = None
    dwell_time_s: float | None = None
    frame_time_s: float | None = None
    accelerating_voltage_v: float | None = None
    landing_energy_ev: float | None = None
    beam_current_a: float | None = None
    aperture_m: float | None = None
    semi_convergence_angle_rad: float | None = None
    lens_mode: str | None = None
    brightness: float | None = None
    contrast: float | None = None
    bits_significant: int | None = None
    full_scale: float | None = None
    gamma: float | None = None
    inverted: bool | None = None
    stage_x_m: float | None = None
    stage_y_m: float | None = None
    stage_z_m: float | None = None
    stage_rotation_rad: float | None = None
    stage_tilt_rad: float | None = None
    stage_moving: bool | None = None
    stage_linked: bool | None = None
    beam_shift_x_m: float | None = None
    beam_shift_y_m: float | None = None
    scan_rotation_rad: float | None = None
    dynamic_focus: bool | None = None
    tilt_correction: bool | None = None
    blanked: bool | None = None
    frozen: bool | None = None
    auto_function_active: bool | None = None
    inspect: bool | None = None
    recipe: str | None = None
    lot: str | None = None
    wafer: str | None = None
    die_x: int | None = None
    die_y: int | None = None
    databar_rows: int | None = None


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """One picture as it came off the wire, with what its header said."""

    number: int
    pixels: NDArray[Any]  # (h, w) uint8, uint16 or float32; read-only
    optics: Optics
    lane: Lane
    received_ns: int  # the agent's monotonic clock
    bad_fields: tuple[str, ...] = ()  # header fields that were unreadable and read as None

    @property
    def source(self) -> str:
        return self.optics.source or ""

    @property
    def reference(self) -> "FrameRef":
        o = self.optics
        return FrameRef(
            number=self.number,
            session=o.session,
            source=o.source,
            optics_epoch=o.optics_epoch,
            scene_epoch=o.scene_epoch,
            t_start_ns=o.t_start_ns,
            lane=self.lane,
        )


class FrameRef(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a frame that every message about it repeats."""

    number: int
    session: str | None = None
    source: str | None = None
    optics_epoch: int | None = None
    scene_epoch: int | None = None
    t_start_ns: int | None = None
    lane: Lane = Lane.LIVE


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What one live frame says about focus: everything the estimator may know of it."""

    frame: int
    session: str | None
    source: str
    optics_epoch: int | None
    scene_epoch: int | None
    t_start_ns: int
    working_distance_m: float
    stigmator_x: float
    stigmator_y: float
    pixel_size_m: float
    pixel_size_y_m: float
    semi_convergence_angle_rad: float | None
    landing_energy_ev: float | None
    frame_time_s: float | None
    centres_px: NDArray[np.float32]  # (patch, 2) x, y from the frame's centre
    spectra: NDArray[np.complex64]  # (patch, 256, 129) half-plane of the windowed patches
    noise: NDArray[np.float32]  # (129,) variance of the noise in a sample of `spectra`, by column
    independent: float = 0.4  # share of the samples that are independent of one another
    averages: int = 1
    grown: float = 0.0  # magnification above that of the reference working distance, where it is known and still in
    place_sigma_m: float = 0.0  # of the working distance, where play leaves open where the lens stood
    coarse: "Evidence | None" = None  # the same frame at a quarter of the resolution: what is far out of focus


class FocusState(msgspec.Struct, frozen=True, kw_only=True):
    """What the agent knows of focus, as told under topic `focus`; numbers are None where unknown."""

    phase: Phase
    score: float | None = None  # 0..10
    blur_px: float | None = None  # equivalent Gaussian sigma, geometric mean of the axes
    blur_uncertainty_px: float | None = None
    content: float | None = None  # 0..1: is there enough in the picture to judge
    defocus_m: float | None = None
    sigma_m: float | None = None
    astigmatism_x_m: float | None = None
    astigmatism_y_m: float | None = None
    sigma_astigmatism_m: float | None = None
    half_depth_of_focus_m: float | None = None
    p_wrong_direction: float | None = None
    evidence_frames: int = 0


class Suggestion(msgspec.Struct, frozen=True, kw_only=True):
    """A change the agent asks for. Absolute values, with the deltas they amount to."""

    id: str
    kind: Kind
    based_on_frames: tuple[int, ...]
    working_distance_m: float | None = None
    delta_working_distance_m: float | None = None
    stigmator_x: float | None = None
    stigmator_y: float | None = None
    delta_stigmator_x: float | None = None
    delta_stigmator_y: float | None = None
    brightness: float | None = None
    contrast: float | None = None
    sigma_working_distance_m: float | None = None
    sigma_stigmator: float | None = None
    p_wrong_direction: float | None = None
    half_depth_of_focus_m: float | None = None
    limits_applied: tuple[str, ...] = ()
    reason: str = ""
    restore_to: float | None = None  # working distance, m: the last verified position
    valid_for_s: float = 5.0
    acquire: str | None = None  # kind acquire: which frame would help


class Flag(msgspec.Struct, frozen=True, kw_only=True):
    """A condition of the agent or the stream that begins or ends."""

    code: str
    state: str  # raised, cleared
    severity: str  # info, warning, error
    detail: str = ""
    frame: int | None = None  # where it concerns one frame other than the one decided on


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """The agent stops advising (begin) or resumes (end)."""

    state: str  # begin, end
    reason: str
    since_ns: int  # wall clock


class Level(msgspec.Struct, frozen=True, kw_only=True):
    """What one level of the cascade said of a defect: see engines/cascade_levels.py."""

    level: str  # defect, kind, noise, leaf
    said: str
    probability: float  # that it is right


class Defect(msgspec.Struct, frozen=True, kw_only=True):
    """One defect found in a frame. `name` travels as `class`."""

    name: str = msgspec.field(name="class")
    path: tuple[str, ...]  # down the tree, from the root: defect, large, bridge
    box_px: Box
    confidence: float
    levels: tuple[Level, ...] = ()  # of the cascade, in the order they were asked; empty: it was not asked
    size_m: float | None = None  # longer side of the box
    height_m: float | None = None  # of its middle above its surroundings
    stage_x_m: float | None = None  # where the stage must stand for it to be centred: see agent/placing.py
    stage_y_m: float | None = None


class Histogram(msgspec.Struct, frozen=True, kw_only=True):
    """How a frame uses the grey levels it has; shares and levels of full scale, brighter = larger."""

    at_black: float  # share of the pixels
    at_white: float
    low: float  # level below which 0.5 % of the pixels lie
    middle: float
    high: float  # ... above which
    spread: float  # standard deviation
    noise: float  # standard deviation of what differs from pixel to pixel


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What perception made of one frame: readings, evidence, or the reason there is none."""

    score: float | None = None
    blur_px: float | None = None
    blur_uncertainty_px: float | None = None
    content: float | None = None
    evidence: Evidence | None = None
    refused: str | None = None  # why this frame is no evidence: one of the closed list
    flags: tuple[str, ...] = ()
    mean_level: float | None = None  # of full scale
    histogram: Histogram | None = None  # None: not looked for
    depth: DepthMap | None = None  # of the picture without its databar
    defects: tuple[Defect, ...] | None = None  # None: not looked for
    unseen: str | None = None  # why depth and defects were wanted and could not be read
    unreferenced: str | None = None  # why the reference that a recipe counts on is missing; read all the same
    shown: "Shown | None" = None  # to the defect model, where it was asked
    models: tuple[str, ...] = ()  # that read this frame
    took_s: dict[str, float] = {}


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """What a defect model saw, for rules that look at pixels and for crops. Without the data bar."""

    image: NDArray[np.uint8]  # (h, w)
    reference: NDArray[np.uint8] | None = None  # (h, w) in the same grey levels


class ReferenceKind(StrEnum):
    """What a frame to inspect is compared with."""

    SELF = "self"  # its own repetition
    GOLDEN = "golden"  # another frame of the same place of the design
    CAD = "cad"  # the design as the virtual microscope draws it
    NONE = "none"


class ReferenceSource(msgspec.Struct, frozen=True, kw_only=True):
    """Where the reference of a frame comes from; made by whoever knows its recipe."""

    kind: ReferenceKind = ReferenceKind.SELF
    pixels: NDArray[np.uint8] | None = None  # (h, w) of golden and cad, of the frame's size without its databar
    expected: bool = False  # a recipe counts on it: a frame in which nothing repeats is then flagged `no_reference`


class Place(msgspec.Struct, frozen=True):
    """What was measured at one place of a frame, beside the picture."""

    frame: int
    session: str | None  # None: of any
    x_px: float
    y_px: float
    shares: tuple[float, ...]  # of engines.cascade_features.ELEMENTS; 0 where an element was not measured


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What the decision asks of perception for one frame."""

    evidence: bool = False
    reference_working_distance_m: float | None = None  # evidence is brought to the magnification it has there
    scale_per_m: float = 0.0  # change of magnification with working distance, of the certificate
    inspection: bool = False  # depth and defects
    histogram: bool = False
    height_scale: float | None = None  # of the certificate; None: heights stay as trained
    reference: ReferenceSource = ReferenceSource()  # for a defect model that compares
    threshold: float | None = None  # of the recipe, for defects; None: the model's own
    sizes_m: tuple[float, float] | None = None  # of the recipe: where small ends and large begins
    nuisances: bool = False  # finds will be looked at again: what a reference shows tells a scan's own from a defect
    places: tuple[Place, ...] = ()  # of this frame, for a cascade


class Ack(msgspec.Struct, frozen=True, kw_only=True):
    """A controller's answer to a suggestion, with what it read back."""

    suggestion: str
    outcome: Outcome
    working_distance_m: float | None = None
    stigmator_x: float | None = None
    stigmator_y: float | None = None
    brightness: float | None = None
    contrast: float | None = None
    optics_epoch: int | None = None
    scene_epoch: int | None = None
    t_settled_ns: int | None = None  # producer's clock


class ModeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A controller or operator asks for a mode; control needs a lease."""

    mode: Mode
    lease_s: float | None = None
    controller: str | None = None


class Reload(msgspec.Struct, frozen=True):
    """Read models and certificate again between two frames."""


Asked = Ack | ModeRequest | Reload


class Books(msgspec.Struct, frozen=True, kw_only=True):
    """Where every received message went. received = processed + superseded + uninspected + sum(malformed) + waiting."""

    received: int = 0
    processed: int = 0
    superseded: int = 0
    uninspected: int = 0
    malformed: dict[str, int] = {}
    waiting: int = 0

    def balanced(self) -> bool:
        spent = self.processed + self.superseded + self.uninspected + sum(self.malformed.values())
        return self.received == spent + self.waiting


class Heights(msgspec.Struct, frozen=True, kw_only=True):
    """A depth map to be told, and the frame it was read from: it may have waited for its turn."""

    frame: FrameRef
    height_m: NDArray[np.float32]  # (h, w) above the field's lowest plateau
    calibrated: bool  # does a certificate vouch for the scale?
    models: tuple[str, ...] = ()
    took_s: dict[str, float] = {}


class Inspected(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a frame whose defects are told: under which rules, where on the wafer, and how it looked."""

    recipe: str | None = None  # None: no recipe, or one that is not known here
    dropped: dict[str, int] = {}  # finds that a rule of the recipe left out, by rule
    shape_px: tuple[int, int] | None = None  # (h, w) without the data bar
    pixel_size_m: float | None = None
    lot: str | None = None
    wafer: str | None = None
    die_x: int | None = None
    die_y: int | None = None
    crops: tuple[NDArray[np.uint8], ...] = ()  # (h, w) of the first defects, in their order; of frames to inspect


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """All that one turn of the loop says. Fields are sent in the order they stand here."""

    now_ns: int
    mode: Mode
    frame: FrameRef | None = None
    flags: tuple[Flag, ...] = ()
    holds: tuple[Hold, ...] = ()
    focus: FocusState | None = None
    defects: tuple[Defect, ...] | None = None
    inspected: Inspected | None = None  # with defects
    suggestion: Suggestion | None = None
    depth: Heights | None = None
    acks: tuple[Ack, ...] = ()  # for the journal
    models: tuple[str, ...] = ()
    took_s: dict[str, float] = {}


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """Who may be steered for, and for how long yet."""

    controller: str | None
    expires_in_s: float


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """The hold that stands now."""

    reason: str
    since_ns: int  # wall clock


class Dose(msgspec.Struct, frozen=True, kw_only=True):
    """Frames a focus routine has spent on this site, of those it may."""

    frames: int = 0
    budget: int | None = None


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """How long one stage takes."""

    p50_s: float
    p99_s: float


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The agent on one page, as told under topic `status` and to who asks. Ages are None before the first event."""

    mode: Mode
    phase: Phase = Phase.IDLE
    lease: Lease | None = None
    hold: Standing | None = None
    frames: Books = Books()
    loop_age_s: float | None = None  # since the last turn ended
    receive_age_s: float | None = None  # since the receive thread ticked
    last_frame_age_s: float | None = None
    uptime_s: float | None = None
    backends: dict[str, str] = {}  # by model
    backend_reasons: dict[str, str] = {}  # by model: why this one and no better, precision and shapes, one line
    models: tuple[str, ...] = ()  # name@sha
    dose: Dose = Dose()
    timings: dict[str, Timing] = {}  # by stage
    flags: tuple[str, ...] = ()  # codes that stand now
    allow_plain_tcp: bool = False
    dropped: int = 0  # messages that found the sender's queue full or could not be encoded
    boot: str | None = None


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What the loop leaves behind after a turn for the other threads to answer from."""

    status: Status
    limits: dict[str, float | int | None]
    now_ns: int  # when the turn ended, monotonic


# The closed list of the design: why the agent holds. Flag codes are these and a few more.
HOLD_REASONS = tuple(
    """no_frames stale blank saturated featureless noise_only frozen averaging nonlinear inconsistent uncalibrated
    no_pixel_size no_ack rejected clipped actuator_dead actuator_inverted operator auto_function stage_moving
    stage_linked not_electron limit_step limit_absolute limit_cumulative budget lease_expired unknown_recipe clock_jump
    frame_repeated two_sessions shape_not_built engine_error engine_hang journal_unavailable shutdown no_epochs
    sign_unknown ambiguous frame_jumped settling""".split()  # noqa: SIM905
)
FLAG_CODES = (*HOLD_REASONS, "malformed", "bad_field", "uninspected", NO_REFERENCE, *RECIPE_CODES)
DEFECT_CLASSES = tuple(
    """pit particle bridge microbridge break necking missing_contact closed_contact merged_contact residue collapse
    scratch void other""".split()  # noqa: SIM905
)
