"""Tests of behaviour as data: rows that a person writes by hand, and models that pass or fail them.

`MFT` (minimum functionality): this input must get this answer. `INV` (invariance): the answer stays when
the input changes so. `DIR` (direction): trust in a label rises or falls when the input changes so.
Rows are JSONL, or `[[tests]]` in TOML; a template with `fill` stands for all its fillings.

Source: Ribeiro et al. 2020, "Beyond accuracy: behavioral testing of NLP models with CheckList".
"""

import itertools
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from jettison.backends.ask import ask
from jettison.errors import InvalidInput
from jettison.evaluate.scorers import Score, Scorer
from jettison.evaluate.suites.perturbations import PERTURBATIONS
from jettison.evaluate.suites.tier import rng_of
from jettison.files import decode_json, decode_toml
from jettison.model import Model, Output, softmax
from jettison.stats.binomial import clopper_pearson
from jettison.stats.interval import Interval
from jettison.task import Example
from jettison.task.source import did_you_mean

MOST_FILLINGS = 1000
_SLOT = re.compile(r"\{([A-Za-z_]\w*)\}")
DIRECTIONS = ("up", "down", "not_up", "not_down")


class BehaviourTest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One row."""

    name: str
    """Rows of one name are one test, with one share of failures."""
    type: Literal["MFT", "INV", "DIR"]
    input: str
    """A text, or a template with `{slots}`."""
    capability: str = ""
    """What it is about: negation, names, spelling, fairness, ..."""
    expected: str | list[str] | None = None
    """MFT: the answer, or any of several."""
    not_expected: str | list[str] | None = None
    """MFT: answers that are wrong, where it matters only what it must not be."""
    variants: list[str] = msgspec.field(default_factory=list)
    """INV, DIR: the changed inputs, templates too."""
    perturbation: str | list[str] = msgspec.field(default_factory=list)
    """INV: names of perturbations that make further variants."""
    label: str | None = None
    """DIR: whose trust is watched."""
    direction: str | None = None
    """DIR: `up`, `down`, `not_up`, `not_down`."""
    by: float = 0.0
    """DIR: least change for `up` and `down`, largest allowed one for the others, in 0-1."""
    fill: dict[str, list[str]] = msgspec.field(default_factory=dict)
    """Slot → what may stand in it; every combination is asked."""
    most_failures: float = 0.0
    """Share of cases, in 0-1, that may fail."""


class BehaviourResult(msgspec.Struct, frozen=True, kw_only=True):
    """One test of one model."""

    name: str
    type: str
    capability: str
    """Of its rows, each once."""
    n: int
    n_failed: int
    failed_low: float
    failed_high: float
    """95 % interval of the share of failures, exact."""
    most_failures: float
    passed: bool
    failures: tuple[str, ...]
    """Up to ten, in words."""

    @property
    def failed_share(self) -> float:
        return self.n_failed / self.n


def read_tests(path: Path) -> tuple[BehaviourTest, ...]:
    """Read and check a file of tests.

    Raises:
        InvalidInput: It is missing, or a row breaks a rule; the message says which.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"tests must be a JSONL or TOML file, got {path}: {error}.") from error
    rows = _toml_rows(text, path) if path.suffix == ".toml" else _json_rows(text, path)
    if not rows:
        raise InvalidInput(f"{path} must hold at least one test, got none.")
    found: list[BehaviourTest] = []
    for place, row in rows:
        try:
            test = msgspec.convert(row, BehaviourTest)
        except msgspec.ValidationError as error:
            raise InvalidInput(f"{place}: {error}.") from error
        _check(test, place)
        _check_alike(test, found, place)
        found.append(test)
    return tuple(found)


def check_labels(tests: Sequence[BehaviourTest], known: Sequence[str]) -> None:
    """Refuse a label that no model of the task can answer: its test would fail, or hold, whatever they say.

    Args:
        tests: As read.
        known: Every label of the task; empty where answers are free.

    Raises:
        InvalidInput: A test names another label.
    """
    for test in tests:
        for name in (*_listed(test.expected), *_listed(test.not_expected), *_listed(test.label)):
            if known and name not in known:
                raise InvalidInput(
                    f"a test must name labels of the task, got {name!r} at test {test.name!r}."
                    f"{did_you_mean(name, known) or f' The labels are {list(known[:12])}.'}"
                )


