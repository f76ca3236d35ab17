"""What a run refuses before it asks anything: scorers, a dev split and slices that will not do."""

from collections.abc import Sequence

from jettison.decision import Gate, NotShownWorse, NotWorse
from jettison.errors import NotEnoughData, UnknownName
from jettison.evaluate.calibrate import LEAST_EXAMPLES
from jettison.evaluate.scorers import check_right_answers, close_scorers, open_scorers
from jettison.loop.workspace import Workspace
from jettison.task import Development


def check_scorers(gates: Sequence[Gate], workspace: Workspace) -> None:
    """Refuse a scorer that cannot be set up, and one named that the task lacks, before any work is done.

    Raises:
        UnknownName: There is no such scorer.
        InvalidInput: A setting of one is unknown, missing or out of range, or it lacks right answers.
    """
    known = sorted(workspace.scorers)
    for gate in gates:
        if isinstance(gate, NotWorse | NotShownWorse) and gate.scorer not in known:
            raise UnknownName(f"gates.scorer must be one of the task's {known}, got {gate.scorer!r}.")
    for name in workspace.config.scorer_labels:
        if name not in known:
            raise UnknownName(f"scorer_labels must be of the task's scorers {known}, got {name!r}.")
    opened = open_scorers(workspace.scorers, out_of_scope=workspace.task.out_of_scope)
    try:
        check_right_answers(opened, workspace.dev)
    finally:
        close_scorers(opened)


def check_dev(data: Development) -> None:
    """Refuse a dev split that no confidence can be calibrated on, before anything is asked.

    Raises:
        NotEnoughData: The half of dev that calibration reads is too small.
    """
    n = sum(example.is_judged for example in data.dev_fit)
    if n < LEAST_EXAMPLES:
        groups = {example.group for example in data.dev if example.group is not None}
        whole = f", whose {len(groups)} groups stay whole" if groups else ""
        raise NotEnoughData(
            f"calibration reads one half of dev and needs at least {LEAST_EXAMPLES} examples with a right "
            f"answer there, got {n} of the {len(data.dev)} of dev{whole}. Add examples to the dev split."
        )


def check_slices(gates: Sequence[Gate], workspace: Workspace) -> None:
    """Refuse a gate on a slice that neither dev nor test has, before any work is done.

    Raises:
        UnknownName: There is no such column, or no such value in it, or a margin is of a slice that its
            gate does not ask.
    """
    known: dict[str, set[str]] = {}
    for example in workspace.dev:
        for column, value in example.slices.items():
            known.setdefault(column, set()).add(value)
    for name in workspace.task.slice_counts:
        column, _, value = name.partition("=")
        if value:
            known.setdefault(column, set()).add(value)
    for gate in gates:
        for spec in gate.slices if isinstance(gate, NotWorse | NotShownWorse) else ():
            column, _, value = spec.partition("=")
            if spec == "all" or (column in known and value in {"*", *known[column]}):
                continue
            choices = sorted(f"{c}={v}" for c in known for v in known[c])[:20]
            raise UnknownName(f"gates.slices must name slices among {['all', *choices]}, got {spec!r}.")
        if not isinstance(gate, NotWorse):
            continue
        stray = next((n for n in gate.margins if not any(_is_of(n, spec) for spec in gate.slices)), None)
        if stray is not None:
            raise UnknownName(
                f"gates.margins must be of the gate's slices {list(gate.slices)}, got {stray!r}."
            )


def _is_of(name: str, spec: str) -> bool:
    """Whether a margin's name is a slice that a gate asks, one of its column, or all of its column's."""
    column, _, value = name.partition("=")
    other, _, asked = spec.partition("=")
    return name == spec or (bool(value) and column == other and "*" in (value, asked))
