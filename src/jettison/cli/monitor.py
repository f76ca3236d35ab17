"""`jettison monitor`: watches a gateway's traffic and acts on what it shows."""

import json
import signal
import time
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from jettison.monitor.audit import AuditPlan, AuditStatus
    from jettison.monitor.experiment import ExperimentStatus
    from jettison.monitor.part import Part

_SAVE_EVERY_S = 30.0


@click.command("monitor")
@click.argument("state", type=click.Path(path_type=Path), default=Path("serve-state"))
@click.option(
    "--audit",
    "audits",
    multiple=True,
    metavar="PLACE:THRESHOLD:EPSILON",
    help="Hold a cascade to its certificate, as ':0.9:0.02' for the outermost route. Repeatable.",
)
@click.option(
    "--delta", type=float, default=0.05, show_default=True, help="Error probability of the audits."
)
@click.option(
    "--truth",
    type=click.Choice(["fallback", "label"]),
    default="fallback",
    show_default=True,
    help="What audited answers are held against.",
)
@click.option(
    "--release",
    type=click.Path(path_type=Path),
    help="Watch for drift against this release's profile, at every look.",
)
@click.option(
    "--drift-alpha",
    type=float,
    default=0.01,
    show_default=True,
    help="Probability of a false drift alarm, ever.",
)
@click.option(
    "--slice", "slices", multiple=True, help="Watch drift on each value of this slice too. Repeatable."
)
@click.option(
    "--detector",
    "detectors",
    multiple=True,
    metavar="NAME",
    help="Watch each score by this detector too: page_hinkley, or a plugin. Repeatable; needs --release.",
)
@click.option(
    "--slo",
    "slos",
    multiple=True,
    metavar="METRIC:SHARE:LIMIT",
    help="Alert on the burn rate of a service level, as latency_s:0.99:0.2, errors:0.999, "
    "price_usd:mean:0.002 or, too soon being bad too, latency_s:0.99:0.02..0.2. Repeatable.",
)
@click.option(
    "--quality",
    "watches_quality",
    is_flag=True,
    help="Estimate how many answers are right though few have labels, and watch calibration.",
)
@click.option(
    "--incident",
    "incidents",
    multiple=True,
    metavar="SOURCE[:KIND]:RATE",
    help="Alert where safety incidents surely come more often, as guardrail:pii:0.001, reported:0.0005 or "
    "audit:0.01. Repeatable.",
)
@click.option(
    "--incidents", "counts_incidents", is_flag=True, help="Count safety incidents, also without a limit."
)
@click.option(
    "--incident-alpha",
    type=float,
    default=0.01,
    show_default=True,
    help="Probability of a false alarm of --incident, ever.",
)
@click.option(
    "--alert",
    "alerts",
    multiple=True,
    metavar="WHERE",
    help="A file, a webhook's URL, or alertmanager+URL. Repeatable; alerts.jsonl in STATE by default.",
)
@click.option("--every", type=float, default=1.0, show_default=True, help="Seconds between looks.")
@click.option("--once", is_flag=True, help="Look once, act, and end.")
@click.option("--json", "as_json", is_flag=True, help="With --once: print everything as JSON.")
def command(
    state: Path,
    audits: tuple[str, ...],
    delta: float,
    truth: str,
    release: Path | None,
    drift_alpha: float,
    slices: tuple[str, ...],
    detectors: tuple[str, ...],
    slos: tuple[str, ...],
    watches_quality: bool,
    incidents: tuple[str, ...],
    counts_incidents: bool,
    incident_alpha: float,
    alerts: tuple[str, ...],
    every: float,
    once: bool,
    as_json: bool,
) -> int:
    """Watch the gateway whose state folder is STATE, until stopped.

    Experiments are ramped, rolled back or voided, and a threshold that its audits disprove is
    tightened, within a look or two of the evidence. Stopped or killed, the same command goes on.
    """
    from jettison.errors import InvalidInput
    from jettison.monitor.alerts import Alerts, sink_from
    from jettison.monitor.watch import Watch

    if every <= 0:
        raise InvalidInput(f"--every must be positive, got {every}.")
    sinks = tuple(sink_from(text) for text in alerts or (str(state / "alerts.jsonl"),))
    plans = tuple(audit_from(text, delta=delta, truth=truth) for text in audits)
    parts = _parts(release, drift_alpha=drift_alpha, slices=slices, detectors=detectors, slos=slos)
    if watches_quality:
        from jettison.monitor.quality_watch import QualityWatch

        parts += (QualityWatch(),)
    if incidents or counts_incidents:
        from jettison.monitor.incidents import IncidentWatch, limit_from

        limits = [limit_from(text) for text in dict.fromkeys(incidents)]
        parts += (IncidentWatch(limits, alpha=incident_alpha),)
    watch = Watch(state, audits=plans, alerts=Alerts(sinks), parts=parts)
    if once:
        found = watch.look(time.time())
        watch.save()
        _tell(*found, parts, as_json=as_json)
        return 0
    stopping: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        stopping.append(number)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    saved, told = time.monotonic(), ""
    while not stopping:
        experiments, cascades = watch.look(time.time())
        watch.alerts.retry()
        line = "; ".join(
            [f"{e.name} {e.verdict}" for e in experiments]
            + [f"audits {c.verdict}" for c in cascades]
            + [line.partition(".")[0] for part in parts for line in part.lines()]
        )
        if line != told:
            click.echo(f"{time.strftime('%H:%M:%S')}  {line or 'nothing runs'}")
            told = line
        if time.monotonic() - saved > _SAVE_EVERY_S:
            watch.save()
            saved = time.monotonic()
        time.sleep(every)
    watch.save()
    return 0


