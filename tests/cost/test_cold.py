"""Cold starts in fresh processes, and how cold they were."""

from pathlib import Path

from jettison.candidate import write_candidate
from jettison.cost.cold import cached_share, measure_cold_starts
from jettison.decide.report_costs import cost_notes, cost_rows
from jettison.decision import ColdStart, CostSummary, Interval


def test_each_start_is_a_process_of_its_own_and_few_have_no_interval(tmp_path: Path) -> None:
    made = write_candidate(tmp_path, name="one", backend="fake", labels=("a", "b"))
    (found,) = measure_cold_starts([made], ["a text"], 2, threads=1, say=lambda *_: None)
    assert found.n_starts == 2
    assert 0 < found.load_s.low <= found.load_s.value <= found.load_s.high
    assert found.load_s.method == "least to most: no interval"
    assert found.first_answer_s.value < found.load_s.value
    assert found.import_s is not None
    assert found.open_s is not None
    assert 0 < found.open_s.value < found.import_s.value < found.load_s.value


def test_pages_that_were_just_read_are_known_to_be_in_memory(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(bytes(1_000_000))
    made = write_candidate(tmp_path, name="one", backend="fake", labels=("a", "b"))
    (tmp_path / "model.onnx").read_bytes()
    share = cached_share(made)
    assert share is None or share > 0.9


def test_a_start_that_was_not_cold_says_so() -> None:
    one = Interval(value=1.0, low=0.9, high=1.2, method="median")
    for share, words in ((0.0, "dropped before each"), (0.4, "40% of an artifact: that start was not cold"),
                         (None, "not told here")):  # fmt: skip
        cold = ColdStart(n_starts=6, load_s=one, first_answer_s=one, cached_share=share)
        costs = [CostSummary(cold=cold)]
        assert any(words in note for note in cost_notes(costs, ["m"] * len(costs)))
        rows = {row.name: row.figures for row in cost_rows(costs)}
        assert rows["Cold start: load"] == ["1 s [900 ms, 1.2 s]"]
