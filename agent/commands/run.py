"""`beamside run`: the agent. Wires everything together by constructor; nothing else here."""

import gc
import importlib.metadata
import logging
import os
import signal
import sys
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import typer
import zmq

from agent import settings as configuration
from agent.clock import Clock, SystemClock
from agent.commands.recipe_references import drawn
from agent.commands.reloading import Reloader
from agent.commands.score_scales import read_score_scale
from agent.control.envelope import Envelope
from agent.control.instrument import Instrument
from agent.crops import FOLDER, Crops
from agent.decide import Decider, Terms
from agent.errors import BeamsideError, ConfigurationError, EngineError
from agent.health import Health, MetricsPage, Notifier, Patience
from agent.journal import FILE, Journal
from agent.loop import Loop, Service
from agent.messages import Decision, Hold, Mode, Status
from agent.models import DefectModel
from agent.perceive import Perceiver
from agent.receive import Receiver
from agent.recipes import Known, Shelf
from agent.report import Identity, Reporter
from agent.requests import Requests
from agent.settings import Settings
from agent.wire import curve
from calibration.certificate import Certificate, CertificateError
from engines.autofocus import Autofocus
from engines.built import Built
from engines.cache import Cache
from engines.cascade import Cascade, load_cascade
from engines.defects import DefectFinder
from engines.depth import Depth
from engines.errors import BackendMissingError, CacheError, ModelError, PackageError
from engines.load import Loaded
from engines.load import load as load_engine

log = logging.getLogger(__name__)
Reader = TypeVar("Reader")

STEP_LIMIT_S, GPU_STEP_LIMIT_S = 10.0, 2.0  # a GPU that takes 2 s hangs
LEAVE_S = 0.5  # for a reload to end by itself; SIGTERM to exit is 2 s
CPU = "onnxruntime"  # the one backend that needs no device
FALLBACK_STEP_M, FALLBACK_CUMULATIVE_M = 100e-6, 200e-6  # without a certificate: 16 half depths at 2,000 x


def run(
    config: Annotated[Path | None, typer.Option(help="TOML file.")] = None,
    frames: Annotated[str, typer.Option(help="Endpoint of the frame stream.")] = "",
    advice: Annotated[str, typer.Option(help="Endpoint to publish advice on.")] = "",
    commands: Annotated[str, typer.Option(help="Endpoint to answer requests on.")] = "",
    certificate: Annotated[Path | None, typer.Option(help="The instrument's certificate.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document at the end.")] = False,
) -> None:
    """The agent: subscribes to frames, publishes focus advice and defects, answers commands, until SIGTERM."""
    settings = configuration.load(config, told(frames, advice, commands, certificate))
    logging.basicConfig(level=settings.health.log_level.upper(), format="%(levelname)s %(name)s: %(message)s")
    with ExitStack() as stack:
        loop = assemble(settings, SystemClock(), stack)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: loop.stopping.set())
        signal.signal(signal.SIGHUP, lambda *_: loop.reloading.set())
        try:
            serve(loop)
        except BeamsideError as error:
            stack.close()
            leave(loop, error)
            raise
    if as_json:
        print(msgspec.json.encode({"sent": loop.reporter.sent, "frames": loop.receiver.books()}).decode())
    leave(loop)


def told(frames: str, advice: str, commands: str, certificate: Path | None) -> dict[str, Any]:
    """The flags that were given, nested as the settings are."""
    given: dict[str, Any] = {}
    for name, endpoint in (("frames", frames), ("advice", advice), ("commands", commands)):
        if endpoint:
            given[name] = {"endpoint": endpoint}
    if certificate is not None:
        given["focus"] = {"certificate": certificate}
    return given


def serve(loop: Loop) -> None:
    """READY after the first status; at the end `hold begin shutdown` is the last message."""
    reason = "shutdown"
    loop.requests.publish(loop.snapshot())
    if loop.reporter.ready():
        loop.health.started("frames connected")
    gc.freeze()  # what is there now stays: the collector need not look through it while frames come
    try:
        loop.run()
    except EngineError:
        reason = "engine_error"
        raise
    finally:
        loop.health.stopping()
        loop.reporter.stop(reason, event=_last_words(loop, reason))


