"""What an instrument tells of itself: the header of a frame, the read-back after a request. Never the truth."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.messages import Optics, Outcome

if TYPE_CHECKING:
    from calibration.twin.microscope import VirtualMicroscope

ELECTRON_C = 1.602e-19


@dataclass(frozen=True)
class Applied:
    """What became of a request: the outcome and the values read back."""

    outcome: Outcome
    working_distance_m: float
    stigmator_x: float
    stigmator_y: float
    brightness: float
    contrast: float
    optics_epoch: int
    scene_epoch: int
    t_settled_ns: int


def applied(scope: "VirtualMicroscope", outcome: Outcome) -> Applied:
    c = scope.column
    return Applied(
        outcome=outcome,
        working_distance_m=c.working_distance_m,
        stigmator_x=c.stigmator_x,
        stigmator_y=c.stigmator_y,
        brightness=scope.brightness,
        contrast=scope.contrast,
        optics_epoch=c.epoch,
        scene_epoch=scope.scene_epoch,
        t_settled_ns=max(scope.settled_ns, scope.now_ns),
    )


def header(scope: "VirtualMicroscope", start_ns: int) -> Optics:
    """The header of the frame that ends now; start_ns: when the oldest scan that is part of it began."""
    s, c = scope.settings, scope.column
    return Optics(
        session=scope.session,
        source=s.source,
        # A frame during which something changed, or was still settling, belongs to no epoch.
        optics_epoch=c.epoch if start_ns >= c.settled_ns else None,
        scene_epoch=scope.scene_epoch if start_ns >= scope.scene_settled_ns else None,
        t_start_ns=start_ns,
        t_end_ns=scope.now_ns,
        averaging=s.averaging if scope.averages > 1 else "none",
        average_count=scope.averages,
        complete=True,
        rows_valid=s.shape[0] - s.databar_rows,
        working_distance_m=c.working_distance_m,
        stigmator_x=c.stigmator_x,
        stigmator_y=c.stigmator_y,
        pixel_size_m=s.pixel_size_m,
        pixel_size_y_m=s.pixel_size_m,
        horizontal_field_width_m=s.pixel_size_m * s.shape[1],
        full_width_px=s.shape[1],
        dwell_time_s=s.dwell_s,
        frame_time_s=scope.frame_time_s,
        accelerating_voltage_v=s.accelerating_voltage_v,
        landing_energy_ev=s.accelerating_voltage_v,
        beam_current_a=scope.electrons_per_pixel * ELECTRON_C / s.dwell_s,
        semi_convergence_angle_rad=s.alpha_rad if s.tell_alpha else None,
        lens_mode="high resolution",
        brightness=scope.brightness,
        contrast=scope.contrast,
        bits_significant=s.bits,
        full_scale=float(2**s.bits - 1),
        gamma=s.gamma,
        inverted=False,
        stage_x_m=scope.site * 50e-6,
        stage_y_m=0.0,
        stage_z_m=0.0,
        stage_rotation_rad=0.0,
        stage_tilt_rad=0.0,
        stage_moving=start_ns < scope.scene_settled_ns and scope.site > 0,
        stage_linked=False,
        beam_shift_x_m=0.0,
        beam_shift_y_m=0.0,
        scan_rotation_rad=0.0,
        dynamic_focus=False,
        tilt_correction=False,
        blanked=scope.blanked,
        frozen=scope.frozen and scope.tell_frozen,
        auto_function_active=scope.auto_function_active,
        inspect=False,
        databar_rows=s.databar_rows,
    )
