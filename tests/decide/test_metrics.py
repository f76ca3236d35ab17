"""Metrics by slice, from records."""

import msgspec
import pytest

from jettison.decide.metrics import per_class, slice_counts, slice_metrics, summarize
from jettison.record import Record
from judged_records import records_of


def scoped(expected: str, output: str, in_scope: float, *, flagged: bool, example: str) -> Record:
    return Record(
        candidate="c",
        example_id=example,
        split="test",
        output=output,
        expected=expected,
        confidence=0.8,
        in_scope=in_scope,
        flagged=flagged,
        scores={"label": float(expected == output)},
        slices={"scope": "out" if expected == "none" else "in"},
    )


def test_scope_metrics_by_hand() -> None:
    records = [
        scoped("a", "a", 0.9, flagged=False, example="1"),
        scoped("b", "a", 0.5, flagged=True, example="2"),
        scoped("none", "a", 0.1, flagged=True, example="3"),
        scoped("none", "none", 0.7, flagged=False, example="4"),
    ]
    metrics = summarize(records)["all"]
    assert metrics["accuracy"] == 0.5
    assert metrics["accuracy_in_scope"] == 0.5
    assert metrics["auroc"] == 0.75  # of 4 in-out pairs, 0.5 against 0.7 is the wrong way round
    assert metrics["out_of_scope_recall"] == 0.5
    assert metrics["false_alarm_share"] == 0.5
    assert slice_counts(records) == {"all": 4, "scope=in": 2, "scope=out": 2}


def test_what_cannot_be_known_is_none() -> None:
    bare = [Record(candidate="c", example_id=str(i), split="test", output="a") for i in range(3)]
    metrics = summarize(bare)["all"]
    assert metrics["error_share"] == 0.0
    for name in ("accuracy", "macro_f1", "auroc", "ece", "brier", "mean_confidence", "false_alarm_share"):
        assert metrics[name] is None


def test_a_failed_call_lowers_accuracy_and_is_counted() -> None:
    records = records_of([True] * 4, candidate="c")
    records[0] = msgspec.structs.replace(records[0], output=None, error="timeout", scores={})
    metrics = summarize(records)["all"]
    assert metrics["accuracy"] == pytest.approx(0.75)
    assert metrics["error_share"] == pytest.approx(0.25)
    assert metrics["mean_confidence"] == pytest.approx(0.9)


def test_per_class_reads_labels() -> None:
    scores = {c.label: c for c in per_class(records_of([True, True, False], candidate="c", wrong="no"))}
    assert scores["yes"].recall == pytest.approx(2 / 3)
    assert scores["no"].n_expected == 0


def test_where_another_scorer_judged_texts_are_not_compared_too() -> None:
    said = {"candidate": "c", "split": "test", "output": "It is 4.", "expected": "4"}
    records = [Record(example_id=str(i), scores={"includes": 1.0}, **said) for i in range(4)]
    found = slice_metrics(records)
    assert (found["includes"], found["accuracy"], found["macro_f1"]) == (1.0, None, None)
    assert slice_metrics([msgspec.structs.replace(r, scores={}) for r in records])["accuracy"] == 0.0
