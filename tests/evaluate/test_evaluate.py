import time
from pathlib import Path

import msgspec
import pytest

from jettison import registry
from jettison.backends import machine
from jettison.backends.fake import FakeClassifier
from jettison.candidate import Candidate, write_candidate
from jettison.errors import BrokenArtifact, InvalidInput, UnknownName
from jettison.evaluate import evaluate, evaluation_file
from jettison.evaluate import run as run_module
from jettison.record import Cost, Record, mean_score, read_records, read_records_meta, write_records
from jettison.task import Example

LABELS = ("apple", "pear", "oos")


def fake(folder: Path, **settings: object) -> Candidate:
    folder.mkdir(parents=True)
    return write_candidate(
        folder, name="fake", backend="fake", labels=LABELS, out_of_scope="oos", settings=settings
    )


def made_examples(n: int) -> list[Example]:
    return [
        Example(
            id=str(i),
            input=f"{LABELS[i % 3]} number {i}",
            expected=LABELS[i % 3],
            group=f"g{i // 2}",
            slices={"parity": str(i % 2)},
            weight=1.0 + i % 2,
        )
        for i in range(n)
    ]


class Clumsy(FakeClassifier):
    """Fails on a text that says so, and counts what it is asked."""

    asked: list[str] = []  # noqa: RUF012 - shared on purpose, the test reads it
    cured = False

    def predict(self, inputs):  # type: ignore[no-untyped-def]
        if not Clumsy.cured and any("poison" in text for text in inputs):
            raise RuntimeError("the runtime gave up")
        Clumsy.asked += inputs
        return super().predict(inputs)


@pytest.fixture
def clumsy(tmp_path, monkeypatch):
    monkeypatch.setitem(registry._added, ("backends", "clumsy"), Clumsy)
    Clumsy.asked, Clumsy.cured = [], False
    folder = tmp_path / "clumsy"
    folder.mkdir()
    return write_candidate(folder, name="clumsy", backend="clumsy", labels=LABELS)


def same_but_time(a: list[Record], b: list[Record]) -> bool:
    """What was answered; when, and what it took, differs from run to run."""

    def answered(record: Record) -> Record:
        return msgspec.structs.replace(record, time=None, cost=Cost())

    return [answered(r) for r in a] == [answered(r) for r in b]


def test_every_example_gets_one_record_in_order_with_its_facts(tmp_path):
    candidate = fake(tmp_path / "c")
    records = evaluate(candidate, made_examples(7), split="dev", batch_size=3)
    assert [r.example_id for r in records] == list("0123456")
    first = records[1]
    assert (first.output, first.expected, first.scores) == ("pear", "pear", {"label": 1.0})
    assert (first.group, first.slices, first.weight) == ("g0", {"parity": "1"}, 2.0)
    assert (first.candidate, first.split, first.logits, first.error) == (
        candidate.digest,
        "dev",
        None,
        None,
    )


def test_accuracy_of_a_fake_is_what_it_was_told_to_be(tmp_path):
    records = evaluate(fake(tmp_path / "c", accuracy=0.8), made_examples(2000), split="dev")
    assert mean_score(records, "label") == pytest.approx(0.8, abs=0.03)


def test_a_failure_on_one_example_is_recorded_on_it_alone(clumsy):
    examples = made_examples(6)
    examples[2] = msgspec.structs.replace(examples[2], input="poison")
    records = evaluate(clumsy, examples, split="dev", batch_size=4)
    assert [r.error for r in records] == [None, None, "RuntimeError: the runtime gave up", None, None, None]
    assert records[2].output is None
    assert records[2].confidence is None
    assert records[2].scores == {"label": 0.0}
    assert [r.scores["label"] for r in records if r.error is None] == [1.0] * 5


def test_what_failed_is_asked_again_by_the_next_evaluation_and_nothing_else(clumsy, tmp_path):
    examples = made_examples(6)
    examples[2] = msgspec.structs.replace(examples[2], input="oos poison")
    settings = {"split": "dev", "folder": tmp_path / "kept"}
    before = evaluate(clumsy, examples, **settings)
    assert [r.error is not None for r in before] == [False, False, True, False, False, False]
    Clumsy.asked, healthy = [], examples[2].input
    Clumsy.cured = True
    after = evaluate(clumsy, examples, **settings)
    assert Clumsy.asked == [healthy]
    assert after[2].error is None
    assert after[:2] + after[3:] == before[:2] + before[3:]
    Clumsy.asked = []
    assert evaluate(clumsy, examples, **settings) == after
    assert Clumsy.asked == []