def _parts(
    release: Path | None,
    *,
    drift_alpha: float,
    slices: tuple[str, ...],
    detectors: tuple[str, ...],
    slos: tuple[str, ...],
) -> "tuple[Part, ...]":
    """What else is watched, as the options say."""
    from jettison.errors import InvalidInput

    parts: list[Part] = []
    if release is not None:
        parts += _drift_parts(release, alpha=drift_alpha, slices=slices, detectors=detectors)
    elif slices or detectors:
        option = "--slice" if slices else "--detector"
        raise InvalidInput(f"{option} must come with --release, got it alone.")
    if slos:
        from jettison.monitor.burn_rate import BurnRates, slo_from

        parts.append(BurnRates([slo_from(text) for text in dict.fromkeys(slos)]))
    return tuple(parts)


def _drift_parts(
    release: Path, *, alpha: float, slices: tuple[str, ...], detectors: tuple[str, ...]
) -> "list[Part]":
    from jettison.monitor.detector_part import DetectorPart
    from jettison.monitor.drift import sketch_of
    from jettison.monitor.drift_part import DriftPart
    from jettison.monitor.drift_stream import DriftWatch
    from jettison.release import open_release, read_profile

    opened = open_release(release)
    candidates = tuple(opened.candidates.values())
    sketch = sketch_of(read_profile(opened))
    return [
        DriftPart(DriftWatch(sketch, candidates=candidates, alpha=alpha, slices=slices)),
        *(
            DetectorPart(use, sketch, candidates=candidates, alpha=alpha)
            for use in dict.fromkeys(detectors)
        ),
    ]


def audit_from(text: str, *, delta: float, truth: Any) -> "AuditPlan":
    """A cascade to hold to its certificate, as the command line writes it.

    Raises:
        InvalidInput: It is not PLACE:THRESHOLD:EPSILON, or a number is out of range.
    """
    from jettison.errors import InvalidInput
    from jettison.monitor.audit import AuditPlan

    place, _, rest = text.partition(":")
    try:
        threshold, epsilon = (float(part) for part in rest.split(":"))
    except ValueError as error:
        raise InvalidInput(f"--audit must be PLACE:THRESHOLD:EPSILON, got {text!r}.") from error
    if not (0 <= threshold <= 1 and 0 < epsilon < 1 and 0 < delta < 1):
        raise InvalidInput(
            f"--audit must have a threshold in 0-1, epsilon and --delta in (0, 1), got {text!r}, {delta}."
        )
    return AuditPlan(place=place, threshold=threshold, epsilon=epsilon, delta=delta, truth=truth)


def _tell(
    experiments: "tuple[ExperimentStatus, ...]",
    cascades: "tuple[AuditStatus, ...]",
    parts: "tuple[Part, ...]",
    *,
    as_json: bool,
) -> None:
    import msgspec

    if as_json:
        told = {"experiments": msgspec.to_builtins(experiments), "audits": msgspec.to_builtins(cascades)}
        told |= {part.name: msgspec.to_builtins(part.status()) for part in parts}
        click.echo(json.dumps(told, indent=2))
        return
    for one in experiments:
        click.echo(f"experiment {one.name}: {one.verdict}. {one.reason}")
    for cascade in cascades:
        click.echo(
            f"audits of {cascade.place or 'the outermost route'}: {cascade.verdict}. {cascade.reason}"
        )
    for part in parts:
        for line in part.lines():
            click.echo(line)
    if not experiments and not cascades and not parts:
        click.echo("nothing runs: no experiment, and no --audit given")