def leave(loop: Loop, error: BeamsideError | None = None) -> None:
    """A reload that is still under way is left behind. Python's own end would abort where it is inside a library."""
    if loop.reload.wait(LEAVE_S):
        return
    if error is not None:
        print(f"beamside: {error}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0 if error is None else error.exit_code)


def _last_words(loop: Loop, reason: str) -> int | None:
    """Name the frames that nobody inspected; the journal's number for the end of this boot."""
    hold = Hold(state="begin", reason=reason, since_ns=loop.clock.wall_ns())
    left = Decision(now_ns=loop.clock.now_ns(), mode=loop.decider.mode.mode, flags=tuple(loop.receiver.abandon()))
    numbers = loop.write(msgspec.structs.replace(left, holds=(hold,)))
    loop.reporter.send(left, numbers)
    return numbers.get(("hold", 0))


def assemble(settings: Settings, clock: Clock, stack: ExitStack) -> Loop:
    """Every part, started; the stack ends them in the right order. Raises ConfigurationError."""
    boot = uuid.uuid4().hex
    shelf = Shelf(settings.recipes.folder, drawn)
    serving = service(settings, boot, shelf)
    decider = Decider(serving.terms, base_mode=Mode(settings.focus.mode), boot=boot)
    frames, advice, commands = configuration.endpoints(settings)
    prepare_folders(settings)
    crops = Crops(configuration.state_dir(settings) / FOLDER, quota_bytes=settings.crops.quota_bytes)
    journal = Journal.open(configuration.state_dir(settings) / FILE, clock, boot=boot, crops=crops)
    stack.callback(journal.close)
    if not journal.healthy:
        decider.journal_failed(journal.reason or "journal")
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    stack.callback(context.term)
    guard = curve.guard(context, settings.keys.secret, settings.keys.allowed)
    if guard is not None:
        stack.callback(guard.close)
    receiver = Receiver(settings.frames, frames, context=context, clock=clock, guard=guard)
    health = Health(Notifier.from_environment(os.environ), clock, limit_s=serving.patience.usual_s)
    requests = Requests(
        commands,
        context=context,
        clock=clock,
        events=journal.read,
        books=receiver.books,
        timings=health.timings,
        guard=guard,
    )
    reporter = Reporter(
        settings.advice,
        advice,
        context=context,
        clock=clock,
        identity=Identity(agent=version(), boot=boot),
        status=requests.status,
        step_limit_s=health.limit_s,
        guard=guard,
    )
    for part in (receiver, requests, reporter):
        part.start()
        stack.callback(part.stop if isinstance(part, Reporter) else part.close)
    if settings.health.prometheus_port:
        stack.callback(MetricsPage(settings.health.prometheus_port, health.snapshot, receiver.books).close)
    return Loop(
        receiver,
        requests,
        service=serving,
        decider=decider,
        journal=journal,
        reporter=reporter,
        health=health,
        clock=clock,
        reload=Reloader(lambda: service(settings, boot, shelf), health, clock=clock),
    )


def service(settings: Settings, boot: str, shelf: Shelf) -> Service:
    """All that a reload replaces. Raises ConfigurationError."""
    perceiver, facts = models(settings)
    facts = msgspec.structs.replace(facts, boot=boot)
    allowed = terms_of(settings, perceiver.defects, shelf.read(_named(perceiver.defects)))
    return Service(perceiver, allowed, facts, patience(settings, facts))


def terms_of(settings: Settings, defects: DefectModel | None, known: Known) -> Terms:
    """With the recipes, and the threshold of the model that they are for. Raises ConfigurationError."""
    own = defects.threshold if isinstance(defects, DefectFinder) else 0.0
    return replace(terms(settings), recipes=known.recipes, refused=known.refused, defect_threshold=own)


def _named(model: DefectModel | None) -> str:
    return "" if model is None else model.name


def models(settings: Settings) -> tuple[Perceiver, Status]:
    """The models in service and what the status says of them. Raises ConfigurationError."""
    built = engines_built(settings)
    autofocus = reader(settings, "autofocus", Autofocus, built=built)
    depth = reader(settings, "depth", Depth, built=built)
    defects = reader(settings, "defects", DefectFinder, built=built)
    judge = cascade(settings)
    perceiver = Perceiver(
        autofocus,
        depth,
        defects,
        cascade=judge,
        share=built.share,
        lacks=lambda shape: any(model.lacks(shape) for model in (autofocus, depth, defects)),
        maps=settings.depth.publish,
    )
    facts = Status(
        mode=Mode(settings.focus.mode),
        backends={"autofocus": autofocus.backend, "depth": depth.backend, "defects": defects.backend},
        backend_reasons={"autofocus": autofocus.reason, "depth": depth.reason, "defects": defects.reason},
        models=perceiver.models,
        allow_plain_tcp=settings.frames.allow_plain_tcp,
    )
    return perceiver, facts


def cascade(settings: Settings) -> Cascade | None:
    """None where no package of it came. Raises ConfigurationError."""
    try:
        return load_cascade(settings.engines.models)
    except ModelError as error:
        raise ConfigurationError(str(error)) from error


def engines_built(settings: Settings) -> Built:
    """Where built engines are; the same for all models, so that they share each upload. Raises ConfigurationError."""
    try:
        return Built(Cache(configuration.state_dir(settings) / "engines"), shapes=settings.engines.shapes)
    except CacheError as error:
        raise ConfigurationError(str(error)) from error


def patience(settings: Settings, facts: Status) -> Patience:
    """How long the loop may be silent before the process ends."""
    told_s = settings.health.step_limit_s
    if told_s:
        return Patience(told_s, told_s)
    # A shape without an engine may be the processor's affair whatever serves the others.
    return Patience(STEP_LIMIT_S if CPU in facts.backends.values() else GPU_STEP_LIMIT_S, STEP_LIMIT_S)


def reader(settings: Settings, task: str, start: Callable[[Loaded], Reader], *, built: Built) -> Reader:
    """One model, in service. Raises ConfigurationError."""
    wanted = settings.engines
    try:
        loaded = load_engine(task, models=wanted.models, backend=wanted.backend, threads=wanted.threads, built=built)
        read = start(loaded)
    except (PackageError, BackendMissingError) as error:
        raise ConfigurationError(str(error)) from error
    log.info("%s on %s", loaded.manifest.label, loaded.reason)
    return read


def terms(settings: Settings) -> Terms:
    """Certificate and configuration as the decision needs them. Raises ConfigurationError."""
    focus = settings.focus
    known = read_certificate(settings)
    instrument = Instrument()
    if known is not None:
        instrument = Instrument(
            alpha_rad=known.alpha_rad,
            alpha_sigma_rad=known.alpha_sigma_rad,
            fw50_m=known.fw50_m,
            stigmator_matrix_m=known.stigmator_matrix_m,
            scale_per_m=known.scale_per_m,
            hysteresis_m=known.hysteresis_m,
        )
    return Terms(
        instrument=instrument,
        envelope=_envelope(settings, known),
        settle_s=known.settle_s if known else focus.settle_s,
        dose_frames=focus.dose_frames,
        p_wrong_direction=focus.p_wrong_direction,
        operator_yield_s=focus.operator_yield_s,
        expose=settings.exposure.advise,
        source=focus.source,
        stale_after_s=settings.frames.stale_after_s,
        stale_after_frame_times=settings.frames.stale_after_frame_times,
        live_budget=settings.engines.live_budget,
        publish_depth=settings.depth.publish,
        height_scale=known.height_scale if known else None,
        score_scale=read_score_scale(settings),
    )


def read_certificate(settings: Settings) -> Certificate | None:
    """None where there is none or it has expired: brackets of three then. Raises ConfigurationError."""
    path = settings.focus.certificate
    if path is None:
        return None
    try:
        known = Certificate.load(path)
        expired = known.expired(datetime.now(UTC))
    except (CertificateError, ValueError) as error:
        raise ConfigurationError(f"certificate {error}") from error
    if expired:
        log.warning("certificate %s expired on %s and is not used: calibrate again", path, known.expires)
        return None
    return known


def _envelope(settings: Settings, known: Certificate | None) -> Envelope:
    """On every side the smaller of what the settings and the certificate allow."""
    focus, limits = settings.focus, known.limits if known else None
    steps = [x for x in (focus.step_limit_m, limits.step_m if limits else None) if x is not None]
    ways = [x for x in (focus.cumulative_limit_m, limits.cumulative_m if limits else None) if x is not None]
    low = [focus.working_distance_min_m, *([limits.working_distance_min_m] if limits else [])]
    high = [focus.working_distance_max_m, *([limits.working_distance_max_m] if limits else [])]
    return Envelope(
        working_distance_min_m=max(low),
        working_distance_max_m=min(high),
        step_m=min(steps, default=FALLBACK_STEP_M),
        cumulative_m=min(ways, default=FALLBACK_CUMULATIVE_M),
        stigmator_min=limits.stigmator_min if limits else -1.0,
        stigmator_max=limits.stigmator_max if limits else 1.0,
        stigmator_step=limits.stigmator_step if limits else 0.5,
    )


def prepare_folders(settings: Settings) -> None:
    """State and runtime folders exist, for the group to read and nobody else."""
    for folder in (configuration.state_dir(settings), configuration.runtime_dir()):
        try:
            folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"cannot make {folder}: {error.strerror}") from error


def version() -> str:
    return importlib.metadata.version("beamside")
