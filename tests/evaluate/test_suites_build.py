"""Tiers of a task, written as a task that reads, runs and compares."""

import json
import re
from pathlib import Path

import pytest

from embedding_folder import make_static_embedder
from jettison.backends.open import open_model
from jettison.candidate import write_candidate
from jettison.cli.main import main
from jettison.errors import InvalidInput
from jettison.evaluate.scorers import LabelScorer
from jettison.evaluate.slices import Slicer
from jettison.evaluate.suites.attack import _pieces, _Search, attack_all, attacked_examples
from jettison.evaluate.suites.build import SuitePlan, build_suite
from jettison.evaluate.suites.long_tail import LongTail
from jettison.loop.suites import attacked, judge_robust
from jettison.task import Example
from jettison.task.ledger import read_ledger
from jettison.task.read import read_task
from task_writing import hash_word, write_jsonl, write_task

LABELS = ("billing", "delivery", "refund")


def rows(split: str, n: int = 8):
    return [
        {"text": f"{split} my {label} question {hash_word(split, label, i)[:6]} please", "label": label}
        for label in LABELS
        for i in range(n)
    ]


@pytest.fixture
def task(tmp_path):
    return read_task(write_task(tmp_path, train=rows("train", 20), dev=rows("dev"), test=rows("test")))


def other_domain(folder: Path) -> Path:
    return write_jsonl(folder / "pets.jsonl", [{"text": f"how old is my cat {i}"} for i in range(6)])


def test_a_slice_found_by_what_a_run_computes_of_examples_marks_test_too(task, tmp_path):
    computed = Slicer.fit(task.development).apply(task.read_test(purpose="x").examples)
    where = {"density": computed[0].slices["density"]}
    plan = SuitePlan(tiers=("in_domain",), gates=("found_1=yes",), found={"found_1": where})
    build_suite(task, plan, tmp_path / "suite")
    again = read_task(tmp_path / "suite" / "task.toml")
    marked = {e.id for e in again.read_test(purpose="x").examples if e.slices["found_1"] == "yes"}
    assert marked == {e.id for e in computed if e.slices["density"] == where["density"]}


def test_a_suite_is_a_task_whose_tiers_are_slices_and_gates(task, tmp_path):
    plan = SuitePlan(gates=("perturbed", "long_tail"), out_of_domain=(other_domain(tmp_path),))
    suite = build_suite(task, plan, tmp_path / "suite")
    again = read_task(tmp_path / "suite" / "task.toml")
    assert suite.n["in_domain"] == 24
    assert suite.n["perturbed"] == 48
    # 24 alone: 1 - 0.025 ** (1 / 24); two copies of each are one piece of evidence, less a little
    assert suite.smallest_margin["in_domain"] == pytest.approx(0.1425, abs=1e-4)
    assert suite.smallest_margin["perturbed"] == pytest.approx(0.1505, abs=1e-4)
    assert suite.n["out_of_domain"] == 6
    assert again.slice_counts["tier=perturbed"] == 48
    assert again.slice_counts["long_tail=yes"] == suite.n["long_tail"] > 0
    assert again.required_slices == ("tier=in_domain", "tier=perturbed", "long_tail=yes")
    assert again.out_of_scope == "out_of_domain"
    assert again.labels == (*LABELS, "out_of_domain")
    assert len(again.train) == 60
    found = {e.id: e for e in again.read_test(purpose="x").examples}
    outside = [e for e in found.values() if e.slices["tier"] == "out_of_domain"]
    assert {e.expected for e in outside} == {"out_of_domain"}
    assert {e.slices["ood"] for e in outside} == {"pets"}
    assert all(e.source for e in found.values())
    assert any(e.source == "pets.jsonl:1" for e in outside)
    assert "adversarial" in suite.notes[-1]


def test_the_same_plan_gives_the_same_suite(task, tmp_path):
    one, other = (Path(build_suite(task, SuitePlan(), tmp_path / name).folder) for name in ("one", "other"))
    assert (one / "examples.jsonl").read_bytes() == (other / "examples.jsonl").read_bytes()


