"""Tier `out_of_domain`: inputs the task is not for, where the right answer is to abstain or escalate.

Three sources: other data given by the user, classes held out of the task, and traffic far from
everything in train. Only the first two are right by construction; traffic is a guess and says so.
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from jettison.errors import InvalidInput, UnknownName
from jettison.evaluate.features import TextFeatures, nearness
from jettison.evaluate.suites.tier import in_tier
from jettison.files import value_sha256
from jettison.task import Development, Example
from jettison.task.examples import text_key
from jettison.task.tables import read_table

COLUMN = "ood"
LABEL = "out_of_domain"
"""The label that stands for abstaining where the task has none."""
TRAFFIC_QUANTILE = 0.01
TEXT = ("text", "input", "question", "prompt", "query", "sentence")


def from_files(
    paths: Sequence[Path], *, label: str, known: Sequence[Example], most: int | None = None, seed: int = 0
) -> tuple[Example, ...]:
    """Examples of other data, each expected to be refused; texts that the task has itself are left out.

    Args:
        paths: Data files with a column of texts.
        label: What is expected of them.
        known: The task's own examples.
        most: At most so many of each file, drawn with the seed.
        seed: Of the draw.

    Raises:
        InvalidInput: A file cannot be read or has no column of texts.
    """
    own = {text_key(example.input) for example in known}
    found: dict[str, Example] = {}
    for path in paths:
        table = read_table(path)
        column = next((name for name in TEXT if name in table.columns), None)
        if column is None:
            raise InvalidInput(
                f"{path} must have a column of texts named one of {list(TEXT)}, "
                f"got {sorted(table.columns)}."
            )
        rows = np.arange(table.n_rows)
        if most is not None and len(rows) > most:
            rows = np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))
        for row in rows.tolist():
            text = table.columns[column][row]
            if not isinstance(text, str) or not text.strip() or text_key(text) in own:
                continue
            name = f"ood-{value_sha256(text_key(text))[:12]}"
            example = Example(id=name, input=text, expected=label)
            found.setdefault(
                name,
                in_tier(example, LABEL, name="", source=table.place(row), slices={COLUMN: path.stem}),
            )
    return tuple(found.values())


def held_out(
    examples: Sequence[Example], labels: Sequence[str], *, label: str
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Examples without those of some classes, and those of the classes as out of domain."""
    known = {example.expected for example in examples}
    for name in labels:
        if name not in known:
            raise UnknownName(f"a held-out class must be a label of the test split, got {name!r}.")
    stay = tuple(e for e in examples if e.expected not in labels)
    out = tuple(
        in_tier(
            msgspec.structs.replace(e, expected=label),
            LABEL,
            name="",
            source=f"held-out class {e.expected}, {e.source or e.id}",
            slices={COLUMN: "held_out"},
        )
        for e in examples
        if e.expected in labels
    )
    return stay, out


def from_traffic(development: Development, *, label: str, most: int = 500) -> tuple[Example, ...]:
    """Unlabelled texts further from train than all but one in a hundred dev inputs, furthest first.

    Nobody has looked at them: some may be in the domain after all, and their source says so.
    """
    seen = development.train
    if not seen or not development.unlabelled or not development.dev:
        return ()
    features = TextFeatures([e.input for e in seen])
    limit = np.quantile(
        nearness(features.of([e.input for e in development.dev]), features.rows), TRAFFIC_QUANTILE
    )
    near = nearness(features.of([e.input for e in development.unlabelled]), features.rows)
    order = [i for i in np.argsort(near, kind="stable").tolist() if near[i] < limit][:most]
    return tuple(
        in_tier(
            msgspec.structs.replace(development.unlabelled[i], expected=label),
            LABEL,
            name="",
            source=f"traffic far from train, unchecked, {development.unlabelled[i].source or ''}",
            slices={COLUMN: "traffic"},
        )
        for i in order
    )
