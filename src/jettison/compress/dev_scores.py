"""Judges a model on dev by the task's first scorer, while a step is at work."""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from jettison import registry
from jettison.backends.ask import ask, check_answered
from jettison.model import Model, Output
from jettison.stats.clustered import mean_difference_ci
from jettison.stats.group_jackknife import bounds_of
from jettison.task import Development, Example


def dev_outputs(model: Model, examples: Sequence[Example], *, asked: str) -> list[Output]:
    """One output an example, in their order; a failure stays with the input that caused it.

    Args:
        model: The one that answers.
        examples: Of dev.
        asked: Its name, for the message.

    Raises:
        Unanswered: Answers were lost on the way, which says nothing of the model.
    """
    outputs = ask(model, [example.asked for example in examples])
    check_answered(outputs, asked)
    return outputs


def dev_scores(outputs: Sequence[Output], examples: Sequence[Example], data: Development) -> np.ndarray:
    """Scores by the task's first scorer, shape (n_examples,), nan where it cannot tell."""
    name = data.scorers[0]
    settings = dict(data.scorer_settings.get(name, {}))
    plugin = str(settings.pop("scorer", name))
    scorer = registry.load("scorers", plugin)(out_of_scope=data.out_of_scope, **settings)
    pairs = list(zip(examples, outputs, strict=True))
    together = getattr(scorer, "score_all", None)
    found = together(pairs) if together else [scorer.score(e, o) for e, o in pairs]
    getattr(scorer, "close", lambda: None)()
    values = [score.value for score in found]
    return np.array([np.nan if value is None else value for value in values], float)


def gain_notes(scores: np.ndarray, baseline: np.ndarray, groups: Sequence[str]) -> dict[str, Any] | None:
    """Mean gain of one set of scores over another with its 95 % interval; None under two groups."""
    known = np.isfinite(scores) & np.isfinite(baseline)
    labels = np.asarray(groups)[known]
    if len(np.unique(labels)) < 2:
        return None
    ours, theirs = scores[known], baseline[known]
    found = mean_difference_ci(ours, theirs, groups=labels, bounds=bounds_of(ours, theirs))
    return {**msgspec.to_builtins(found), "n_examples": int(known.sum())}


def groups_of(examples: Sequence[Example]) -> list[str]:
    """The group of each example; one without is a group of its own."""
    return [example.group or example.id for example in examples]
