import numpy as np
import pytest
from scipy.stats import binomtest

from jettison import registry
from jettison.backends.open import open_model
from jettison.backends.text import TextClassifier
from jettison.candidate import Calibration, Candidate, verify_candidate, write_candidate
from jettison.errors import InvalidInput, NotEnoughData
from jettison.evaluate import calibrate
from jettison.evaluate.calibrate import fit_temperature
from jettison.model import softmax
from jettison.task import Development, Example

LABELS = ("a", "b", "c", "oos")
SHARPNESS = 3.0
"""By how much the logits of `Noisy` are too sure: the temperature that calibrates it."""


class Noisy(TextClassifier):
    """Reads its logits off the text, sharper than they should be."""

    def logits(self, inputs):  # type: ignore[no-untyped-def]
        rows = [[float(x) for x in text.split()] for text in inputs]
        return np.array(rows, np.float32).reshape(len(inputs), len(LABELS)) * SHARPNESS


@pytest.fixture(autouse=True)
def _noisy(monkeypatch):
    monkeypatch.setitem(registry._added, ("backends", "noisy"), Noisy)


def drawn(n: int, seed: int, *, start: int = 0) -> list[Example]:
    """Examples whose expected label is drawn from the softmax of the logits in their text."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(0, 2.0, (n, len(LABELS)))
    rows[:, 3] -= 2.0
    chances = softmax(rows.round(4))
    picks = (chances.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    return [
        Example(id=str(start + i), input=" ".join(f"{x:.4f}" for x in rows[i]), expected=LABELS[picks[i]])
        for i in range(n)
    ]


def development(dev: list[Example], out_of_scope: str | None = "oos") -> Development:
    return Development(
        name="t", kind="classify", labels=LABELS, out_of_scope=out_of_scope,
        train=(), dev=tuple(dev), unlabelled=(),
    )  # fmt: skip


def candidate_at(folder, **fields) -> Candidate:  # type: ignore[no-untyped-def]
    folder.mkdir(parents=True)
    (folder / "weights.safetensors").write_bytes(b"weights")
    fields = {"out_of_scope": "oos", **fields}
    return write_candidate(folder, name="noisy", backend="noisy", labels=LABELS, **fields)


def expected_calibration_error(candidate: Candidate, examples: list[Example]) -> float:
    outputs = open_model(candidate).predict([e.input for e in examples])
    sure = np.array([o.confidence for o in outputs])
    right = np.array([o.label == e.expected for o, e in zip(outputs, examples, strict=True)])
    bins = np.minimum((sure * 10).astype(int), 9)
    return float(
        sum(abs(right[bins == b].mean() - sure[bins == b].mean()) * (bins == b).mean() for b in set(bins))
    )


def test_the_temperature_that_was_planted_is_found():
    examples = drawn(4000, 1)
    logits = np.array([[float(x) for x in e.input.split()] for e in examples]) * SHARPNESS
    expected = np.array([LABELS.index(e.expected) for e in examples])
    assert fit_temperature(logits, expected, np.ones(4000)) == pytest.approx(SHARPNESS, rel=0.06)


def test_being_always_right_earns_no_endless_confidence():
    logits = np.eye(4)[np.arange(100) % 4] * 2.0
    temperature = fit_temperature(logits, np.arange(100) % 4, np.ones(100))
    # One error in 101 at a margin of 2: about 1 % is left for the other labels.
    assert softmax(logits, temperature).max() == pytest.approx(0.987, abs=0.01)


def test_a_weight_of_two_counts_as_the_example_twice():
    rng = np.random.default_rng(0)
    logits, expected = rng.normal(0, 2, (200, 4)), rng.integers(0, 4, 200)
    twice = fit_temperature(np.vstack([logits] * 2), np.tile(expected, 2), np.ones(400))
    assert fit_temperature(logits, expected, np.full(200, 2.0)) == pytest.approx(twice, rel=0.02)


def test_calibration_error_falls_on_fresh_data(tmp_path):
    candidate = candidate_at(tmp_path / "c")
    calibrated = calibrate(candidate, development(drawn(2000, 2)), cache=tmp_path / "cache")
    fresh = drawn(4000, 3)
    before, after = (expected_calibration_error(c, fresh) for c in (candidate, calibrated))
    assert before > 0.1
    assert after < 0.03


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_false_alarms_on_fresh_in_scope_data_are_as_asked(tmp_path, share):
    data = development(drawn(4000, 4))
    calibrated = calibrate(
        candidate_at(tmp_path / "c"), data, cache=tmp_path / "k", false_alarm_share=share
    )
    fresh = [e for e in drawn(4000, 5) if e.expected != "oos"]
    outputs = open_model(calibrated).predict([e.input for e in fresh])
    flagged = sum(o.flagged for o in outputs)
    # The limit itself is fitted on about 1,700 examples: its own noise doubles the variance at most.
    assert flagged / len(fresh) == pytest.approx(share, abs=0.02)
    if share == 0.05:
        assert binomtest(flagged, len(fresh), share).pvalue > 1e-6


def test_calibration_leaves_the_answers_and_the_candidate_as_they_were(tmp_path):
    candidate = candidate_at(tmp_path / "c")
    data = development(drawn(400, 6))
    calibrated = calibrate(candidate, data, cache=tmp_path / "cache")
    verify_candidate(candidate)
    verify_candidate(calibrated)
    assert Candidate.at(candidate.path).calibration == Calibration()
    assert calibrated.name == candidate.name
    assert calibrated.digest != candidate.digest
    texts = [e.input for e in data.dev]
    before, after = (open_model(c).predict(texts) for c in (candidate, calibrated))
    assert [o.label for o in before] == [o.label for o in after]


def test_the_lineage_says_what_was_fitted_on_what(tmp_path):
    data = development(drawn(400, 6))
    candidate = candidate_at(tmp_path / "c")
    (applied,) = calibrate(candidate, data, cache=tmp_path / "cache").lineage
    assert (applied.step, applied.parents, applied.data_digest) == (
        "calibrate", (candidate.digest,), data.digest,
    )  # fmt: skip
    assert applied.settings == {"false_alarm_share": 0.05, "scope_rule": "auto"}
    assert applied.notes["scope_rule"] in ("energy", "max_probability")


def test_the_same_calibration_is_found_again(tmp_path, monkeypatch):
    data, candidate = development(drawn(400, 6)), candidate_at(tmp_path / "c")
    first = calibrate(candidate, data, cache=tmp_path / "cache")
    monkeypatch.setattr(Noisy, "logits", None)
    assert calibrate(candidate, data, cache=tmp_path / "cache") == first


def test_a_damaged_calibration_is_made_again(tmp_path):
    data, candidate = development(drawn(400, 6)), candidate_at(tmp_path / "c")
    first = calibrate(candidate, data, cache=tmp_path / "cache")
    (first.path / "weights.safetensors").unlink()
    again = calibrate(candidate, data, cache=tmp_path / "cache")
    verify_candidate(again)
    assert again.digest == first.digest


def test_an_old_calibration_plays_no_part(tmp_path):
    data = development(drawn(400, 6))
    old = Calibration(temperature=9.0, scope_quantiles=(0.0, 1.0), false_alarm_share=0.5)
    fresh = calibrate(candidate_at(tmp_path / "c"), data, cache=tmp_path / "cache")
    again = calibrate(candidate_at(tmp_path / "d", calibration=old), data, cache=tmp_path / "cache")
    assert again.calibration == fresh.calibration


def test_files_are_linked_not_copied(tmp_path):
    candidate = candidate_at(tmp_path / "c")
    calibrated = calibrate(candidate, development(drawn(400, 6)), cache=tmp_path / "cache")
    name = "weights.safetensors"
    assert (calibrated.path / name).stat().st_ino == (candidate.path / name).stat().st_ino


def test_without_an_out_of_scope_label_nothing_is_flagged(tmp_path):
    candidate = candidate_at(tmp_path / "c", out_of_scope=None)
    calibrated = calibrate(candidate, development(drawn(400, 6), None), cache=tmp_path / "cache")
    assert calibrated.calibration.scope_quantiles is None
    assert open_model(calibrated).predict(["1 0 0 0"])[0].in_scope is None


def test_the_task_says_which_label_is_out_of_scope(tmp_path):
    candidate = candidate_at(tmp_path / "c", out_of_scope=None)
    calibrated = calibrate(candidate, development(drawn(400, 6)), cache=tmp_path / "cache")
    assert calibrated.out_of_scope == "oos"
    assert calibrated.calibration.scope_quantiles is not None


def test_too_small_a_dev_is_refused(tmp_path):
    with pytest.raises(NotEnoughData, match=r"calibration needs at least 20 labelled examples .*got \d+"):
        calibrate(candidate_at(tmp_path / "c"), development(drawn(20, 1)), cache=tmp_path / "cache")


def test_labels_foreign_to_the_model_are_refused(tmp_path):
    dev = [Example(id=str(i), input="1 0 0 0", expected="nope") for i in range(100)]
    with pytest.raises(InvalidInput, match="noisy must know the task's labels"):
        calibrate(candidate_at(tmp_path / "c"), development(dev), cache=tmp_path / "cache")


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, float("nan")])
def test_a_false_alarm_share_out_of_range_is_refused(tmp_path, share):
    with pytest.raises(InvalidInput, match=r"false_alarm_share must be in \(0, 1\)"):
        calibrate(candidate_at(tmp_path / "c"), development([]), cache=tmp_path, false_alarm_share=share)


def scaled(n: int, *, energetic: bool) -> list[Example]:
    """Out-of-scope texts that differ from the others in the size of the logits, or in their spread."""
    rng = np.random.default_rng(0)
    examples = []
    for i in range(n):
        label = LABELS[i % 4]
        row = rng.normal(0, 0.1, 4)
        if energetic:
            row += 2.0 if label == "oos" else 4.0
            row[i % 3] += 2.0
        else:
            row += rng.normal(0, 5)
            row[i % 3] += 0.1 if label == "oos" else 2.0
        examples.append(Example(id=str(i), input=" ".join(f"{x:.4f}" for x in row), expected=label))
    return examples


@pytest.mark.parametrize(("energetic", "rule"), [(True, "energy"), (False, "max_probability")])
def test_the_scope_rule_that_tells_them_apart_is_chosen(tmp_path, energetic, rule):
    data = development(scaled(400, energetic=energetic))
    calibrated = calibrate(candidate_at(tmp_path / "c"), data, cache=tmp_path / "cache")
    assert calibrated.calibration.scope_rule == rule
    strangers = [e.input for e in data.dev_certify if e.expected == "oos"]
    assert all(o.flagged for o in open_model(calibrated).predict(strangers))


def test_few_out_of_scope_examples_choose_no_rule(tmp_path):
    dev = [e for e in scaled(400, energetic=True) if e.expected != "oos"]
    calibrated = calibrate(candidate_at(tmp_path / "c"), development(dev), cache=tmp_path / "cache")
    assert calibrated.calibration.scope_rule == "max_probability"


def test_the_scope_rule_asked_for_is_used(tmp_path):
    data = development(scaled(400, energetic=False))
    candidate = candidate_at(tmp_path / "c")
    calibrated = calibrate(candidate, data, cache=tmp_path / "cache", scope_rule="energy")
    assert calibrated.calibration.scope_rule == "energy"


def test_out_of_scope_examples_do_not_move_confidences(tmp_path):
    """However many inputs of dev are out of scope, a confidence means the same in scope."""
    inside = [e for e in drawn(1200, 3) if e.expected != "oos"]
    sure = [Example(id=f"o{i}", input="9.0000 0.0000 0.0000 -9.0000", expected="oos") for i in range(600)]
    few, many = (
        calibrate(candidate_at(tmp_path / name), development(dev), cache=tmp_path / f"{name}-cache")
        for name, dev in (("few", inside), ("many", [*inside, *sure]))
    )
    assert many.calibration.temperature == pytest.approx(few.calibration.temperature, rel=0.1)


def test_auto_says_which_map_it_chose(tmp_path):
    made = calibrate(
        candidate_at(tmp_path / "c"), development(drawn(1600, 1)), cache=tmp_path / "cache", method="auto"
    )
    assert made.lineage[-1].notes["map"] == "temperature"


@pytest.mark.parametrize("method", ["vector", "isotonic"])
def test_finer_maps_are_honest_on_other_examples_and_change_no_answer(tmp_path, method):
    train, test = drawn(1600, 1), drawn(3000, 2, start=5000)
    raw = candidate_at(tmp_path / "raw")
    plain = calibrate(raw, development(train), cache=tmp_path / "plain")
    finer = calibrate(raw, development(train), cache=tmp_path / "finer", method=method)
    before, after = (expected_calibration_error(c, test) for c in (raw, finer))
    assert before > 0.08
    assert after < 0.04  # an isotonic map of 800 answers has noise of its own
    texts = [e.input for e in test[:200]]
    answers = [[o.label for o in open_model(c).predict(texts)] for c in (raw, finer)]
    assert answers[0] == answers[1]
    verify_candidate(finer)
    assert Candidate.at(finer.path).calibration == finer.calibration
    assert finer.lineage[-1].settings["method"] == method
    assert "method" not in plain.lineage[-1].settings
    one = open_model(finer).predict(texts[:1])[0]
    assert one.confidence == pytest.approx(open_model(finer).predict(texts)[0].confidence, abs=1e-6)


def test_vector_scaling_mends_what_one_temperature_cannot(tmp_path):
    """One label's logit is too high by two: its own bias takes that back."""
    from jettison.evaluate.calibration_maps import fit_vector

    rng = np.random.default_rng(0)
    true = rng.normal(0, 2, (4000, 3))
    expected = (softmax(true).cumsum(axis=1) > rng.random((4000, 1))).argmax(axis=1)
    seen = true + np.array([2.0, 0, 0])
    weights = np.ones(4000)
    scales, biases = fit_vector(
        seen, expected, weights, temperature=fit_temperature(seen, expected, weights)
    )
    assert biases[0] - np.mean(biases[1:]) == pytest.approx(-2, abs=0.5)
    assert np.mean(scales) == pytest.approx(1, abs=0.15)


def test_an_isotonic_map_is_ascending_and_never_certain():
    from jettison.evaluate.calibration_maps import fit_isotonic

    rng = np.random.default_rng(1)
    confidence = rng.uniform(0.3, 1, 500)
    knots = fit_isotonic(confidence, np.ones(500), np.ones(500))
    x, y = zip(*knots, strict=True)
    assert list(x) == sorted(x)
    assert list(y) == sorted(y)
    assert 0 < min(y) <= max(y) < 1
