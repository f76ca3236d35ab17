"""`jettison experiment`: live comparisons that may be looked at any time."""

import contextlib
import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

if TYPE_CHECKING:
    from jettison.monitor.experiment import ExperimentStatus
    from jettison.monitor.plan import ExperimentPlan, Metric, RampStep

_STATE = click.option(
    "--state",
    type=click.Path(path_type=Path),
    default=Path("serve-state"),
    show_default=True,
    help="The gateway's state folder, with its traffic log.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group("experiment")
def command() -> None:
    """Compare two arms on live traffic.

    Every figure may be looked at any time: the intervals hold at all looks together. `jettison
    monitor` watches the running ones, ramps them and rolls them back.
    """


@command.command("start")
@click.argument("name")
@_STATE
@click.option(
    "--kind",
    type=click.Choice(["split", "shadow"]),
    default="split",
    show_default=True,
    help="Of the comparison.",
)
@click.option(
    "--place", default="", help="Of the split or shadow in the route plan; the outermost by default."
)
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="NAME[:ROLE[:MARGIN[:DETAIL]]]",
    help="As label:primary:0.01, latency_s:guardrail:0.2:0.95 (quantile), price_usd:guardrail:0.1:0.01 "
    "(most). Repeatable; label by default.",
)
@click.option("--alpha", type=float, default=0.025, show_default=True, help="One-sided error probability.")
@click.option(
    "--ramp", default="50%", show_default=True, help="Shares and when: '1%, 10% after 1h, 50% after 1d'."
)
@click.option("--promote", is_flag=True, help="Give treatment everything once it is shown.")
@_JSON
def start(
    name: str,
    state: Path,
    kind: Literal["split", "shadow"],
    place: str,
    metrics: tuple[str, ...],
    alpha: float,
    ramp: str,
    promote: bool,
    as_json: bool,
) -> int:
    """Begin experiment NAME.

    Its plan is written down, and treatment gets its first share.
    """
    from jettison.monitor.conduct import start_experiment
    from jettison.monitor.plan import ExperimentPlan

    plan = ExperimentPlan(
        name=name,
        kind=kind,
        place=place,
        metrics=tuple(metric_from(text) for text in metrics or ("label",)),
        alpha=alpha,
        ramp=ramp_from(ramp),
        promote=promote,
        started=time.time(),
    )
    start_experiment(state, plan)
    told = {"experiment": name, "share": plan.ramp[0].share, "finds": _finds(plan)}
    if as_json:
        click.echo(json.dumps(told, indent=2))
    else:
        click.echo(f"experiment {name} runs: {plan.ramp[0].share:.1%} of the traffic")
        click.echo(f"  {told['finds']}")
        click.echo(f"  watch it     jettison monitor {state}")
        click.echo(f"  look at it   jettison experiment status {name} --state {state}")
    return 0


@command.command("status")
@click.argument("name")
@_STATE
@_JSON
def status(name: str, state: Path, as_json: bool) -> int:
    """Where experiment NAME stands. Exit code 1: it was rolled back, or is void."""
    import msgspec

    from jettison.errors import CannotWrite
    from jettison.monitor.experiment import Experiment
    from jettison.monitor.log import TrafficLog
    from jettison.monitor.plan import read_outcome, read_plan

    plan, outcome = read_plan(state, name), read_outcome(state, name)
    experiment = Experiment.open(state, plan)
    experiment.catch_up(TrafficLog(state), state=state)
    found = experiment.status()
    with contextlib.suppress(CannotWrite):  # whoever may only read waits longer the next time
        experiment.save(state)
    if as_json:
        told = {**msgspec.to_builtins(found), "outcome": msgspec.to_builtins(outcome)}
        click.echo(json.dumps(told, indent=2))
    else:
        _show(found)
        if outcome is not None:
            click.echo(f"ended: {outcome.verdict}, treatment at {outcome.share:.1%}. {outcome.reason}")
    ended = outcome.verdict if outcome is not None else found.verdict
    return 1 if ended in ("ROLLED BACK", "ROLL BACK", "VOID") else 0


@command.command("ramp")
@click.argument("name")
@click.argument("share")
@_STATE
def ramp_by_hand(name: str, share: str, state: Path) -> int:
    """Give treatment of NAME a SHARE of the traffic now, as 25% or 0.25."""
    from jettison.monitor.conduct import check_runs, set_share
    from jettison.monitor.plan import read_plan

    plan = read_plan(state, name)
    check_runs(state, name)
    wanted = share_from(share)
    set_share(state, plan, wanted, f"experiment {name} ramped by hand to {wanted:.1%}")
    click.echo(f"treatment of {name} gets {wanted:.1%}")
    return 0


@command.command("stop")
@click.argument("name")
@_STATE
@click.option("--share", default="0%", show_default=True, help="What treatment keeps.")
@click.option("--reason", default="stopped by hand", show_default=True, help="Kept in the log.")
def stop(name: str, state: Path, share: str, reason: str) -> int:
    """End experiment NAME; it is not ramped or rolled back any more."""
    from jettison.monitor.conduct import stop_experiment

    outcome = stop_experiment(state, name, share=share_from(share), reason=reason, time=time.time())
    click.echo(f"experiment {name} stopped, treatment at {outcome.share:.1%}")
    return 0


