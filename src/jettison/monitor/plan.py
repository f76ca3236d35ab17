"""What an experiment was meant to show, written down before it starts: metrics, margins, ramp."""

import re
from pathlib import Path
from typing import Literal

import msgspec

from jettison.errors import InvalidInput, UnknownName
from jettison.files import read_json, write_json

EXPERIMENTS = "experiments"
PLAN_FILE, OUTCOME_FILE, STATE_FILE = "plan.json", "outcome.json", "evidence.msgpack"
METRICS = {
    "label": "share of answers equal to the label that feedback brings",
    "feedback": "mean score that feedback gives, in 0-1",
    "agreement": "share of shadow answers equal to the main route's",
    "errors": "share of requests answered without an error",
    "guardrails": "share of answers on which no guardrail fired",
    "escalated": "share of requests that the lean model answered itself",
    "latency_s": "a quantile of the latency, as a relative difference",
    "price_usd": "mean price of a request, up to `most`",
    "energy_j": "mean energy of a request, up to `most`",
}
"""Each is compared so that a positive difference is good; `score:NAME` is any score on the records."""
SHADOW_ONLY, SPLIT_ONLY = {"agreement"}, {"feedback", "latency_s"}
NEEDS_MOST = {"price_usd", "energy_j"}
LATE_SHARE = 0.2
"""Part of a rollback's alpha that goes to losses which begin late."""


class Metric(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing compared between control and treatment."""

    name: str
    role: Literal["primary", "guardrail"] = "primary"
    margin: float = 0.01
    """Loss still not worse: in score units; of a latency relative, of a cost in shares of `most`."""
    quantile: float = 0.95
    """Of `latency_s`."""
    most: float | None = None
    """Of a cost: what is above counts as this much, so that one outlier decides nothing."""


class RampStep(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A share of the traffic, and when it may be given."""

    share: float
    after_s: float = 0.0
    """Seconds since the experiment began."""
    min_units: int = 0
    """Keys that must have been seen by then."""


class ExperimentPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`plan.json`."""

    name: str
    kind: Literal["split", "shadow"]
    metrics: tuple[Metric, ...]
    place: str = ""
    """Of the `Split` or `Shadow` in the route plan; the outermost route is the empty string."""
    alpha: float = 0.025
    """Probability of a false promotion, and as much again of a false rollback, over all looks."""
    srm_alpha: float = 0.001
    """Probability that a sound assignment is ever called broken."""
    ramp: tuple[RampStep, ...] = (RampStep(share=0.5),)
    promote: bool = False
    """Give treatment all traffic once it is shown; otherwise only say so."""
    label_wait_s: float = 30 * 86400.0
    """How long a request waits for its label."""
    started: float = 0.0
    """Seconds since the epoch."""
    format: int = 1

    @property
    def alpha_each(self) -> float:
        """Of one metric's rollback: any of them may call it, so they share alpha."""
        return self.alpha / len(self.metrics)

    @property
    def alpha_bounds(self) -> float:
        """Of the upper bound that is shown, where a loss that began late is watched for beside it."""
        return self.alpha_each * (1 - LATE_SHARE)

    @property
    def alpha_late(self) -> float:
        """Of the watch for a loss that began late."""
        return self.alpha_each * LATE_SHARE


def check_plan(plan: ExperimentPlan) -> None:
    """Check what types cannot say.

    Raises:
        InvalidInput: A value is out of range.
        UnknownName: There is no such metric.
    """
    if not re.fullmatch(r"[\w.-]{1,64}", plan.name) or plan.name.startswith("."):
        raise InvalidInput(
            f"an experiment's name must be 1 to 64 letters, digits, dots or dashes, got {plan.name!r}."
        )
    for name, value, high in (("alpha", plan.alpha, 0.5), ("srm_alpha", plan.srm_alpha, 0.1)):
        if not 0 < value < high:
            raise InvalidInput(f"{name} must be in (0, {high}), got {value}.")
    if not any(metric.role == "primary" for metric in plan.metrics):
        raise InvalidInput("an experiment must have at least one primary metric, got none.")
    names = [metric.name for metric in plan.metrics]
    if len(set(names)) < len(names):
        raise InvalidInput(f"each metric must stand once, got {names}.")
    for metric in plan.metrics:
        _check_metric(metric, plan.kind)
    shares, times = [s.share for s in plan.ramp], [s.after_s for s in plan.ramp]
    if not plan.ramp or not all(0 < share <= 1 for share in shares):
        raise InvalidInput(f"ramp shares must be in (0, 1], got {shares}.")
    if shares != sorted(shares) or times != sorted(times):
        raise InvalidInput(f"a ramp must rise with time, got shares {shares} after {times} s.")
    if plan.kind == "split" and not all(share < 1 for share in shares):
        raise InvalidInput(
            f"a split's ramp must stay under 1, where nothing is left to compare, got {shares}."
        )


def _check_metric(metric: Metric, kind: str) -> None:
    if metric.name not in METRICS and not re.fullmatch(r"score:.+", metric.name):
        raise UnknownName(f"a metric must be one of {[*METRICS, 'score:NAME']}, got {metric.name!r}.")
    if not 0 <= metric.margin < 1:
        raise InvalidInput(f"the margin of {metric.name} must be in [0, 1), got {metric.margin}.")
    if not 0 < metric.quantile < 1:
        raise InvalidInput(f"the quantile of {metric.name} must be in (0, 1), got {metric.quantile}.")
    other = SHADOW_ONLY if kind == "split" else SPLIT_ONLY
    if metric.name in other:
        raise InvalidInput(
            f"metric {metric.name} needs a {'shadow' if kind == 'split' else 'split'}, got a {kind}."
        )
    if metric.name in NEEDS_MOST and not (metric.most and metric.most > 0):
        raise InvalidInput(
            f"metric {metric.name} needs `most`, the largest value that counts in full, got {metric.most}."
        )


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """`outcome.json`: how an experiment ended; it is not touched again."""

    verdict: str
    reason: str
    time: float
    share: float
    """Of treatment, as it was left."""


def experiment_folder(state: Path, name: str) -> Path:
    """Where one experiment is kept."""
    return state / EXPERIMENTS / name


def write_plan(state: Path, plan: ExperimentPlan) -> None:
    """Write a new experiment's plan.

    Raises:
        InvalidInput: The plan does not hold together, or one of its name exists.
    """
    check_plan(plan)
    folder = experiment_folder(state, plan.name)
    if (folder / PLAN_FILE).exists():
        raise InvalidInput(f"experiment {plan.name!r} must be new, got one from before. Take another name.")
    write_json(folder / PLAN_FILE, plan)


def read_plan(state: Path, name: str) -> ExperimentPlan:
    """Read an experiment's plan.

    Raises:
        UnknownName: There is no such experiment.
    """
    known = experiment_names(state)
    if name not in known:
        raise UnknownName(f"the experiment must be one of {list(known)} in {state}, got {name!r}.")
    return read_json(experiment_folder(state, name) / PLAN_FILE, ExperimentPlan)


def read_outcome(state: Path, name: str) -> Outcome | None:
    """How an experiment ended; None while it runs."""
    path = experiment_folder(state, name) / OUTCOME_FILE
    return read_json(path, Outcome) if path.exists() else None


def experiment_names(state: Path) -> tuple[str, ...]:
    """All experiments of a state folder, by name."""
    return tuple(sorted(path.parent.name for path in (state / EXPERIMENTS).glob(f"*/{PLAN_FILE}")))
