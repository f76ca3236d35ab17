"""The last step of a run: the release of what was chosen, in place of an older one, which is set aside."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from jettison.decide.render import read_decision
from jettison.decision import Decision
from jettison.errors import JettisonError
from jettison.evaluate.profile import reference_profile
from jettison.loop.workspace import Contender, Workspace
from jettison.release import Release, open_release, write_release
from jettison.task import Example


def release_chosen(
    workspace: Workspace,
    incumbent: Contender,
    finalists: Sequence[Contender],
    *,
    decision: Decision,
    examples: Sequence[Example],
    keep_logits: bool,
    notes: Sequence[str] = (),
) -> Release | None:
    """Write the release of the chosen candidate, or find the one a finished run wrote.

    Args:
        workspace: The run.
        incumbent: Whose test records go with the release as evidence.
        finalists: Among which the decision chose.
        decision: None is released where it chose none.
        examples: Of the test split, as they were read for the decision.
        keep_logits: As the records of the decision were kept.
        notes: What its users should know besides, for the model card.
    """
    chosen = next((c for c in finalists if c.name == decision.chosen), None)
    folder = workspace.folder / "release"
    if chosen is None:
        if folder.exists():
            workspace.watcher.found(
                f"{folder} is of an earlier decision, not of this one, and stays as it is"
            )
        return None
    workspace.watcher.stage("writing the release")
    if folder.exists():
        found = _same_release(folder, decision)
        if found is not None:
            return found
        shutil.move(folder, _free_name(workspace.folder, "release-before"))
    return write_release(
        folder,
        candidate=chosen.candidate,
        decision=decision,
        evidence=[
            workspace.records_path(c.candidate, examples, "test", keep_logits=keep_logits)
            for c in (incumbent, chosen)
        ],
        task_name=workspace.task.name,
        notes=notes,
        profile=reference_profile(
            chosen.records,
            [e.input for e in workspace.dev],
            background=[
                e.input for e in (*workspace.task.development.train, *workspace.task.development.unlabelled)
            ],
        ),
    )


def _same_release(folder: Path, decision: Decision) -> Release | None:
    """The release in a folder, when it is whole and carries this very decision."""
    try:
        release = open_release(folder)
        same = read_decision(folder / "decision.json") == decision
    except JettisonError:
        return None
    return release if same else None


def _free_name(folder: Path, stem: str) -> Path:
    """An unused name: an older release is set aside, never overwritten."""
    n = 1
    while (folder / f"{stem}-{n}").exists():
        n += 1
    return folder / f"{stem}-{n}"
