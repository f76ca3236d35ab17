"""What reading a task turns up: each oddity planted, found, counted and listed."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jettison.task import Finding, read_task
from jettison.task.similar import near_duplicates
from task_writing import hash_word, rows, write_task


def findings(folder: Path, rule: str, rest: str = "", **splits: Any) -> list[Finding]:
    return [f for f in read_task(write_task(folder, rest=rest, **splits)).findings if f.rule == rule]


def test_clean_data_has_no_findings(tmp_path: Path) -> None:
    assert read_task(write_task(tmp_path)).findings == ()


def test_test_texts_in_train_are_counted_and_listed(tmp_path: Path) -> None:
    test = rows(split="test")
    train = [*rows(split="train"), {"text": f"  {test[2]['text'].title()}", "label": "buy"}]
    (found,) = findings(tmp_path, "duplicate_across_splits", train=train, test=test)
    assert (found.severity, found.n_examples) == ("warning", 1)
    assert found.message.startswith("texts of test that are in train too: 1. A model may")
    reading = read_task(tmp_path / "task.toml").read_test(purpose="x")
    assert found.examples == (reading.examples[2].id,)


def test_copies_within_a_split_are_noted(tmp_path: Path) -> None:
    train = rows(split="train")
    (found,) = findings(tmp_path, "duplicate", train=[*train, train[0], train[0]])
    assert (found.severity, found.n_examples) == ("note", 2)


def test_one_text_with_two_labels_is_a_conflict(tmp_path: Path) -> None:
    train = rows(split="train")
    (found,) = findings(tmp_path, "conflicting_labels", train=[*train, {**train[0], "label": "sell"}])
    assert found.n_examples == 2
    assert "'buy' and 'sell'" in found.message


def test_near_duplicates_across_splits_are_found(tmp_path: Path) -> None:
    long = "please move forty dollars from my checking to my savings account"
    train = [*rows(split="train"), {"text": long, "label": "buy"}]
    test = [*rows(split="test"), {"text": long + "s", "label": "buy"}]
    (found,) = findings(tmp_path, "near_duplicate_across_splits", train=train, test=test)
    assert found.n_examples == 1
    assert "similarity of their character 4-grams at least 0.8" in found.message


def test_empty_and_very_long_texts_are_found(tmp_path: Path) -> None:
    train = [*rows(split="train"), {"text": "  ", "label": "buy"}, {"text": "long " * 500, "label": "buy"}]
    assert findings(tmp_path, "empty_text", train=train)[0].n_examples == 1
    assert findings(tmp_path, "long_text", train=train)[0].n_examples == 1


def test_labels_with_few_examples_and_none_in_test_are_named(tmp_path: Path) -> None:
    train = [*rows(split="train"), {"text": "hold on to it", "label": "hold {n}"}]
    assert "'hold {n}'" in findings(tmp_path, "few_examples", train=train)[0].message
    assert "'hold {n}'" in findings(tmp_path, "untested_label", train=train)[0].message


def test_imbalance_is_noted(tmp_path: Path) -> None:
    train = [*rows(100, split="train", labels=["buy"]), *rows(5, split="train", labels=["sell"])]
    assert (
        "'buy' has 100 examples and 'sell' has 5" in findings(tmp_path, "imbalance", train=train)[0].message
    )


@pytest.mark.parametrize(
    "typo", ["Cancel_Order", "cancel-order", "cancel_ordr", "cancle_order", "cancel_orders"]
)
def test_a_rare_label_like_a_common_one_is_suspected(tmp_path: Path, typo: str) -> None:
    train = [*rows(20, split="train", labels=["cancel_order", "buy"]), {"text": "stop", "label": typo}]
    others = {split: rows(split=split, labels=["cancel_order", "buy"]) for split in ("dev", "test")}
    (found,) = findings(tmp_path, "label_typo", train=train, **others)
    assert f"{typo!r} = 'cancel_order'" in found.message


def test_labels_that_merely_resemble_each_other_are_left_alone(tmp_path: Path) -> None:
    labels = ["card_arrival", "card_arrived"]
    splits = {split: rows(split=split, labels=labels) for split in ("train", "dev", "test")}
    assert not findings(tmp_path, "label_typo", **splits)


def jaccard(a: str, b: str) -> float:
    first, second = ({f" {text} "[i : i + 4] for i in range(len(text) - 1)} for text in (a, b))
    return len(first & second) / len(first | second)


def test_near_duplicates_agree_with_comparing_every_pair() -> None:
    rng = np.random.default_rng(0)
    words = [hash_word(i)[:6] for i in range(40)]
    texts = list(dict.fromkeys(" ".join(rng.choice(words, 12)) for _ in range(150)))
    texts += [text.replace(words[0], words[1], 1) for text in texts[:100] if words[0] in text]
    texts += [text[:-1] + "q" for text in texts[:50]]
    texts = list(dict.fromkeys(texts))
    expected = {
        (i, j): jaccard(texts[i], texts[j])
        for i, j in itertools.combinations(range(len(texts)), 2)
        if jaccard(texts[i], texts[j]) >= 0.8
    }
    found = {(pair.first, pair.second): pair.similarity for pair in near_duplicates(texts)}
    assert len(expected) > 40
    assert found.keys() == expected.keys()
    assert all(found[pair] == pytest.approx(expected[pair]) for pair in expected)


@given(st.lists(st.text(max_size=30), max_size=20, unique=True))
def test_any_texts_can_be_compared(texts: list[str]) -> None:
    for pair in near_duplicates(texts):
        assert 0 <= pair.first < pair.second < len(texts)
        assert 0.8 <= pair.similarity <= 1
