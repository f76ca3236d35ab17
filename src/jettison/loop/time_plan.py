"""What a run plans its budget by: the time of an answer, and what to keep for costs and the decision."""

from collections.abc import Sequence

from jettison.loop.workspace import Workspace
from jettison.record import Record

FULL_BUDGET_S = 600.0
"""Budgets under it keep less than a full measurement of costs takes."""
DECISION_SHARE = 0.1
LEAST_EXAMPLE_S = 1e-4
READ_TEXT_S = 6e-5
"""CPU-seconds that reading and checking a text of a task takes: 515,000 took 30 s."""


def example_cpu_s(records: Sequence[Record], *, took_s: float) -> float:
    """CPU-seconds of one answer, as the records tell: those that were found again took none now.

    Args:
        records: Of the incumbent on dev.
        took_s: CPU-seconds of this process to get them, which counts where none tells (an endpoint's).
    """
    known = [record.cost.cpu_s for record in records if record.cost.cpu_s is not None]
    mean_s = sum(known) / len(known) if known else took_s / max(1, len(records))
    return max(mean_s, LEAST_EXAMPLE_S)


def decision_s(workspace: Workspace, example_s: float) -> float:
    """Seconds to keep of the budget for asking about test, the decision and the report.

    Of a short budget that is a tenth, and what they take longer comes on top: no run is of use without.
    """
    takes_s, budget_s = 15.0 + 1.5 * example_s * workspace.task.n_test, workspace.config.budget_s
    return takes_s if budget_s is None else min(takes_s, DECISION_SHARE * budget_s)


def making_s(workspace: Workspace, example_s: float, n_texts: int) -> float | None:
    """Seconds of the budget that are there for making candidates, by estimates alone; None without one.

    No clock is read, so that a run that goes on plans what it planned before.
    """
    budget_s = workspace.config.budget_s
    if budget_s is None:
        return None
    asked_s = len(workspace.dev) * example_s + READ_TEXT_S * n_texts
    return max(0.0, budget_s - asked_s - decision_s(workspace, example_s) - time_for_costs(workspace))


def time_for_costs(workspace: Workspace) -> float:
    """Seconds to keep of the budget for measuring costs: what it takes in full, much less of a short one.

    A short budget goes to having candidates, not to knowing their costs to the last digit: less is measured
    of each, and the report says so.
    """
    config = workspace.config
    n_measured = 3 + config.n_shown
    again_s = 3.0 * (config.cost_openings - 1) * min(n_measured, 5)
    costs_s = 2.0 * n_measured * (2.0 + config.cost_s) + again_s
    short = 1.0 if config.budget_s is None else min(1.0, config.budget_s / FULL_BUDGET_S)
    return costs_s * short**2