def test_a_suite_inherits_how_often_its_test_split_was_read(task, tmp_path):
    task.read_test(purpose="a decision")
    suite = build_suite(task, SuitePlan(tiers=("perturbed",)), tmp_path / "suite")
    purposes = [line.purpose for line in read_ledger(Path(suite.folder) / ".jettison" / "test_reads.jsonl")]
    assert purposes == ["a decision"]


def test_a_held_out_class_leaves_the_task_and_is_to_be_refused(task, tmp_path):
    build_suite(task, SuitePlan(hold_out=("refund",), tiers=("out_of_domain",)), tmp_path / "suite")
    again = read_task(tmp_path / "suite" / "task.toml")
    assert {e.expected for e in again.train} == {"billing", "delivery"}
    assert again.slice_counts["ood=held_out"] == 8


def test_texts_that_the_task_has_are_not_out_of_domain(task, tmp_path):
    both = write_jsonl(
        tmp_path / "mixed.jsonl", [{"text": task.train[0].input.upper()}, {"text": "my cat is ill"}]
    )
    suite = build_suite(
        task, SuitePlan(tiers=("out_of_domain",), out_of_domain=(both,)), tmp_path / "suite"
    )
    assert suite.n["out_of_domain"] == 1


def test_traffic_far_from_train_says_that_nobody_looked(tmp_path):
    strange = [{"text": "цены на нефть выросли"}, {"text": "train my refund question abc please"}]
    read = read_task(
        write_task(
            tmp_path, train=rows("train", 20), dev=rows("dev"), test=rows("test"), unlabelled=strange
        )
    )
    plan = SuitePlan(tiers=("out_of_domain",), out_of_domain=(other_domain(tmp_path),))
    suite = build_suite(read, plan, tmp_path / "suite")
    again = read_task(Path(suite.folder) / "task.toml").read_test(purpose="x").examples
    traffic = [e for e in again if e.slices.get("ood") == "traffic"]
    assert [e.input for e in traffic] == ["цены на нефть выросли"]
    assert "unchecked" in (traffic[0].source or "")


def test_given_examples_keep_their_columns_as_slices(task, tmp_path):
    given = write_jsonl(
        tmp_path / "attacks.jsonl", [{"text": "my bi11ing question", "label": "billing", "method": "leet"}]
    )
    plan = SuitePlan(given={"adversarial": (given,)})
    suite = build_suite(task, plan, tmp_path / "suite")
    assert suite.slices["method=leet"] == 1
    assert suite.slices["tier=adversarial"] == 1