def run_tests(
    model: Model, tests: Sequence[BehaviourTest], *, scorer: Scorer | None = None, seed: int = 0
) -> tuple[BehaviourResult, ...]:
    """Ask a model every case once and say which tests hold; results in the order of the tests' names.

    Args:
        model: Answers.
        tests: As read.
        scorer: Says whether an answer is one that a test names; None compares them letter by letter.
        seed: Of perturbations.

    Raises:
        InvalidInput: A `DIR` test watches a label that the model does not know, or the model gives no
            probabilities; or a test has no case, since no perturbation changes any of its inputs.
    """
    cases = list(dict.fromkeys(case for test in tests for case in _cases(test, seed)))
    _check_cases(tests, cases)
    texts = list(dict.fromkeys(text for case in cases for text in case.texts))
    answers: dict[str, Output] = {}
    for start in range(0, len(texts), 256):
        part = texts[start : start + 256]
        answers.update(zip(part, ask(model, part), strict=True))
    judged: dict[str, list[tuple[BehaviourTest, str | None]]] = {}
    for case in cases:
        fault = _fault(case, [answers[text] for text in case.texts], model.labels, scorer)
        judged.setdefault(case.test.name, []).append((case.test, fault))
    return tuple(_result(name, found) for name, found in judged.items())


class _Case(msgspec.Struct, frozen=True, kw_only=True):
    """One filled-in row, and one variant of it where it has some."""

    test: BehaviourTest
    texts: tuple[str, ...]

    def __eq__(self, other: object) -> bool:
        """One test asks a thing once, however many rows or fillings come to it."""
        return isinstance(other, _Case) and self._asked == other._asked

    def __hash__(self) -> int:
        return hash(self._asked)

    @property
    def _asked(self) -> tuple[Any, ...]:
        test = self.test
        wanted = (*_listed(test.expected), "\0", *_listed(test.not_expected))
        return test.name, self.texts, wanted, test.label, test.direction, test.by


def _cases(test: BehaviourTest, seed: int) -> list[_Case]:
    slots = list(test.fill)
    found = []
    for values in itertools.product(*test.fill.values()):
        filling = dict(zip(slots, values, strict=True))
        text = _filled(test.input, filling)
        if test.type == "MFT":
            found.append(_Case(test=test, texts=(text,)))
            continue
        variants = [_filled(one, filling) for one in test.variants]
        for kind in _listed(test.perturbation):
            made = PERTURBATIONS[kind](text, rng_of(seed, text, kind), frozenset())
            variants += [] if made is None else [made]
        found += [_Case(test=test, texts=(text, one)) for one in dict.fromkeys(variants) if one != text]
    return found


def _check_cases(tests: Sequence[BehaviourTest], cases: Sequence[_Case]) -> None:
    asked = {case.test.name for case in cases}
    for test in tests:
        if test.name not in asked:
            raise InvalidInput(
                f"a test must have a case, got none at test {test.name!r}: neither its variants nor "
                f"{_listed(test.perturbation) or 'a perturbation'} change any input of it."
            )


def _fault(
    case: _Case, outputs: Sequence[Output], labels: Sequence[str], scorer: Scorer | None
) -> str | None:
    """What is wrong with the answers; None when nothing is."""
    test = case.test
    for text, output in zip(case.texts, outputs, strict=True):
        if output.error is not None:
            return f"{text!r}: no answer ({output.error})"
    if test.type == "MFT":
        return _fault_of_answer(test, case.texts[0], outputs[0], scorer)
    before, after = outputs
    if test.type == "INV":
        if before.label == after.label:
            return None
        return f"{case.texts[0]!r}: {before.label!r}, but {case.texts[1]!r}: {after.label!r}"
    change = _trust(after, str(test.label), labels) - _trust(before, str(test.label), labels)
    holds = {
        "up": change >= test.by and change > 0,
        "down": change <= -test.by and change < 0,
        "not_up": change <= test.by,
        "not_down": change >= -test.by,
    }[str(test.direction)]
    told = f"{case.texts[0]!r} → {case.texts[1]!r}: {test.label!r} {change:+.2f}"
    return None if holds else told


def _fault_of_answer(test: BehaviourTest, text: str, output: Output, scorer: Scorer | None) -> str | None:
    """An answer must be one of those expected and none of the others, and one that can be judged."""
    for answers, wanted in ((_listed(test.expected), True), (_listed(test.not_expected), False)):
        scores = [_judged(text, output, answer, scorer) for answer in answers]
        is_one = any(score.value is not None and score.value >= 1.0 for score in scores)
        unknown = next((score for score in scores if score.value is None), None)
        if unknown is not None and not is_one:
            return f"{text!r}: {output.label!r} could not be judged ({unknown.reason or 'no reason given'})"
        if answers and is_one != wanted:
            return f"{text!r}: {output.label!r}"
    return None


def _judged(text: str, output: Output, answer: str, scorer: Scorer | None) -> Score:
    if scorer is None:
        return Score(value=float(output.label == answer))
    return scorer.score(Example(id="test", input=text, expected=answer), output)