@command.command("list")
@_STATE
@_JSON
def list_(state: Path, as_json: bool) -> int:
    """All experiments of a gateway."""
    from jettison.monitor.plan import experiment_names, read_outcome, read_plan

    rows = []
    for name in experiment_names(state):
        plan, outcome = read_plan(state, name), read_outcome(state, name)
        rows.append({"name": name, "kind": plan.kind, "verdict": outcome.verdict if outcome else "running"})
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return 0
    for row in rows:
        click.echo(f"{row['name']:<24} {row['kind']:<8} {row['verdict']}")
    if not rows:
        click.echo(f"no experiment in {state}")
    return 0


def metric_from(text: str) -> "Metric":
    """A metric as the command line writes it.

    Raises:
        InvalidInput: It is not of the form NAME[:ROLE[:MARGIN[:DETAIL]]].
    """
    import msgspec

    from jettison.errors import InvalidInput
    from jettison.monitor.plan import NEEDS_MOST, Metric

    head, *rest = text.split(":")
    if head == "score" and rest:
        head, rest = f"score:{rest[0]}", rest[1:]
    fields: dict[str, Any] = {"name": head}
    try:
        if rest:
            fields["role"] = rest[0]
        if len(rest) > 1:
            fields["margin"] = float(rest[1])
        if len(rest) > 2:
            fields["most" if head in NEEDS_MOST else "quantile"] = float(rest[2])
        if len(rest) > 3:
            raise ValueError("too many parts")
        return msgspec.convert(fields, Metric)
    except (ValueError, msgspec.ValidationError) as error:
        raise InvalidInput(
            f"--metric must be NAME[:ROLE[:MARGIN[:DETAIL]]], got {text!r}: {error}."
        ) from error


def ramp_from(text: str) -> "tuple[RampStep, ...]":
    """Shares with the time after which each may be given, as '1%, 10% after 1h'.

    Raises:
        InvalidInput: A step is of another form.
    """
    from jettison.errors import InvalidInput
    from jettison.monitor.plan import RampStep

    steps = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([\d.]+%?)(?:\s+after\s+(\d+(?:\.\d+)?)([smhd]))?\s*", part)
        if match is None:
            raise InvalidInput(f"a step of --ramp must be like '10% after 1h', got {part.strip()!r}.")
        seconds = {"s": 1, "m": 60, "h": 3600, "d": 86400}.get(match[3] or "s", 1)
        steps.append(RampStep(share=share_from(match[1]), after_s=float(match[2] or 0) * seconds))
    return tuple(steps)


def share_from(text: str) -> float:
    """A share as 25% or 0.25.

    Raises:
        InvalidInput: It is no number in 0-1.
    """
    from jettison.errors import InvalidInput

    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise InvalidInput(f"a share must be in 0-1 or 0%-100%, got {text!r}.")
    return share


def _finds(plan: "ExperimentPlan") -> str:
    """What loss is found after how many requests, by simulation of the statistic itself."""
    from jettison.stats.sequential_planning import pairs_to_find, requests_to_find

    metric = next(m for m in plan.metrics if m.role == "primary")
    loss = metric.margin + 0.03
    if plan.kind == "shadow":
        found = pairs_to_find(loss, margin=metric.margin, alpha=plan.alpha_bounds, n_runs=100)
        made = "if 2% of the other answers change each way"
    else:
        share = min(0.5, plan.ramp[-1].share)
        found = requests_to_find(
            loss, margin=metric.margin, share=share, alpha=plan.alpha_bounds, n_runs=100, limit=100_000
        )
        made = f"at {share:.0%} treatment and a control of 90%"
    if found.most is None:
        return (
            f"a loss of {100 * loss:.0f} points takes more than {found.limit:,} requests to find ({made})"
        )
    return (
        f"a loss of {100 * loss:.0f} points is found within {found.most:,} requests nine times of ten, "
        f"{found.median:,} in the median (simulated, {made})"
    )


def _show(found: "ExperimentStatus") -> None:
    from rich.table import Table

    from jettison.cli.tables import wide_console

    colors = {"SHOWN": "green", "ROLL BACK": "red", "VOID": "red", "RUNNING": "yellow"}
    console = wide_console()
    console.print(f"[bold {colors[found.verdict]}]{found.verdict}[/]  {found.reason}", soft_wrap=True)
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    for header in ("metric", "role", "verdict", "control", "treatment", "difference", "margin", "n"):
        table.add_column(header, no_wrap=True)
    for one in found.metrics:
        table.add_row(
            one.metric,
            one.role,
            one.verdict,
            _number(one.control),
            _number(one.treatment),
            f"{_signed(one.value)} ({_signed(one.low)} to {_signed(one.high)})",
            f"{one.margin:g}",
            f"{one.n:,}",
        )
    console.print(table)
    kind = "keys" if found.kind == "split" else "pairs"
    late = f", {found.n_late:,} labels for requests not known" if found.n_late else ""
    console.print(f"[dim]{found.n_units:,} {kind}{late}; differences so that positive is better[/]")
    if found.ratio is not None:
        ratio = found.ratio
        console.print(
            f"[dim]assignment: {ratio.treatment:,} treatment, {ratio.control:,} control; log e-value "
            f"{ratio.log_e:.1f} of {ratio.limit:.1f}[/]"
        )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.4f}"
