"""A window read by columns counts what one would count record by record, however the log is cut."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jettison.evaluate.profile import reference_sketch
from jettison.monitor import drift_window
from jettison.monitor.drift_window import OTHER, Window, is_lean_answer
from jettison.record import Cost, Record
from jettison.release.describe import answer_categories, answer_scores
from jettison.release.sketch import Sketch, binned


def record(number: int, **changed: object) -> Record:
    facts: dict[str, object] = {
        "candidate": "lean",
        "example_id": f"r{number}",
        "split": "live",
        "output": "card" if number % 3 else "loan",
        "confidence": (number % 10) / 10,
        "slices": {"place": "web" if number % 2 else "shop"},
        "input": f"request number {number} about a card",
    }
    return Record(**{**facts, **changed})  # type: ignore[arg-type]


KNOWN = [record(number) for number in range(200)]
SKETCH: Sketch = reference_sketch(KNOWN, [str(r.input) for r in KNOWN])

records = st.lists(
    st.builds(
        record,
        st.integers(0, 10_000),
        candidate=st.sampled_from(("lean", "large")),
        output=st.sampled_from(("card", "loan", "new", None)),
        confidence=st.one_of(st.none(), st.floats(0, 1)),
        in_scope=st.one_of(st.none(), st.floats(0, 1)),
        flagged=st.sampled_from((None, True, False)),
        role=st.sampled_from((None, "answer", "lean", "shadow", "audit")),
        route=st.sampled_from((None, "lean", "fallback")),
        error=st.sampled_from((None, None, "timeout")),
        cost=st.builds(Cost, completion_tokens=st.one_of(st.none(), st.integers(0, 500))),
        input=st.one_of(st.none(), st.text(max_size=20)),
    ),
    max_size=30,
)


@settings(max_examples=40, deadline=None)
@given(records, st.integers(0, 30), st.sampled_from((None, ("lean",))))
def test_columns_count_what_records_say(
    some: list[Record], cut: int, candidates: tuple[str, ...] | None
) -> None:
    window = Window(SKETCH, candidates=candidates)
    window.take(some[:cut])
    window.take(some[cut:])
    scores: dict[tuple[str, str], list[float]] = {}
    categories: dict[str, Counter[str]] = {}
    for one in some:
        if not is_lean_answer(one, candidates):
            continue
        places = [f"{k}={v}" for k, v in one.slices.items() if f"{k}={v}" in SKETCH.slices]
        for name, value in answer_scores(one).items():
            for where in ("all", *places):
                scores.setdefault((where, name), []).append(value)
        for name, value in answer_categories(one, is_text=False).items():
            categories.setdefault(name, Counter())[value] += 1
    for key, values in scores.items():
        np.testing.assert_array_equal(window.scores[key], binned(key[1], values))
    assert {k: v for k, v in window.scores.items() if v.any()}.keys() == scores.keys()
    for name, counts in categories.items():
        assert window.category(name) == counts
    asked = [one for one in some if one.role in (None, "answer")]
    assert window.n_records == len(asked)
    assert sorted(window.texts) == sorted(one.input for one in asked if one.input is not None)


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(drift_window, "MOST_TEXTS", 50)
    monkeypatch.setattr(drift_window, "MOST_CATEGORIES", 5)
    window = Window(SKETCH)
    for start in range(0, 2000, 250):
        window.take(record(n, output=f"label {n}") for n in range(start, start + 250))
    assert len(window.texts) == 50
    # An even sample: about half of it is of the first half.
    early = sum(int(text.split()[2]) < 1000 for text in window.texts)
    assert 12 <= early <= 38
    labels = window.category("label")
    assert labels.total() == 2000
    assert len(labels) <= 6
    assert labels[OTHER] == 1995
