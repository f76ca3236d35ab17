"""Subgroups are found by what can be named, confirmed on a second half, and carried over to test."""

import itertools
import json

import numpy as np
import pytest

from jettison.candidate import write_candidate
from jettison.cli.main import main
from jettison.errors import InvalidInput, NotEnoughData
from jettison.evaluate.suites.discover import discover_slices, is_member
from jettison.stats.subgroup import subgroup_p
from jettison.task import Example
from planted import losses, requests
from task_writing import write_jsonl, write_task

EXAMPLES = requests(3000)


def test_the_p_value_counts_the_ways_to_choose_the_members():
    # 6 units with losses 1, 1, 0, 0, 0, -1; the members hold both losses: of the 15 pairs one sums to 2.
    assert subgroup_p([1, 1, 0, 0, 0, -1], [1, 1, 0, 0, 0, 0]) == pytest.approx(1 / 15)


def test_the_counted_p_value_is_that_of_trying_every_subgroup():
    rng = np.random.default_rng(0)
    for _ in range(10):
        loss, size = rng.choice([-1, 0, 0, 0, 1], 9).astype(float), int(rng.integers(2, 7))
        sums = [sum(loss[list(c)]) for c in itertools.combinations(range(9), size)]
        expected = np.mean([s >= loss[:size].sum() for s in sums])
        assert subgroup_p(loss, np.arange(9) < size) == pytest.approx(expected)


def test_graded_losses_are_drawn_and_come_near_the_counted_ones():
    rng = np.random.default_rng(3)
    loss = losses(300, rng, 0.1)
    member = np.arange(300) < 60
    assert subgroup_p(loss * 0.5, member) == pytest.approx(subgroup_p(loss, member), abs=0.02)


def test_a_planted_word_is_found_and_its_rule_fits_other_examples():
    member = np.array(["d11w1" in e.input.split() for e in EXAMPLES])
    loss = losses(len(EXAMPLES), np.random.default_rng(1), np.where(member, 0.2, 0.02))
    found = discover_slices(EXAMPLES, loss).found
    assert found[0].where == {"word": "d11w1"}
    assert found[0].loss > 0.1
    assert found[0].p_value < 1e-4
    assert found[0].n < member.sum()
    assert [is_member(e, found[0].where) for e in EXAMPLES] == member.tolist()


def test_a_planted_pair_of_columns_is_found():
    wanted = {"domain": "d10", "channel": "app"}
    member = np.array([e.slices == wanted for e in EXAMPLES])
    loss = losses(len(EXAMPLES), np.random.default_rng(2), np.where(member, 0.4, 0.02))
    assert discover_slices(EXAMPLES, loss).found[0].where == wanted


def test_nothing_is_found_where_both_models_answer_alike():
    found = discover_slices(EXAMPLES, np.zeros(len(EXAMPLES)))
    assert found.found == ()
    assert found.n_searched > 50
    assert found.n_tested == 0


def test_copies_of_one_example_are_no_evidence():
    # One word, one group of 60 copies, all lost: a single event.
    copies = [
        Example(id=f"c{i}", input=f"unheard {EXAMPLES[i].input}", group="one", slices={"k": "c"})
        for i in range(60)
    ]
    loss = np.append(losses(1500, np.random.default_rng(5)), np.ones(60))
    found = discover_slices([*EXAMPLES[:1500], *copies], loss)
    assert not any("unheard" in one.name or "k=c" in one.name for one in found.found)


def test_bad_losses_are_refused():
    with pytest.raises(InvalidInput, match="one for each of 3000 examples"):
        discover_slices(EXAMPLES, np.full(3000, np.nan))
    with pytest.raises(NotEnoughData, match="at least 80 examples, got 20"):
        discover_slices(EXAMPLES[:20], np.zeros(20))


def test_a_found_slice_becomes_a_gate_of_the_suite(tmp_path, capsys):
    def rows(split, n):
        words = ("order", "parcel", "voucher", "account")
        return [
            {
                "id": f"{split}{i}",
                "text": f"{split} {i}: my {words[i % 4]} {'billing' if i % 2 else 'refund'} {i * 7919}",
                "label": "billing" if i % 2 else "refund",
            }
            for i in range(n)
        ]

    test = rows("test", 40)
    path = write_task(
        tmp_path,
        rest='[data.columns]\nid = "id"\n',
        train=rows("train", 60),
        dev=rows("dev", 800),
        test=test,
    )
    dev = rows("dev", 800)
    for name, wrong in (("a", False), ("b", True)):
        answers = [
            {"id": r["id"], "output": "none" if wrong and "voucher" in r["text"] and i % 3 else r["label"]}
            for i, r in enumerate(dev)
        ]
        write_jsonl(tmp_path / f"{name}.jsonl", answers)
    found = tmp_path / "found.json"
    with pytest.raises(SystemExit) as end:
        main(f"suites find {tmp_path}/a.jsonl {tmp_path}/b.jsonl --task {path} --output {found}".split())
    assert end.value.code == 1
    out = capsys.readouterr().out
    assert "1 confirmed" in out
    assert "A right, B wrong" in out
    assert json.loads(found.read_text())["slices"][0]["where"] == {"word": "voucher"}
    with pytest.raises(SystemExit) as end:
        main(f"suites build {path} --output {tmp_path}/s --found {found} --gate found_1=yes --json".split())
    assert end.value.code == 0
    told = json.loads(capsys.readouterr().out)
    assert told["slices"]["found_1=yes"] == 10
    assert "found_1=yes" in told["required"]


def test_too_few_examples_are_said(tmp_path, capsys):
    path = write_task(tmp_path)
    folder = tmp_path / "model"
    folder.mkdir()
    write_candidate(folder, name="m", backend="fake", labels=("buy", "sell"))
    with pytest.raises(SystemExit) as end:
        main(["suites", "find", str(folder), str(folder), "--task", str(path)])
    assert end.value.code == 2  # 12 dev examples cannot tell
    assert "at least 80 examples, got 12" in capsys.readouterr().err
