"""What stands between `jettison init` and a run that can release something, and the way out of each."""

import shlex
from difflib import get_close_matches
from pathlib import Path

from jettison.compress.checkpoint_facts import VOCABULARIES
from jettison.errors import NotEnoughData
from jettison.loop.checks import check_dev
from jettison.loop.look_model import LabelLook, ModelLook
from jettison.loop.propose import MARGINS, Proposal
from jettison.stats.planning import smallest_passing_n
from jettison.task import Task

MOST_PAIRED = 4
"""Labels for which an alias is spelled out."""


def blocking_findings(
    model: ModelLook, labels: LabelLook, task: Task, proposal: Proposal
) -> tuple[str, ...]:
    """Findings that a run would stop at, or end at with nothing released; none is a run worth starting.

    Args:
        model: What runs today.
        labels: How its labels fit the data's.
        task: As it would be written.
        proposal: The gates that would be written.
    """
    found = []
    if labels.verdict == "differ":
        found.append(_other_labels(model, task, labels))
    if labels.verdict == "fitted" and not task.train:
        found.append("the model has no head, and there is no train split to fit one on. Add labelled rows.")
    if model.kind in ("checkpoint", "onnx") and model.tokenizer is None and not _has_vocabulary(model):
        found.append(
            f"there is no tokenizer.json beside the model, nor a vocabulary to make one of. Save the "
            f"tokenizer into {_folder(model)}: `AutoTokenizer.from_pretrained(...).save_pretrained(...)`."
        )
    try:
        check_dev(task.development)
    except NotEnoughData as error:
        found.append(str(error))
    found += _too_small(proposal)
    found += [finding.message for finding in task.findings if finding.severity == "error"]
    return tuple(found)


def _folder(model: ModelLook) -> Path:
    place = Path(model.place).expanduser()
    return place if place.is_dir() else place.parent


def _has_vocabulary(model: ModelLook) -> bool:
    return any((_folder(model) / name).exists() for name in VOCABULARIES)


def _other_labels(model: ModelLook, task: Task, labels: LabelLook) -> str:
    """The labels that have no partner, and three ways out."""
    if not model.labels or model.kind not in ("checkpoint", "onnx"):
        return labels.message
    theirs = [name for name in model.labels if name not in task.labels]
    ours = [name for name in task.labels if name not in model.labels and name != task.out_of_scope]
    pairs = [f"--alias {shlex.quote(f'{o}={t}')}" for o, t in _likely_pairs(ours, theirs)]
    example = " ".join(pairs[:MOST_PAIRED]) or "--alias WRITTEN=MEANT"
    head = (
        "; if the model was made for other labels, give its encoder alone "
        "(`AutoModel.from_pretrained(MODEL).save_pretrained(FOLDER)`, and its tokenizer): a head for these "
        "labels is then fitted on train"
        if model.kind == "checkpoint"
        else ""
    )
    return (
        f"the model answers {len(model.labels)} labels, the data has {len(task.labels)}. Only the model "
        f"has {theirs[:5]}{_more(theirs)}, only the data {ours[:5]}{_more(ours)}. If they mean the same, "
        f"map each: `{example}`{head}."
    )


def _likely_pairs(ours: list[str], theirs: list[str]) -> list[tuple[str, str]]:
    """The data's labels with the model's that they may stand for: alike, or the only ones left."""
    if len(ours) == len(theirs) == 1:
        return [(ours[0], theirs[0])]
    return [(name, close[0]) for name in ours if (close := get_close_matches(name, theirs, 1))]


def _more(names: list[str]) -> str:
    return f" and {len(names) - 5} more" if len(names) > 5 else ""


def _too_small(proposal: Proposal) -> list[str]:
    """Required slices that cannot pass at any usual margin."""
    widest = MARGINS[-1]
    least = smallest_passing_n(widest)
    return [
        f"{'test' if name == 'all' else f'{name} of test'} has {n} examples: not even a loss under "
        f"{100 * widest:.0f} points can be shown on them, so nothing can be released. It takes {least} "
        "where no answer gets worse, and more where some do."
        for name, n in proposal.too_small.items()
        if name in proposal.required
    ]
