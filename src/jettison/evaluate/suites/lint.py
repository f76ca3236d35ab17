"""What weakens a suite: leakage between splits, labels that may be wrong, slices that cannot decide.

Reading a task already finds duplicates, near-duplicates, conflicting labels and the like
(`Task.findings`). Lint adds what takes longer, or needs a model's answers.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from jettison.backends.embedder import open_embedder
from jettison.evaluate.features import TextFeatures
from jettison.record import Record
from jettison.stats.planning import smallest_certifiable_margin, smallest_passing_n
from jettison.task import Example, Finding, Task
from jettison.task.similar import near_duplicates

RUN_WORDS = 8
"""Words in a row that a test text shares with train before it counts as copied."""
COPIED_SHARE = 0.5
"""Share of a test text's words that such runs must cover."""
EMBEDDING_COSINE = 0.97
N_NEIGHBORS = 10
MOST_AGREEING = 0.9
"""Share of the nearest texts that must agree on another label."""
NEAR = 0.3
"""Cosine that the nearest texts must reach on average to have a say."""
SATURATED = 0.995
_SHOWN = 10


def lint(
    task: Task,
    *,
    embedder: Path | None = None,
    records: Sequence[Record] = (),
    scorer: str | None = None,
    margin: float = 0.01,
    alpha: float = 0.025,
) -> tuple[Finding, ...]:
    """Everything that reading found, and: leakage, label suspects, saturated and too-small slices.

    Args:
        task: Its test texts are looked at; no model is asked.
        embedder: Folder of an embedder, to find texts of one meaning in other words.
        records: Of the incumbent on test or dev, to find slices that no candidate can lose or win on.
        scorer: Of the records; the task's first otherwise.
        margin: Of the gates, for the size of slices.
        alpha: Of the gates.

    Returns:
        Findings, worst first.
    """
    test = task.test_for_inspection()
    found = [
        *task.findings,
        *_copied_runs(task, test),
        *_label_suspects(task, test),
        *_small_slices(task.slice_counts, task.required_slices, margin, alpha),
        *_saturated(records, scorer or task.scorers[0]),
    ]
    if embedder is not None:
        found += _same_meaning(task, test, embedder)
    order = {"error": 0, "warning": 1, "note": 2}
    return tuple(sorted(found, key=lambda finding: order[finding.severity]))


def _copied_runs(task: Task, test: Sequence[Example]) -> list[Finding]:
    """Test texts at least half of which are runs of words that stand in a train text."""
    runs = {run for e in task.train for run in _runs(_words(e.input))}
    copied = []
    for example in test:
        words = _words(example.input)
        covered = np.zeros(len(words), bool)
        for start, run in enumerate(_runs(words)):
            if run in runs:
                covered[start : start + RUN_WORDS] = True
        if len(words) and covered.mean() >= COPIED_SHARE:
            copied.append(example)
    if not copied:
        return []
    message = (
        f"{len(copied)} test texts are by half or more runs of {RUN_WORDS} words that train has too: "
        "their scores flatter whoever was trained on it."
    )
    return [_finding("ngram_leak", "warning", message, copied)]


def _same_meaning(task: Task, test: Sequence[Example], folder: Path) -> list[Finding]:
    """Test texts whose vector nearly equals that of a train text, and which do not look alike."""
    model = open_embedder(folder)
    train = model.embed([e.input for e in task.train])
    vectors = model.embed([e.input for e in test])
    leaked = []
    for start in range(0, len(test), 512):
        cosines = vectors[start : start + 512] @ train.T
        best = cosines.argmax(axis=1)
        for row, at in enumerate(best.tolist()):
            example, other = test[start + row], task.train[at]
            if cosines[row, at] >= EMBEDDING_COSINE and not _alike(example.input, other.input):
                leaked.append(example)
    if not leaked:
        return []
    message = (
        f"{len(leaked)} test texts say what a train text says in other words (cosine of at least "
        f"{EMBEDDING_COSINE}): where users do not repeat themselves so, test is easier than traffic."
    )
    return [_finding("embedding_leak", "note", message, leaked)]


