"""A decision waits for answers that were lost on the way; it counts them neither right nor wrong."""

import msgspec
import pytest

from jettison.decide.gates import judge_not_worse
from jettison.decide.metrics import slice_metrics
from jettison.decide.predictions import read_predictions
from jettison.decision import NotWorse, Verdict
from jettison.record import Record, read_records, write_records
from judged_records import records_of


def lost(record: Record) -> Record:
    return msgspec.structs.replace(
        record, output=None, confidence=None, scores={"label": None}, error="timed out", unanswered=True
    )


@pytest.mark.parametrize("side", ["incumbent", "candidate"])
def test_one_lost_answer_leaves_a_slice_undecided_however_clear_the_rest(side):
    sides = {
        "incumbent": records_of([True] * 3000, candidate="a"),
        "candidate": records_of([True] * 3000, candidate="b"),
    }
    gate = NotWorse(margin=0.01, slices=("all", "lang=de", "lang=en"))
    before = judge_not_worse(gate, sides["incumbent"], sides["candidate"])
    assert {result.verdict for result in before} == {Verdict.SHIP}
    sides[side][0] = lost(sides[side][0])  # of lang=de
    everything, german, english = judge_not_worse(gate, sides["incumbent"], sides["candidate"])
    assert [r.verdict for r in (everything, german, english)] == [
        Verdict.NOT_ENOUGH_DATA,
        Verdict.NOT_ENOUGH_DATA,
        Verdict.SHIP,
    ]
    assert everything.reason == (
        "On all examples 1 example has no answer: it was lost on the way to or from a server. "
        "Evaluate again: only what is missing is asked for."
    )
    assert everything.n_missing == 1


def test_a_loss_does_not_hide_behind_lost_answers_nor_is_it_blamed_on_them():
    incumbent = records_of([True] * 100, candidate="a")
    candidate = [lost(record) for record in records_of([False] * 100, candidate="b")]
    (result,) = judge_not_worse(NotWorse(margin=0.01), incumbent, candidate)
    assert (result.verdict, result.n, result.n_missing) == (Verdict.NOT_ENOUGH_DATA, 0, 100)


def test_metrics_are_of_the_answers_that_came():
    records = records_of([True, True, False, True], candidate="a")
    metrics = slice_metrics([*records[:3], lost(records[3])])
    assert metrics["accuracy"] == pytest.approx(2 / 3)
    assert metrics["error_share"] == 0.0


def test_the_mark_is_kept_on_disk_and_older_files_have_none(tmp_path):
    records = records_of([True, True], candidate="a")
    write_records(tmp_path / "r.parquet", [records[0], lost(records[1])])
    assert [r.unanswered for r in read_records(tmp_path / "r.parquet")] == [False, True]
    assert [r.unanswered for r in read_predictions(tmp_path / "r.parquet").records] == [False, True]

    import pyarrow.parquet as pq

    older = pq.read_table(tmp_path / "r.parquet").drop_columns(["unanswered"])
    pq.write_table(older, tmp_path / "older.parquet")
    assert [r.unanswered for r in read_records(tmp_path / "older.parquet")] == [False, False]
