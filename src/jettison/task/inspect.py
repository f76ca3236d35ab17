"""What the data's owner should know before any model is fitted: refusals first, then findings."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from jettison.errors import InvalidInput
from jettison.task.examples import Row, content_key
from jettison.task.similar import SIMILARITY, near_duplicates
from jettison.task.source import did_you_mean
from jettison.task.types import Example, Finding, TaskKind
from jettison.task.typos import suspect_typos

MAX_LEAK_SHARE = 0.5
FEW = 5
LONG_CHARACTERS = 2000
MIN_ASKED = 20
_SHOWN = 10

Splits = Mapping[str, Sequence[Example]]
Severity = Literal["error", "warning", "note"]


def check_splits(
    rows: Sequence[Row],
    *,
    out_of_scope: str | None,
    kind: TaskKind = "classify",
    needs_test: bool = True,
) -> None:
    """Refuse splits that no decision could rest on; inputs that nobody has answered yet may come alone.

    Raises:
        InvalidInput: Test is needed and empty, or a copy of train or dev, a group straddles splits, or
            dev or test has a label that train lacks.
    """
    counts = Counter(row.split for row in rows)
    if needs_test and not counts["test"] and set(counts) != {"unlabelled"}:
        raise InvalidInput(
            f"the test split must have at least one example, got 0 (splits: {dict(counts)}). "
            "Map one to it under [data.splits], or set `test_share = 0.2` under [split]."
        )
    _check_groups(rows)
    _check_apart(rows, "dev", ": what is chosen on dev would be chosen on test")
    if not counts["train"]:
        return
    if kind == "classify":
        _check_labels(rows, out_of_scope)
    _check_apart(rows, "train")


def _check_apart(rows: Sequence[Row], split: str, why: str = "") -> None:
    """Refuse a test split most of which stands in another split too."""
    others = {content_key(row) for row in rows if row.split == split}
    test = [row for row in rows if row.split == "test"]
    leaked = sum(content_key(row) in others for row in test)
    if leaked > MAX_LEAK_SHARE * len(test):
        raise InvalidInput(
            f"test must be kept apart from {split}, got {leaked} of {len(test)} test texts in {split} "
            f"too{why}. "
            f"Name other data, or remove them from {split} by `drop_leaked = true` under [data]."
        )


def _check_groups(rows: Sequence[Row]) -> None:
    first: dict[str, Row] = {}
    for row in rows:
        if row.group is None:
            continue
        other = first.setdefault(row.group, row)
        if other.split != row.split:
            raise InvalidInput(
                f"a group must be in one split, got {row.group!r} in {other.split} ({other.place}) and in "
                f"{row.split} ({row.place}). Leave the splits out and have them made: `test_share` "
                "under [split]."
            )


def _check_labels(rows: Sequence[Row], out_of_scope: str | None) -> None:
    trained = {row.expected for row in rows if row.split == "train"}
    for row in rows:
        if row.expected is None or row.expected in trained or row.expected == out_of_scope:
            continue
        n = sum(other.expected == row.expected for other in rows)
        raise InvalidInput(
            f"labels of {row.split} must be among the {len(trained)} of train, got {row.expected!r} at "
            f"{row.place} "
            f"({n} rows).{did_you_mean(row.expected, (label for label in trained if label))} Add "
            "examples of it to "
            "train, map it under [labels.aliases], or name it as labels.out_of_scope."
        )


def inspect(
    splits: Splits, *, out_of_scope: str | None, kind: TaskKind = "classify"
) -> tuple[Finding, ...]:
    """Everything seen in the data that is no reason to refuse it, most serious first."""
    every = [example for name in ("test", "dev", "train", "unlabelled") for example in splits[name]]
    split_of = {example.id: name for name, examples in splits.items() for example in examples}
    by_text: dict[str, list[Example]] = defaultdict(list)
    for example in every:
        by_text[content_key(example)].append(example)
    found = [
        *_across(by_text, split_of),
        *(_conflicts(by_text) if kind in ("classify", "choose", "extract") else ()),
        *_near(by_text, split_of),
        *_within(by_text, split_of),
        *_texts(every),
        *(_labels(splits, out_of_scope) if kind == "classify" else ()),
        *_choices(every),
        *_no_test(splits),
    ]
    order = {"error": 0, "warning": 1, "note": 2}
    return tuple(sorted(found, key=lambda finding: order[finding.severity]))


def _finding(rule: str, severity: Severity, what: str, ids: Iterable[str], then: str = "") -> list[Finding]:
    """`what: number. then`, unless there is none of it."""
    listed = list(dict.fromkeys(ids))
    if not listed:
        return []
    message = f"{what}: {len(listed)}.{then}"
    shown = tuple(listed[:_SHOWN])
    return [Finding(rule=rule, severity=severity, message=message, n_examples=len(listed), examples=shown)]


def _across(by_text: Mapping[str, Sequence[Example]], split_of: Mapping[str, str]) -> list[Finding]:
    """Texts of test or dev that train has too, and of test that dev has."""
    found: list[Finding] = []
    for held, other in (("test", "train"), ("test", "dev"), ("dev", "train")):
        ids = [
            example.id
            for examples in by_text.values()
            if len(examples) > 1 and any(split_of[one.id] == other for one in examples)
            for example in examples
            if split_of[example.id] == held
        ]
        way_out = f" `drop_leaked = true` under [data] removes them from {other}."
        found += _finding(
            "duplicate_across_splits",
            "warning",
            f"texts of {held} that are in {other} too",
            ids,
            f" A model may know them by heart.{way_out}",
        )
    return found


def _within(by_text: Mapping[str, Sequence[Example]], split_of: Mapping[str, str]) -> list[Finding]:
    """Further copies of a text in its own split."""
    copies: dict[str, list[str]] = defaultdict(list)
    for text, examples in by_text.items():
        if len(examples) > 1 and text:
            seen: set[str] = set()
            for example in examples:
                if split_of[example.id] in seen:
                    copies[split_of[example.id]].append(example.id)
                seen.add(split_of[example.id])
    return [
        finding
        for split, ids in copies.items()
        for finding in _finding("duplicate", "note", f"examples of {split} that repeat another's text", ids)
    ]


def _conflicts(by_text: Mapping[str, Sequence[Example]]) -> list[Finding]:
    clashing = [
        examples
        for text, examples in by_text.items()
        if len(examples) > 1 and text and len({e.expected for e in examples if e.expected}) > 1
    ]
    first = clashing[0] if clashing else ()
    shown = " and ".join(sorted({repr(e.expected) for e in first if e.expected}))
    return _finding(
        "conflicting_labels",
        "warning",
        f"examples that share their text with one of another label, such as {shown}",
        (example.id for examples in clashing for example in examples),
        " No model can be right on both.",
    )


def _near(by_text: Mapping[str, Sequence[Example]], split_of: Mapping[str, str]) -> list[Finding]:
    texts = [text for text in by_text if text]
    pairs = near_duplicates(texts)
    across: dict[str, list[str]] = {"train": [], "dev": []}
    inside: set[int] = set()
    for pair in pairs:
        ours, theirs = by_text[texts[pair.first]], by_text[texts[pair.second]]
        inside.update((pair.first, pair.second))
        for held, others in ((ours, theirs), (theirs, ours)):
            tested = [example.id for example in held if split_of[example.id] == "test"]
            for split in across:
                if tested and any(split_of[example.id] == split for example in others):
                    across[split] += tested
    meaning = f"(similarity of their character 4-grams at least {SIMILARITY})"
    found = [
        finding
        for split, ids in across.items()
        for finding in _finding(
            "near_duplicate_across_splits",
            "warning",
            f"texts of test that nearly equal one of {split} {meaning}",
            ids,
        )
    ]
    ids = [by_text[texts[position]][0].id for position in sorted(inside)]
    return found + _finding("near_duplicate", "note", f"texts that nearly equal another {meaning}", ids)


def _texts(examples: Sequence[Example]) -> list[Finding]:
    empty = [example.id for example in examples if not example.input.strip()]
    long = [example.id for example in examples if len(example.input) > LONG_CHARACTERS]
    cut = " A model reads only the first max_tokens."
    return [
        *_finding("empty_text", "warning", "examples without any text", empty),
        *_finding("long_text", "note", f"texts longer than {LONG_CHARACTERS} characters", long, cut),
    ]


def _labels(splits: Splits, out_of_scope: str | None) -> list[Finding]:
    counts = Counter(example.expected for example in splits["train"] if example.expected is not None)
    found: list[Finding] = []
    if not counts:
        return found
    few = sorted(label for label, n in counts.items() if n < FEW and label != out_of_scope)
    if few:
        message = f"labels with fewer than {FEW} examples in train ({len(few)}): {_some(few)}."
        n_few = sum(counts[label] for label in few)
        found.append(Finding(rule="few_examples", severity="warning", message=message, n_examples=n_few))
    most, least = max(counts.values()), min(counts.values())
    if most >= 20 * least:
        message = (
            f"train is imbalanced: {counts.most_common(1)[0][0]!r} has {most} examples and "
            f"{counts.most_common()[-1][0]!r} has {least}. Look at macro F1 and at slices, not accuracy "
            "alone."
        )
        found.append(Finding(rule="imbalance", severity="note", message=message, n_examples=most))
    untested = sorted(set(counts) - {example.expected for example in splits["test"]})
    if untested:
        named = _some(untested)
        message = f"labels that no test example has ({len(untested)}): {named}. Nothing is known of them."
        found.append(Finding(rule="untested_label", severity="warning", message=message))
    return found + suspect_typos(counts)


def _choices(examples: Sequence[Example]) -> list[Finding]:
    """Choices that repeat within a question, and right answers that nearly always stand in one place."""
    twice = [example.id for example in examples if len(set(example.choices)) < len(example.choices)]
    found = _finding(
        "repeated_choice",
        "warning",
        "examples with a choice that stands there twice",
        twice,
        " Either counts as right.",
    )
    asked = [example for example in examples if example.choices and example.expected is not None]
    places = Counter(example.choices.index(example.expected or "") for example in asked)
    place, n = places.most_common(1)[0] if places else (0, 0)
    n_choices = min((len(example.choices) for example in asked), default=0)
    if len(asked) >= MIN_ASKED and n > min(0.9, 2.5 / n_choices) * len(asked):
        message = (
            f"the right choice stands in one place, position {place}, in {n} of {len(asked)} examples: a "
            "model that always takes it looks good. Shuffle the choices."
        )
        found.append(Finding(rule="choice_position", severity="warning", message=message, n_examples=n))
    return found


def _no_test(splits: Splits) -> list[Finding]:
    if splits["test"]:
        return []
    message = (
        "no example has an answer that somebody has checked, so nothing can be decided yet: answer some, "
        "and name them as `test` under [data]."
    )
    return [Finding(rule="no_test", severity="error", message=message)]


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