def test_evidence_of_another_processor_is_not_this_ones(clumsy, tmp_path, monkeypatch):
    examples, settings = made_examples(4), {"split": "dev", "folder": tmp_path / "kept"}
    evaluate(clumsy, examples, **settings)
    evaluate(clumsy, examples, **settings)
    assert len(Clumsy.asked) == 4
    elsewhere = dict(machine.answering_machine()) | {"features": "avx2"}
    monkeypatch.setattr(run_module, "answering_machine", lambda: tuple(elsewhere.items()))
    evaluate(clumsy, examples, **settings)
    assert len(Clumsy.asked) == 8


def test_models_side_by_side_answer_as_one(tmp_path):
    examples = made_examples(70)
    one = evaluate(fake(tmp_path / "c", accuracy=0.8), examples, split="dev", batch_size=8)
    three = evaluate(fake(tmp_path / "d", accuracy=0.8), examples, split="dev", batch_size=8, workers=3)
    assert same_but_time(one, three)


def test_a_failure_beside_other_batches_stays_with_its_example(clumsy):
    examples = made_examples(20)
    examples[7] = msgspec.structs.replace(examples[7], input="poison")
    found = evaluate(clumsy, examples, split="dev", batch_size=4, workers=2)
    assert [i for i, r in enumerate(found) if r.error] == [7]


def test_failures_are_counted_in_the_footer(clumsy, tmp_path):
    examples = made_examples(4)
    examples[0] = msgspec.structs.replace(examples[0], input="poison")
    evaluate(clumsy, examples, split="dev", folder=tmp_path / "e")
    meta = read_records_meta(evaluation_file(tmp_path / "e", clumsy, examples, split="dev"))
    assert (meta["n_errors"], meta["n_examples"]) == (1, 4)
    assert meta["machine"]


def test_a_finished_evaluation_is_not_run_again(clumsy, tmp_path):
    examples = made_examples(5)
    first = evaluate(clumsy, examples, split="dev", folder=tmp_path)
    Clumsy.asked = []
    assert evaluate(clumsy, examples, split="dev", folder=tmp_path) == first
    assert Clumsy.asked == []
    evaluate(clumsy, examples, split="test", folder=tmp_path)
    assert len(Clumsy.asked) == 5


def test_a_killed_run_resumes_where_its_parts_end(clumsy, tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "FLUSH_AFTER_S", 0.0)
    examples = made_examples(9)

    def killed(message: str, share: float | None) -> None:
        if share is not None and share > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(clumsy, examples, split="dev", folder=tmp_path, batch_size=3, progress=killed)
    path = evaluation_file(tmp_path, clumsy, examples, split="dev")
    assert not path.exists()
    Clumsy.asked = []
    records = evaluate(clumsy, examples, split="dev", folder=tmp_path, batch_size=3)
    assert [r.example_id for r in records] == [e.id for e in examples]
    assert Clumsy.asked == [e.input for e in examples[6:]]
    assert same_but_time(records, evaluate(clumsy, examples, split="dev"))
    assert [p.name for p in tmp_path.glob("dev-*")] == [path.name]


def test_a_torn_part_is_asked_again(clumsy, tmp_path):
    examples = made_examples(4)
    parts = evaluation_file(tmp_path, clumsy, examples, split="dev").with_suffix(".parts")
    whole = evaluate(clumsy, examples, split="dev")
    write_records(parts / "000000000.parquet", whole[:2])
    (parts / "000000002.parquet").write_bytes(b"PAR1 torn")
    Clumsy.asked = []
    assert same_but_time(evaluate(clumsy, examples, split="dev", folder=tmp_path), whole)
    assert Clumsy.asked == [e.input for e in examples[2:]]


