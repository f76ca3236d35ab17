"""Fine-tuning learns the labels, stops in time, and leaves a stock checkpoint."""

import time
from pathlib import Path

import numpy as np
import pytest

from jettison.candidate import Candidate
from jettison.compress.deadline import Deadline
from jettison.compress.training import (
    FitSettings,
    Rows,
    label_targets,
    one_cycle,
    pad_rows,
    shuffled_batches,
)
from jettison.errors import InvalidInput, StepFailed
from tiny import make_tiny_bert, tiny_candidate
from torch_steps import accuracy, make, trained

FAST = {
    "step": "finetune",
    "learning_rate": 5e-3,
    "epochs": 12,
    "batch_size": 16,
    "precision": "float32",
}


def untrained(folder: Path) -> Candidate:
    _, development = trained()
    return tiny_candidate(make_tiny_bert(folder / "random", development.labels, layers=2), development)


def weights(candidate: Candidate) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(candidate.path / "model.safetensors")


def test_it_learns_a_learnable_task(tmp_path: Path) -> None:
    start = untrained(tmp_path)
    assert accuracy(start) < 0.5
    tuned = make(tmp_path, start, FAST)
    assert accuracy(tuned) > 0.85
    training = tuned.lineage[-1].notes["training"]
    assert training["losses"][0] > training["losses"][-1]
    assert training["best_accuracy"] == max(training["dev_accuracies"])


def test_the_same_seed_gives_the_same_weights_and_another_gives_others(tmp_path: Path) -> None:
    start = untrained(tmp_path)
    step = {**FAST, "epochs": 1}
    assert make(tmp_path / "a", start, step).digest == make(tmp_path / "b", start, step).digest
    assert make(tmp_path / "c", start, step, seed=1).digest != make(tmp_path / "a", start, step).digest


def test_head_mode_leaves_the_body_as_it_was(tmp_path: Path) -> None:
    start = untrained(tmp_path)
    before, after = weights(start), weights(make(tmp_path, start, {**FAST, "mode": "head", "epochs": 1}))
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {"classifier.weight", "classifier.bias"}


def test_lora_is_merged_into_a_stock_checkpoint(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    start = untrained(tmp_path)
    tuned = make(tmp_path, start, {**FAST, "mode": "lora", "learning_rate": 2e-2})
    _, loading = AutoModelForSequenceClassification.from_pretrained(tuned.path, output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    before, after = weights(start), weights(tuned)
    assert before.keys() == after.keys()
    adapted = "bert.encoder.layer.0.attention.self.query.weight"
    change = after[adapted] - before[adapted]
    assert 0 < np.linalg.matrix_rank(change, tol=1e-4) <= 8
    assert accuracy(tuned) > accuracy(start) + 0.2


def test_a_diverging_loss_is_one_clear_error_and_leaves_nothing(tmp_path: Path) -> None:
    start = untrained(tmp_path)
    with pytest.raises(StepFailed, match=r"loss must stay finite, got (nan|inf) at step \d+ .*1e\+30"):
        make(tmp_path, start, {**FAST, "learning_rate": 1e30})
    assert list((tmp_path / "cache").iterdir()) == []


def test_it_ends_at_the_deadline_with_the_best_so_far(tmp_path: Path) -> None:
    start = untrained(tmp_path)
    started = time.monotonic()
    tuned = make(
        tmp_path, start, {**FAST, "epochs": 10_000, "patience": 10_000}, deadline=Deadline(started + 3.0)
    )
    assert time.monotonic() - started < 40
    training = tuned.lineage[-1].notes["training"]
    assert training["stopped"] == "deadline"
    assert training["n_steps"] >= 1


def test_without_time_left_nothing_is_passed_off_as_trained(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match=r"must begin before the deadline, got no time left"):
        make(tmp_path, untrained(tmp_path), FAST, deadline=Deadline(time.monotonic() - 1))


def test_it_stops_early_when_dev_no_longer_gains(tmp_path: Path) -> None:
    incumbent, _ = trained()
    training = (
        make(tmp_path, incumbent, {**FAST, "epochs": 60, "patience": 2}).lineage[-1].notes["training"]
    )
    assert training["stopped"] == "early"
    accuracies = training["dev_accuracies"]
    assert len(accuracies) < 60
    assert max(accuracies[:-2]) == training["best_accuracy"]


def test_seeds_and_curve_are_noted(tmp_path: Path) -> None:
    start = untrained(tmp_path)
    step = {**FAST, "epochs": 8, "seeds": 2, "curve": [0.25, 0.5]}
    notes = make(tmp_path, start, step).lineage[-1].notes
    reached = notes["seeds"]["dev_fit_accuracies"]
    assert len(reached) == 2
    assert notes["seeds"]["spread"] == pytest.approx(max(reached) - min(reached))
    assert [point["train_share"] for point in notes["curve"]] == [0.25, 0.5, 1.0]
    assert notes["curve"][0]["dev_fit_accuracy"] <= notes["curve"][2]["dev_fit_accuracy"]


def test_settings_out_of_range_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"step 'finetune': Expected `int` >= 1 - at `\$.epochs`"):
        make(tmp_path, untrained(tmp_path), {"step": "finetune", "epochs": 0})
    with pytest.raises(InvalidInput, match=r"step 'finetune': Invalid enum value 'half'"):
        make(tmp_path, untrained(tmp_path), {"step": "finetune", "mode": "half"})


def test_every_example_is_in_one_batch_of_like_length() -> None:
    lengths = np.random.default_rng(0).integers(1, 60, 1000)
    batches = list(shuffled_batches(lengths, 16, np.random.default_rng(1)))
    assert sorted(np.concatenate(batches).tolist()) == list(range(1000))
    spread = np.mean([np.ptp(lengths[batch]) for batch in batches])
    assert spread < 15  # of batches drawn at random it is about 52


def test_the_learning_rate_rises_to_one_and_falls_to_almost_nothing() -> None:
    # At the end of the warm-up cos(0) = 1; at the end cos(pi) = -1 leaves the floor of 0.01.
    assert one_cycle(0.05, 0.1) == pytest.approx(0.5)
    assert one_cycle(0.1, 0.1) == pytest.approx(1.0)
    assert one_cycle(1.0, 0.1) == pytest.approx(0.01)


def test_rows_are_padded_and_masked() -> None:
    ids, mask = pad_rows([[5, 6, 7], [8]], pad_id=9)
    assert ids.tolist() == [[5, 6, 7], [8, 9, 9]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]


def test_labels_nobody_gave_or_knows_have_target_minus_one() -> None:
    assert label_targets(["b", None, "z"], ["a", "b"]).tolist() == [1, -1, -1]
    rows = Rows(ids=[[1], [2], [3]], targets=np.array([1, -1, -1]))
    assert rows.take(np.array([2, 0])).targets.tolist() == [-1, 1]
    assert FitSettings(epochs=1, learning_rate=1.0).patience == 3