def test_a_question_with_choices_and_a_text_to_write_keep_what_judges_them(tmp_path):
    for kind, extra, columns in (
        ("choose", {"choices": ["red", "blue"], "label": "red"}, 'choices = "choices"'),
        ("generate", {"label": "red", "more": ["Red"]}, 'references = "more"'),
    ):
        folder = tmp_path / kind
        folder.mkdir()
        data = {
            split: [{"text": f"which {split} colour is item {i}", **extra} for i in range(6)]
            for split in ("train", "dev", "test")
        }
        rest = f"[data.columns]\n{columns}\n"
        path = write_task(folder, rest=rest, **data)
        path.write_text(path.read_text().replace("[data]", f'kind = "{kind}"\n[data]', 1))
        build_suite(read_task(path), SuitePlan(), folder / "suite")
        again = read_task(folder / "suite" / "task.toml")
        assert again.kind == kind
        one = again.read_test(purpose="x").examples[-1]
        assert one.expected == "red"
        assert one.choices == (("red", "blue") if kind == "choose" else ())
        assert one.references == (("Red",) if kind == "generate" else ())


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (SuitePlan(gates=("tier=weird",)), r"must be a tier or slice that the suite has, got 'tier=weird'"),
        (SuitePlan(hold_out=("refnud",)), r"must be a label of the test split, got 'refnud'"),
        (SuitePlan(per_example=0), r"must be at least 1, got 0"),
        (SuitePlan(tiers=("tail",)), r"a tier must be one of .*got 'tail'"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(task, tmp_path, plan, message):
    with pytest.raises(InvalidInput, match=message):
        build_suite(task, plan, tmp_path / "suite")
    assert not (tmp_path / "suite").exists()


def test_a_suite_replaces_an_earlier_suite_and_nothing_else(task, tmp_path):
    for _ in range(2):
        build_suite(task, SuitePlan(tiers=("in_domain",)), tmp_path / "suite")
    kept = tmp_path / "suite" / "notes.txt"
    kept.write_text("mine")
    with pytest.raises(InvalidInput, match=r"new or an earlier suite's.*with 'notes.txt' in it"):
        build_suite(task, SuitePlan(tiers=("in_domain",)), tmp_path / "suite")
    assert kept.read_text() == "mine"
    with pytest.raises(InvalidInput, match=r"a folder of its own, got the task's"):
        build_suite(task, SuitePlan(), task.folder)
    assert (task.folder / "task.toml").exists()


def test_the_long_tail_is_the_rare_the_strange_and_the_long():
    train = [Example(id=f"a{i}", input=f"show my order {i} now", expected="show") for i in range(40)]
    train += [Example(id=f"b{i}", input=f"stop order {i} now", expected="stop") for i in range(4)]
    from jettison.task.types import Development

    development = Development(
        name="x",
        kind="classify",
        labels=("show", "stop"),
        out_of_scope=None,
        train=tuple(train),
        dev=tuple(train[::3]),
        unlabelled=(),
    )
    common, rare, strange = LongTail(development).mark(
        [
            Example(id="1", input="show my order 5 now", expected="show"),
            Example(id="2", input="stop order 3 now", expected="stop"),
            Example(id="3", input="zxqv wump kjh " * 9, expected="show"),
        ]
    )
    assert common.slices["long_tail"] == "no"
    assert (rare.slices["tail_class"], rare.slices["long_tail"]) == ("yes", "yes")
    assert [strange.slices[f"tail_{why}"] for why in ("density", "tokens", "length")] == ["yes"] * 3


def test_what_is_out_of_scope_is_of_no_tail():
    from jettison.task.types import Development

    train = tuple(Example(id=f"a{i}", input=f"show my order {i} now", expected="show") for i in range(40))
    strange = "zxqv wump kjh " * 9
    development = Development(
        name="x",
        kind="classify",
        labels=("oos", "show"),
        out_of_scope="oos",
        train=train,
        dev=train[::3],
        unlabelled=(),
    )
    outside = Example(id="1", input=strange, expected="oos")
    first, second = LongTail(development).mark([outside, Example(id="2", input=strange, expected="show")])
    assert first == outside
    assert second.slices["long_tail"] == "yes"


def test_an_embedder_tells_what_is_far_from_train_by_meaning(tmp_path):
    embedder = make_static_embedder(tmp_path / "embedder")
    from jettison.task.types import Development

    train = tuple(
        Example(id=f"a{i}", input=f"apple pear {'apple ' * (i % 3)}", expected="show") for i in range(40)
    )
    rarer = tuple(Example(id=f"d{i}", input="pear pear pear apple", expected="show") for i in range(5))
    development = Development(
        name="x", kind="classify", labels=("show",), out_of_scope=None, train=train, dev=train[:5] + rarer,
        unlabelled=(),
    )  # fmt: skip
    near, far = LongTail(development, embedder=embedder).mark(
        [
            Example(id="1", input="pear apple apple", expected="show"),
            Example(id="2", input="song alarm song", expected="show"),
        ]
    )
    assert (near.slices["tail_density"], far.slices["tail_density"]) == ("no", "yes")


class TestAttack:
    """The fake backend finds the label by its name, so that a slip in that word is an attack."""

    def candidate(self, folder, name="model", **settings):
        folder = folder / name
        folder.mkdir(parents=True)
        return write_candidate(folder, name=name, backend="fake", labels=LABELS, settings=settings)

    def test_it_breaks_the_word_that_the_answer_hangs_on_within_its_budget(self, tmp_path):
        model = open_model(self.candidate(tmp_path))
        example = Example(id="1", input="i would like to know about my refund order", expected="refund")
        (found,) = attack_all(model, [example], LabelScorer(), budget=40)
        assert found.succeeded
        assert "refund" not in found.text
        assert found.n_queries <= 40
        assert found.n_changed == 1
        (kept,) = attacked_examples([found], victim="model", seed=0)
        assert kept.expected == "refund"
        assert kept.group == "1"
        assert f"{found.n_queries} questions" in (kept.source or "")

    def test_a_small_budget_finds_less_and_is_never_overspent(self, tmp_path):
        model = open_model(self.candidate(tmp_path))
        examples = [
            Example(
                id=str(i), input=f"one two three four five six {i} refund seven eight", expected="refund"
            )
            for i in range(20)
        ]
        small = attack_all(model, examples, LabelScorer(), budget=4)
        assert max(one.n_queries for one in small) <= 4
        large = attack_all(model, examples, LabelScorer(), budget=60)
        assert sum(one.succeeded for one in small) < sum(one.succeeded for one in large)

    def test_what_was_wrong_from_the_start_is_no_success(self, tmp_path):
        model = open_model(self.candidate(tmp_path))
        (found,) = attack_all(model, [Example(id="1", input="hello", expected="refund")], LabelScorer())
        assert (found.was_right, found.succeeded, found.robust, found.n_queries) == (False, False, 0.0, 1)

    def test_two_models_are_compared_under_their_own_attacks(self, task, tmp_path):
        one, other = self.candidate(tmp_path, "one"), self.candidate(tmp_path, "other", accuracy=0.5)
        examples = task.read_test(purpose="x").examples
        sides = [attacked(str(c.path), task, examples, budget=6, seed=0) for c in (one, other)]
        assert sides[0].success_share is not None
        result = judge_robust(*sides, margin=0.1)
        assert result.n == 24
        assert result.metric == "robust"


def test_the_command_builds_and_says_what_was_left_out(tmp_path, capsys):
    path = write_task(tmp_path, train=rows("train", 20), dev=rows("dev"), test=rows("test"))
    with pytest.raises(SystemExit) as end:
        main(
            ["suites", "build", str(path), "--output", str(tmp_path / "s"), "--gate", "perturbed", "--json"]
        )
    assert end.value.code == 0
    told = json.loads(capsys.readouterr().out)
    assert told["n"]["perturbed"] == 48
    assert told["required"] == ["tier=in_domain", "tier=perturbed"]
    with pytest.raises(SystemExit) as end:
        main(["suites", "build", str(path), "--given", "adversarial"])
    assert end.value.code == 2
    assert "must be TIER=FILE, got 'adversarial'" in capsys.readouterr().err

    @pytest.mark.parametrize("more", [(), ("--json",)])
    def test_what_an_attack_came_to_is_told_with_its_interval(self, task, tmp_path, capsys, more):
        model = self.candidate(tmp_path)
        command = ["suites", "build", str(task.folder / "task.toml"), "--output", str(tmp_path / "suite")]
        command += ["--tier", "in_domain", "--tier", "adversarial", "--attack", str(model.path), *more]
        with pytest.raises(SystemExit) as end:
            main([*command, "--budget", "20"])
        assert end.value.code == 0
        said = capsys.readouterr().out
        if more:
            (told,) = json.loads(said)["attacks"]
            assert (told["n"], told["budget"]) == (24, 20)
            assert told["turned_share_low"] <= told["turned_share"] <= told["turned_share_high"]
            assert told["n_turned"] == round(told["turned_share"] * told["n_right"])
        else:
            assert re.search(
                r"right answers turned wrong, [\d.]+ % \([\d.]+ to [\d.]+\); [\d.]+ of 20 ques", said
            )


def test_no_attack_moves_a_negation():
    example = Example(id="1", input="it is not good at all", expected="negative")
    search = _Search(None, example, None, 60, 0)
    words = [m.span() for m in re.finditer(r"\w+", example.input)]
    pieces = _pieces(example.input, words)
    tried = {"".join(one) for at in range(1, len(pieces), 2) for one in search._changes(pieces, at)}
    assert "is it not good at all" in tried
    assert not [text for text in tried if "good not" in text or "not is" in text]