def test_a_damaged_evaluation_is_made_again(tmp_path):
    candidate, examples = fake(tmp_path / "c"), made_examples(3)
    whole = evaluate(candidate, examples, split="dev", folder=tmp_path)
    path = evaluation_file(tmp_path, candidate, examples, split="dev")
    path.write_bytes(b"PAR1 damaged")
    assert same_but_time(evaluate(candidate, examples, split="dev", folder=tmp_path), whole)
    assert len(read_records(path)) == 3


def test_records_depend_on_everything_in_the_file_name(tmp_path):
    candidate, examples = fake(tmp_path / "c"), made_examples(3)
    other = fake(tmp_path / "d", accuracy=0.5)
    paths = {
        evaluation_file(tmp_path, candidate, examples, split="dev"),
        evaluation_file(tmp_path, other, examples, split="dev"),
        evaluation_file(tmp_path, candidate, examples[:2], split="dev"),
        evaluation_file(tmp_path, candidate, examples, split="test"),
        evaluation_file(tmp_path, candidate, examples, split="dev", scorers=("label", "out_of_scope")),
        evaluation_file(tmp_path, candidate, examples, split="dev", keep_logits=True),
    }
    assert len(paths) == 6


def test_logits_are_kept_on_demand(tmp_path):
    records = evaluate(fake(tmp_path / "c"), made_examples(2), split="dev", keep_logits=True)
    assert all(r.logits is not None and len(r.logits) == 3 for r in records)


def test_no_examples_give_no_records_and_open_nothing(tmp_path):
    candidate = fake(tmp_path / "c")
    assert evaluate(msgspec.structs.replace(candidate, backend="absent"), [], split="dev") == []


def test_one_id_twice_is_refused(tmp_path):
    examples = [made_examples(1)[0]] * 2
    with pytest.raises(InvalidInput, match=r"ids of examples must be all different, got '0' twice"):
        evaluate(fake(tmp_path / "c"), examples, split="dev")


def test_a_killed_evaluation_of_a_slow_model_loses_a_few_answers_alone(clumsy, tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "FLUSH_AFTER_S", 0.0)
    monkeypatch.setattr(run_module, "ONE_BY_ONE", (clumsy.backend,))
    examples, seen = made_examples(50), []

    def killed(message: str, share: float | None) -> None:
        seen.append(share)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(clumsy, examples, split="dev", folder=tmp_path, progress=killed)
    assert seen == [16 / 50, 32 / 50]
    Clumsy.asked = []
    evaluate(clumsy, examples, split="dev", folder=tmp_path)
    assert Clumsy.asked == [e.input for e in examples[32:]]


def test_a_batch_size_under_one_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match="batch_size must be at least 1, got 0"):
        evaluate(fake(tmp_path / "c"), made_examples(1), split="dev", batch_size=0)


def test_an_unknown_scorer_is_named(tmp_path):
    with pytest.raises(UnknownName, match=r"jettison.scorers must be one of .*got 'lable'"):
        evaluate(fake(tmp_path / "c"), made_examples(1), split="dev", scorers=("lable",))


def test_a_backend_that_drops_an_output_is_refused(tmp_path, monkeypatch):
    class Forgetful(FakeClassifier):
        def predict(self, inputs):  # type: ignore[no-untyped-def]
            return super().predict(inputs)[1:]

    monkeypatch.setitem(registry._added, ("backends", "forgetful"), Forgetful)
    candidate = msgspec.structs.replace(fake(tmp_path / "c"), backend="forgetful")
    with pytest.raises(BrokenArtifact, match="one output per input, got 2 for 3 inputs"):
        evaluate(candidate, made_examples(3), split="dev")


def test_the_harness_takes_under_half_a_millisecond_per_example(tmp_path):
    candidate, examples = fake(tmp_path / "c"), made_examples(4000)
    model = FakeClassifier(candidate)
    began = time.process_time()
    model.predict([e.input for e in examples])
    alone = time.process_time() - began
    evaluate(candidate, examples[:2], split="dev", folder=tmp_path / "warm")
    began = time.process_time()
    evaluate(candidate, examples, split="dev", scorers=("label", "out_of_scope"), folder=tmp_path / "e")
    overhead = (time.process_time() - began - alone) / len(examples)
    assert overhead < 0.5e-3