def _trust(output: Output, label: str, labels: Sequence[str]) -> float:
    if output.logits is None:
        raise InvalidInput(
            "a DIR test must be asked of a model that gives every label a probability, got one that gives "
            "an answer alone. Write it as an INV or MFT test."
        )
    if label not in labels:
        raise InvalidInput(
            f"a DIR test must watch one of the model's labels, got {label!r}; it has {list(labels)[:12]}."
        )
    return float(softmax(np.asarray(output.logits)[None])[0][list(labels).index(label)])


def _result(name: str, judged: Sequence[tuple[BehaviourTest, str | None]]) -> BehaviourResult:
    test = judged[0][0]
    faults = [fault for _, fault in judged if fault is not None]
    seen: Interval = clopper_pearson(len(faults), len(judged))
    return BehaviourResult(
        name=name,
        type=test.type,
        capability=", ".join(dict.fromkeys(one.capability for one, _ in judged if one.capability)),
        n=len(judged),
        n_failed=len(faults),
        failed_low=seen.low,
        failed_high=seen.high,
        most_failures=test.most_failures,
        passed=len(faults) <= test.most_failures * len(judged) + 1e-9,
        failures=tuple(faults[:10]),
    )


def _check(test: BehaviourTest, place: str) -> None:
    """The rules that types cannot say."""
    varied = bool(test.variants) or bool(test.perturbation)
    n_fillings = int(np.prod([len(values) for values in test.fill.values()] or [1]))
    templates = "\n".join((test.input, *test.variants))
    unused = [slot for slot in test.fill if f"{{{slot}}}" not in templates]
    left = sorted(set(_SLOT.findall(templates)) - set(test.fill)) if test.fill else []
    rules = [
        (bool(test.input.strip()), "input must be non-empty text"),
        (
            test.type != "MFT" or bool(test.expected or test.not_expected),
            "MFT needs expected or not_expected",
        ),
        (test.type == "MFT" or varied, f"{test.type} needs variants or a perturbation"),
        (test.type != "DIR" or test.label is not None, "DIR needs the label that is watched"),
        (test.type != "DIR" or test.direction in DIRECTIONS, f"DIR needs direction, one of {DIRECTIONS}"),
        (0 <= test.by <= 1, "by must be in 0-1"),
        (0 <= test.most_failures < 1, "most_failures must be in [0, 1)"),
        (0 < n_fillings <= MOST_FILLINGS, f"fill must make 1 to {MOST_FILLINGS} texts, got {n_fillings}"),
        (
            test.type == "MFT" or not (test.expected or test.not_expected),
            f"{test.type} compares answers with one another: expected and not_expected are for MFT",
        ),
        (test.type != "MFT" or not varied, "variants and perturbation are for INV and DIR"),
        (
            not unused,
            f"every slot of fill must stand in input or variants, got {unused} that do not",
        ),
        (
            not left,
            f"every slot of input and variants must be in fill, got {left} that are not",
        ),
        (
            all(kind in PERTURBATIONS for kind in _listed(test.perturbation)),
            f"perturbation must be of {list(PERTURBATIONS)}",
        ),
    ]
    for holds, rule in rules:
        if not holds:
            raise InvalidInput(f"{rule}, at test {test.name!r} of {place}.")


def _check_alike(test: BehaviourTest, before: Sequence[BehaviourTest], place: str) -> None:
    """Rows of one name are one test: what holds for the test cannot differ between them."""
    first = next((one for one in before if one.name == test.name), test)
    for field in ("type", "most_failures"):
        asked, got = getattr(first, field), getattr(test, field)
        if asked != got:
            raise InvalidInput(
                f"rows of one name must have one {field}, got {asked!r} and {got!r}, at test "
                f"{test.name!r} of {place}. Give one of them another name."
            )


def _json_rows(text: str, path: Path) -> list[tuple[str, Any]]:
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                rows.append((f"{path}:{number}", decode_json(line, Any)))
            except msgspec.DecodeError as error:
                raise InvalidInput(f"{path}:{number} must be one JSON object: {error}.") from error
    return rows


def _toml_rows(text: str, path: Path) -> list[tuple[str, Any]]:
    try:
        content = decode_toml(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"{path} must be valid TOML: {error}.") from error
    rows = content.get("tests")
    if set(content) != {"tests"} or not isinstance(rows, list):
        raise InvalidInput(f"{path} must hold [[tests]] and nothing else, got {sorted(content)}.")
    return [(f"{path}, [[tests]] {i}", row) for i, row in enumerate(rows, 1)]


def _filled(template: str, filling: Mapping[str, str]) -> str:
    for slot, value in filling.items():
        template = template.replace(f"{{{slot}}}", value)
    return template


def _listed(value: str | list[str] | None) -> list[str]:
    return [] if value is None else [value] if isinstance(value, str) else value