def _label_suspects(task: Task, test: Sequence[Example]) -> list[Finding]:
    """Examples whose ten nearest texts, of other groups, nearly all have one other label."""
    # Out-of-scope examples are near other labels by design.
    examples = [e for e in (*task.train, *task.dev, *test) if e.expected not in (None, task.out_of_scope)]
    if task.kind != "classify" or len(examples) <= N_NEIGHBORS:
        return []
    found = []
    rows = TextFeatures([e.input for e in examples]).rows
    columns = rows.T.tocsr()
    for start in range(0, len(examples), 256):
        cosines = (rows[start : start + 256] @ columns).toarray()
        cosines[np.arange(cosines.shape[0]), np.arange(start, start + cosines.shape[0])] = -1
        nearest = np.argpartition(cosines, -N_NEIGHBORS, axis=1)[:, -N_NEIGHBORS:]
        for row, near in enumerate(nearest.tolist()):
            example = examples[start + row]
            others = [
                examples[i] for i in near if example.group is None or examples[i].group != example.group
            ]
            if len(others) < N_NEIGHBORS or cosines[row, near].mean() < NEAR:
                continue
            label, n = Counter(e.expected for e in others).most_common(1)[0]
            if label != example.expected and n >= MOST_AGREEING * N_NEIGHBORS:
                found.append((example, label))
    splits = {"train": task.train, "dev": task.dev, "test": test}
    ids = {name: {e.id for e in members} for name, members in splits.items()}
    return [
        _suspects(name, mine)
        for name in splits
        if (mine := [(e, label) for e, label in found if e.id in ids[name]])
    ]


def _suspects(split: str, found: Sequence[tuple[Example, str | None]]) -> Finding:
    some = [f"{e.input[:60]!r} is {e.expected!r}, may be {label!r}" for e, label in found[:3]]
    message = (
        f"{len(found)} labels of {split} disagree with nearly all of the {N_NEIGHBORS} nearest texts: "
        f"{'; '.join(some)}."
    )
    return _finding("label_suspect", "warning", message, [e for e, _ in found])


def _small_slices(
    counts: Mapping[str, int], required: Sequence[str], margin: float, alpha: float
) -> list[Finding]:
    least = smallest_passing_n(margin, alpha=alpha)
    found = []
    for name in required:
        n = counts.get(name, 0)
        if 0 < n < least:
            able = 100 * smallest_certifiable_margin(n, alpha=alpha)
            message = (
                f"required slice {name} has {n} test examples; {least} are the fewest that can show a loss "
                f"under {100 * margin:g} points, {n} show no less than {able:.2g}."
            )
            found.append(Finding(rule="small_slice", severity="warning", message=message, n_examples=n))
    return found


def _saturated(records: Sequence[Record], scorer: str) -> list[Finding]:
    """Slices where the incumbent is all but perfect, or all but always wrong."""
    scores: dict[str, list[float]] = defaultdict(list)
    for record in records:
        value = record.scores.get(scorer)
        if value is not None:
            for name in ("all", *(f"{c}={v}" for c, v in record.slices.items())):
                scores[name].append(value)
    found = []
    for name, values in sorted(scores.items()):
        mean = float(np.mean(values))
        if len(values) >= 20 and not 1 - SATURATED < mean < SATURATED:
            what = "right" if mean > 0.5 else "wrong"
            message = (
                f"slice {name} is saturated: the incumbent is {what} on "
                f"{100 * max(mean, 1 - mean):.1f} % of {len(values)} examples. It can show a loss but "
                "hardly a difference between good models; harder examples would."
            )
            found.append(
                Finding(rule="saturated_slice", severity="note", message=message, n_examples=len(values))
            )
    return found


def _alike(one: str, other: str) -> bool:
    plain = [" ".join(text.casefold().split()) for text in (one, other)]
    return plain[0] == plain[1] or bool(near_duplicates(plain))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _runs(words: Sequence[str]) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + RUN_WORDS]) for i in range(len(words) - RUN_WORDS + 1)]


def _finding(
    rule: str, severity: Literal["warning", "note"], message: str, examples: Sequence[Example]
) -> Finding:
    return Finding(
        rule=rule,
        severity=severity,
        message=message,
        n_examples=len(examples),
        examples=tuple(e.id for e in examples[:_SHOWN]),
    )
