"""Made splits: apart, grouped, stratified, the same for one seed, whatever the rows' order."""

import random
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jettison.errors import InvalidInput
from jettison.task import read_task
from jettison.task.split import make_split
from task_writing import write_jsonl, write_task

SHARES = {"test": 0.2, "dev": 0.1}

rows_strategy = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 40)), min_size=1, max_size=150)


def split(rows: list[tuple[str, int]], *, seed: int = 0, **options: bool) -> list[str]:
    labels, groups = [label for label, _ in rows], [f"g{group}" for _, group in rows]
    return make_split(labels, groups, shares=SHARES, rest="train", seed=seed, **options)


@given(rows_strategy, st.integers(0, 9))
def test_a_group_is_never_in_two_splits(rows: list[tuple[str, int]], seed: int) -> None:
    found = split(rows, seed=seed)
    assert len(found) == len(rows)
    assert set(found) <= {"train", "dev", "test"}
    places: dict[int, set[str]] = {}
    for (_, group), name in zip(rows, found, strict=True):
        places.setdefault(group, set()).add(name)
    assert all(len(names) == 1 for names in places.values())


@given(rows_strategy, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_changes_nothing(
    rows: list[tuple[str, int]], shuffler: random.Random
) -> None:
    order = list(range(len(rows)))
    shuffler.shuffle(order)
    moved = split([rows[i] for i in order])
    assert [split(rows)[i] for i in order] == moved


@given(rows_strategy)
def test_one_seed_gives_one_split(rows: list[tuple[str, int]]) -> None:
    assert split(rows, seed=3) == split(rows, seed=3)


@settings(max_examples=50)
@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(2, 60), min_size=1), st.integers(0, 5))
def test_each_label_keeps_its_share_to_one_example(sizes: dict[str, int], seed: int) -> None:
    labels = [label for label, n in sizes.items() for _ in range(n)]
    groups = [f"{label}{i}" for i, label in enumerate(labels)]
    found = make_split(labels, groups, shares=SHARES, rest="train", seed=seed)
    counts = Counter(zip(labels, found, strict=True))
    for label, n in sizes.items():
        assert counts[label, "train"] >= 1
        for name, share in SHARES.items():
            assert abs(counts[label, name] - share * n) <= 1
    for name, share in SHARES.items():
        assert sum(counts[label, name] for label in sizes) == pytest.approx(share * len(labels), abs=1.5)


@settings(max_examples=50)
@given(st.lists(st.integers(1, 8), min_size=3, max_size=60))
def test_whole_groups_keep_the_share_to_half_the_largest(group_sizes: list[int]) -> None:
    groups = [f"g{i}" for i, n in enumerate(group_sizes) for _ in range(n)]
    found = make_split(["a"] * len(groups), groups, shares={"test": 0.2}, rest="train", seed=1)
    assert abs(found.count("test") - 0.2 * len(groups)) <= 0.5 + max(group_sizes) / 2


def test_another_seed_gives_another_split() -> None:
    rows = [("a", i) for i in range(100)]
    assert split(rows, seed=0) != split(rows, seed=1)


def test_without_strata_the_share_is_met_over_all() -> None:
    rows = [(label, i) for i, label in enumerate("ab" * 50)]
    assert Counter(split(rows, stratified=False)) == {"train": 70, "test": 20, "dev": 10}


def test_known_answer_two_labels_of_ten() -> None:
    # 10 of each label, shares 0.2 and 0.1: 2 test, 1 dev and 7 train of each.
    rows = [(label, i) for i, label in enumerate("a" * 10 + "b" * 10)]
    counts = Counter(zip([label for label, _ in rows], split(rows), strict=True))
    assert {counts[label, "test"] for label in "ab"} == {2}
    assert {counts[label, "dev"] for label in "ab"} == {1}


text_chat_label = st.tuples(st.integers(0, 99), st.integers(0, 30) | st.none(), st.sampled_from("ab"))
chats = st.lists(text_chat_label, min_size=30, max_size=80)


@settings(max_examples=40, deadline=None)
@given(chats, st.randoms(use_true_random=False))
def test_rows_of_one_text_or_group_stay_together_whatever_their_order(
    data: list[tuple[int, int | None, str]], shuffler: random.Random
) -> None:
    made = [
        {"text": f"{'ABab'[i % 4]} text {text}", "label": label, "chat": chat}
        for i, (text, chat, label) in enumerate(data)
    ]
    source = 'path = "d.jsonl"\ncolumns.group = "chat"'
    with tempfile.TemporaryDirectory() as folder:
        path = write_task(Path(folder), data=source, rest="[split]\ntest_share = 0.3\ndev_share = 0.2")
        found = []
        for _ in range(2):
            write_jsonl(Path(folder) / "d.jsonl", made)
            try:
                task = read_task(path)
            except InvalidInput:  # too linked to be split, or a label fell to one side
                return
            test = task.read_test(purpose="x").examples
            splits = {"train": task.train, "dev": task.dev, "test": test}
            found.append({e.id: name for name, examples in splits.items() for e in examples})
            places: dict[str, set[str]] = {}
            for name, examples in splits.items():
                for example in examples:
                    places.setdefault(f"text {example.input.lower()}", set()).add(name)
                    if example.group is not None:
                        places.setdefault(f"group {example.group}", set()).add(name)
            assert all(len(names) == 1 for names in places.values())
            shuffler.shuffle(made)
        assert found[0] == found[1]
