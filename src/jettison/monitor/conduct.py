"""Runs experiments: starts, ramps, rolls back and ends them. Safe to stop and start again at any point."""

from pathlib import Path

from jettison.errors import InvalidInput
from jettison.files import write_json
from jettison.monitor.experiment import Experiment, ExperimentStatus
from jettison.monitor.log import TrafficLog
from jettison.monitor.plan import (
    OUTCOME_FILE,
    ExperimentPlan,
    Outcome,
    experiment_folder,
    experiment_names,
    read_outcome,
    read_plan,
    write_plan,
)
from jettison.monitor.steer import read_control, steer


def start_experiment(state: Path, plan: ExperimentPlan) -> None:
    """Write the plan, and give treatment its first share.

    Raises:
        InvalidInput: The plan does not hold together, one of its name exists, or another one runs: a record
            belongs to one experiment, so a second one would take the first one's traffic away.
    """
    for other in experiment_names(state):
        if other != plan.name and read_outcome(state, other) is None:
            raise InvalidInput(
                f"only one experiment of a gateway may run at a time, got {other!r} running. "
                f"End it with `jettison experiment stop {other}`."
            )
    write_plan(state, plan)
    set_share(state, plan, plan.ramp[0].share, f"experiment {plan.name} starts")


def set_share(state: Path, plan: ExperimentPlan, share: float, reason: str) -> bool:
    """Give treatment (or the shadow) a share of the traffic."""
    if plan.kind == "split":
        return steer(state, plan.place, treatment_share=share, experiment=plan.name, reason=reason)
    return steer(state, plan.place, shadow_share=share, experiment=plan.name, reason=reason)


def share_now(state: Path, plan: ExperimentPlan) -> float | None:
    """What treatment (or the shadow) gets now; None where nobody has said."""
    route = read_control(state).routes.get(plan.place)
    if route is None:
        return None
    return route.treatment_share if plan.kind == "split" else route.shadow_share


def stop_experiment(state: Path, name: str, *, share: float, reason: str, time: float) -> Outcome:
    """End an experiment by hand and leave treatment a share.

    Raises:
        UnknownName: There is no such experiment.
        InvalidInput: It has ended.
    """
    plan = read_plan(state, name)
    check_runs(state, name)
    return _end(state, plan, verdict="STOPPED", reason=reason, time=time, share=share)


def check_runs(state: Path, name: str) -> None:
    """What has ended is not touched again.

    Raises:
        InvalidInput: It has ended.
    """
    outcome = read_outcome(state, name)
    if outcome is not None:
        raise InvalidInput(f"experiment {name!r} must be running, got one that ended: {outcome.verdict}.")


def conduct(
    state: Path, experiment: Experiment, log: TrafficLog, *, now: float
) -> tuple[ExperimentStatus, str | None]:
    """Read the log on and act: roll back, void, promote or ramp.

    What is done depends on the log and the clock alone: a process that dies between the verdict and
    the file finds the same verdict again, and writes it.

    Args:
        state: The gateway's state folder.
        experiment: As it stands.
        log: The traffic log.
        now: Seconds since the epoch.

    Returns:
        The status, and what was done in words; None when nothing was.
    """
    plan = experiment.plan
    experiment.catch_up(log, state=state)
    status = experiment.status()
    if read_outcome(state, plan.name) is not None:
        return status, None
    if status.verdict in ("ROLL BACK", "VOID"):
        done = "ROLLED BACK" if status.verdict == "ROLL BACK" else "VOID"
        _end(state, plan, verdict=done, reason=status.reason, time=now, share=0.0)
        return status, f"{done}: {status.reason}"
    if status.verdict == "SHOWN" and plan.promote and plan.kind == "split":
        _end(state, plan, verdict="PROMOTED", reason=status.reason, time=now, share=1.0)
        return status, f"PROMOTED: {status.reason}"
    return status, _ramp(state, plan, status, now)


def _ramp(state: Path, plan: ExperimentPlan, status: ExperimentStatus, now: float) -> str | None:
    """The furthest step that is due. Never a smaller share than there is, which a person may have set."""
    due = [
        step.share
        for step in plan.ramp
        if now - plan.started >= step.after_s and status.n_units >= step.min_units
    ]
    current = share_now(state, plan)
    if not due or (current is not None and due[-1] <= current):
        return None
    reason = f"experiment {plan.name} ramps to {due[-1]:.1%}"
    return reason if set_share(state, plan, due[-1], reason) else None


def _end(
    state: Path, plan: ExperimentPlan, *, verdict: str, reason: str, time: float, share: float
) -> Outcome:
    set_share(state, plan, share, f"experiment {plan.name}: {verdict}: {reason}")
    outcome = Outcome(verdict=verdict, reason=reason, time=time, share=share)
    write_json(experiment_folder(state, plan.name) / OUTCOME_FILE, outcome)
    return outcome
