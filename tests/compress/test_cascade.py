import time

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jettison import registry
from jettison.backends.cascade import CascadeClassifier
from jettison.backends.open import open_model
from jettison.backends.text import TextClassifier
from jettison.candidate import AppliedStep, Calibration, Candidate, verify_candidate, write_candidate
from jettison.compress.cascade import examples_needed, make_cascade
from jettison.errors import BrokenArtifact, InvalidInput, NotEnoughData, StepFailed
from jettison.model import Output, ScopeRanks
from jettison.record import Record
from jettison.route import Cascade
from jettison.task import Development, Example

LABELS = ("apple", "pear", "oos")


def fake(folder, name, **kept) -> Candidate:  # type: ignore[no-untyped-def]
    folder.mkdir(parents=True)
    (folder / "note.txt").write_text(name)
    calibration = kept.pop("calibration", None)
    licence, lineage = kept.pop("licence", "Apache-2.0"), kept.pop("lineage", ())
    return write_candidate(
        folder, name=name, backend="fake", labels=LABELS, out_of_scope="oos", settings=kept,
        calibration=calibration, licence=licence, lineage=lineage,
    )  # fmt: skip


def development(n: int, **fields) -> Development:  # type: ignore[no-untyped-def]
    dev = tuple(
        Example(id=str(i), input=f"{LABELS[i % 2]} {i}", expected=LABELS[i % 2], **fields) for i in range(n)
    )
    return Development(
        name="t", kind="classify", labels=LABELS, out_of_scope="oos", train=(), dev=dev, unlabelled=()
    )


def answered(candidate: Candidate, data: Development) -> list[Record]:
    outputs = open_model(candidate).predict([e.input for e in data.dev])
    return [
        Record(
            candidate=candidate.digest, example_id=e.id, split="dev", output=o.label, expected=e.expected,
            confidence=o.confidence, in_scope=o.in_scope, flagged=o.flagged,
        )
        for e, o in zip(data.dev, outputs, strict=True)
    ]  # fmt: skip


def joined(tmp_path, data, lean, fallback, **options) -> Candidate:  # type: ignore[no-untyped-def]
    records = {c.digest: answered(c, data) for c in (lean, fallback)}
    return make_cascade(
        lean, fallback, data, cache=tmp_path / "cache", lean_records=records[lean.digest],
        fallback_records=records[fallback.digest], incumbent_records=records[fallback.digest], **options,
    )  # fmt: skip


@pytest.fixture
def arms(tmp_path):
    """A lean arm that is nearly always right, and a fallback that always is."""
    return fake(tmp_path / "l", "lean", accuracy=0.995, seed=1), fake(tmp_path / "f", "big", margin=6.0)


def test_a_cascade_is_a_candidate_of_two_whole_candidates(tmp_path, arms):
    cascade = joined(tmp_path, development(3000), *arms, epsilon=0.02)
    verify_candidate(cascade)
    verify_candidate(Candidate.at(cascade.path / "lean"))
    assert Candidate.at(cascade.path / "fallback").digest == arms[1].digest
    assert cascade.backend == "cascade"
    assert cascade.licence == "Apache-2.0"
    assert cascade.lineage[-1].parents == (arms[0].digest, arms[1].digest)
    outputs = open_model(cascade).predict(["apple 1", "pear 2"])
    assert [o.label for o in outputs] == ["apple", "pear"]
    assert {o.arm for o in outputs} <= {"lean", "fallback"}


def test_how_long_its_arms_took_to_make_is_no_part_of_a_cascades_digest(tmp_path, arms):
    data, digests, readings = development(3000), [], []
    for run, took_s in (("one", 3.0), ("two", 7.25)):
        made = AppliedStep(
            step="distill_linear", settings={}, seed=0, versions={}, parents=(), duration_s=took_s,
            notes={"train_s": took_s, "cpu_s_per_text": took_s, "n_rows": 9},
        )  # fmt: skip
        lean = fake(tmp_path / run / "l", "lean", accuracy=0.995, seed=1, lineage=(made,))
        cascade = joined(tmp_path / run, data, lean, arms[1], epsilon=0.02)
        verify_candidate(cascade)
        digests.append(cascade.digest)
        readings.append((Candidate.at(lean.path).lineage[0].duration_s, cascade.lineage[0].duration_s))
        assert Candidate.at(cascade.path / "lean").lineage[0].notes == {"n_rows": 9}
    assert digests[0] == digests[1]
    assert readings == [
        (3.0, 3.0),
        (7.25, 7.25),
    ]  # the arm itself keeps them, and the cascade's own lineage


def test_the_certificate_says_what_was_proved_on_how_many(tmp_path, arms):
    data = development(3000)
    cascade = joined(tmp_path, data, *arms, epsilon=0.02, delta=0.05)
    route = msgspec.convert(cascade.settings["route"], Cascade)
    assert route.certificate is not None
    assert route.certificate.n_examples == len(data.dev_certify)
    assert (route.certificate.epsilon, route.certificate.delta) == (0.02, 0.05)
    assert route.certificate.reference == arms[1].digest
    assert route.certificate.n_harmful / len(data.dev_certify) < 0.02


def test_what_the_fallback_gets_wrong_is_counted_beside_the_certificate(tmp_path, arms):
    # The errors of a fake do not hang on its confidence: about 30 % of what is passed on.
    data, incumbent = development(3000), arms[1]
    lean = fake(tmp_path / "l2", "often wrong", accuracy=0.9, seed=1)
    worse = fake(tmp_path / "w", "worse", accuracy=0.7, seed=9)
    of = {c.digest: answered(c, data) for c in (lean, worse, incumbent)}

    def made(fallback_records: list[Record]) -> Candidate:
        return make_cascade(
            lean, worse, data, cache=tmp_path / "cache", epsilon=0.03, lean_records=of[lean.digest],
            fallback_records=fallback_records, incumbent_records=of[incumbent.digest],
        )  # fmt: skip

    notes = made(of[worse.digest]).lineage[-1].notes
    n_passed_on = round((1 - notes["accepted_share"]) * len(data.dev_certify))
    assert n_passed_on > 500
    assert notes["n_fallback_harmful"] / n_passed_on == pytest.approx(0.3, abs=0.06)
    with pytest.raises(InvalidInput, match="fallback_records must cover the certifying half"):
        made([])


@pytest.mark.guarantee
def test_harm_on_fresh_inputs_stays_under_epsilon_with_the_stated_confidence():
    # Confidence c is right with chance c**0.2; harm at threshold t is E[(1 - c**0.2) 1{c >= t}].
    from scipy.stats import binomtest

    from jettison.stats.ltt import certify_threshold

    rng = np.random.default_rng(0)
    big = rng.random(400_000)
    truth = 1 - big**0.2
    broken = 0
    for _ in range(300):
        sure = rng.random(800)
        found = certify_threshold(sure, rng.random(800) > sure**0.2, epsilon=0.02, delta=0.1)
        broken += found is not None and float((truth * (big >= found.threshold)).mean()) > 0.02
    assert binomtest(broken, 300, 0.1, alternative="greater").pvalue > 1e-4


def test_too_few_certifying_examples_say_how_many_are_needed(tmp_path, arms):
    # (1 - 0.005)^n <= 0.1 first holds at n = 460.
    assert examples_needed(0.005, 0.1) == 460
    with pytest.raises(NotEnoughData, match=r"needs at least 460 examples .*Add about \d+ examples"):
        joined(tmp_path, development(300), *arms)


def test_a_lean_arm_that_is_sure_and_wrong_earns_no_threshold(tmp_path, arms):
    bad = fake(tmp_path / "bad", "bad", accuracy=0.3)
    data, cache = development(2000), tmp_path / "cache"
    with pytest.raises(StepFailed, match=r"no threshold could be certified for bad .* among the \d+ it is"):
        joined(tmp_path, data, bad, arms[1])
    big = answered(arms[1], data)
    alike = [msgspec.structs.replace(r, confidence=0.9, flagged=False) for r in answered(bad, data)]
    with pytest.raises(StepFailed, match="its confidence is the same on all of them, and it errs"):
        make_cascade(
            bad, arms[1], data, cache=cache, lean_records=alike, fallback_records=big,
            incumbent_records=big, escalate_flagged=False,
        )  # fmt: skip
    assert not list(cache.glob("*"))


def test_errors_that_the_incumbent_makes_too_are_no_harm(tmp_path):
    # Same seed and accuracy: both arms are wrong on the same inputs.
    lean = fake(tmp_path / "l", "lean", accuracy=0.5, seed=3)
    incumbent = fake(tmp_path / "f", "big", accuracy=0.5, seed=3, latency_s=0)
    cascade = joined(tmp_path, development(2000), lean, incumbent)
    route = msgspec.convert(cascade.settings["route"], Cascade)
    assert route.certificate is not None
    assert (route.threshold, route.certificate.n_harmful) == (0.0, 0)


def test_one_example_of_a_group_certifies(tmp_path, arms):
    data = development(2000, group="the same conversation")
    with pytest.raises(NotEnoughData, match=r"got [01]\. Add"):
        joined(tmp_path, data, *arms)


def test_the_same_cascade_is_found_again(tmp_path, arms):
    data = development(3000)
    first = joined(tmp_path, data, *arms, epsilon=0.02)
    assert joined(tmp_path, data, *arms, epsilon=0.02) == first
    assert len(list((tmp_path / "cache").glob("*"))) == 1


def test_arms_with_other_labels_are_refused(tmp_path, arms):
    other = msgspec.structs.replace(arms[1], labels=("apple", "oos", "pear"))
    with pytest.raises(InvalidInput, match="the arms of a cascade must have the same labels"):
        joined(tmp_path, development(20), arms[0], other)


def test_records_of_another_candidate_are_refused(tmp_path, arms):
    data = development(2000)
    with pytest.raises(InvalidInput, match=r"records of lean must be of candidate .* at 0"):
        make_cascade(
            *arms, data, cache=tmp_path, lean_records=answered(arms[1], data), fallback_records=[],
            incumbent_records=[],
        )  # fmt: skip


def test_missing_records_are_named(tmp_path, arms):
    data = development(2000)
    with pytest.raises(InvalidInput, match=r"incumbent_records must cover the certifying half .* at \d+"):
        make_cascade(
            *arms, data, cache=tmp_path, lean_records=answered(arms[0], data),
            fallback_records=answered(arms[1], data), incumbent_records=[],
        )  # fmt: skip


# -- answering ---------------------------------------------------------------------------------


def behind(tmp_path, lean, fallback, threshold, **options) -> CascadeClassifier:  # type: ignore[no-untyped-def]
    return CascadeClassifier(
        LABELS, lean=open_model(lean), fallback=open_model(fallback), threshold=threshold, **options
    )


def plain(output: Output) -> tuple[object, ...]:
    return output.label, output.confidence, output.in_scope, output.flagged


TEXTS = st.lists(st.sampled_from(["apple", "pear", "oos", "", "apple pear", "fig"]).map(str), max_size=12)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    ranks = Calibration(scope_quantiles=(0.4, 0.5, 0.6, 0.9))
    return (
        fake(folder / "l", "lean", accuracy=0.6, seed=1, calibration=ranks),
        fake(folder / "f", "big", seed=2, calibration=ranks),
    )


@given(texts=TEXTS)
@settings(deadline=None)
def test_a_cascade_that_accepts_all_equals_its_lean_arm(pair, tmp_path_factory, texts):
    cascade = behind(None, *pair, 0.0, escalate_flagged=False)
    assert [plain(o) for o in cascade.predict(texts)] == [
        plain(o) for o in open_model(pair[0]).predict(texts)
    ]
    assert {o.arm for o in cascade.predict(texts)} <= {"lean"}


@given(texts=TEXTS)
@settings(deadline=None)
def test_a_cascade_that_accepts_none_equals_its_fallback(pair, texts):
    cascade = behind(None, *pair, 1.1)
    assert [plain(o) for o in cascade.predict(texts)] == [
        plain(o) for o in open_model(pair[1]).predict(texts)
    ]
    assert all(o.arm == "fallback" and o.escalated for o in cascade.predict(texts))


@given(texts=TEXTS, threshold=st.floats(0, 1))
@settings(deadline=None)
def test_one_by_one_equals_all_at_once(pair, texts, threshold):
    cascade = behind(None, *pair, threshold, out_of_scope="oos")
    together = cascade.predict(texts)
    assert [plain(o) for o in together] == [plain(cascade.predict([t])[0]) for t in texts]


def test_each_answer_is_of_the_arm_its_lean_confidence_says(pair):
    texts = [f"apple {i}" for i in range(200)]
    lean = open_model(pair[0]).predict(texts)
    outputs = behind(None, *pair, 0.8, escalate_flagged=False).predict(texts)
    assert [o.arm for o in outputs] == ["lean" if o.confidence >= 0.8 else "fallback" for o in lean]
    assert {o.arm for o in outputs} == {"lean", "fallback"}


def test_what_the_lean_arm_calls_out_of_scope_is_passed_on(pair):
    lean, fallback = open_model(pair[1]), open_model(pair[0])

    def told(escalate: bool) -> Output:
        return CascadeClassifier(
            LABELS, lean=lean, fallback=fallback, threshold=0.0,
            out_of_scope="oos", escalate_flagged=escalate,
        ).predict(["oos"])[0]  # fmt: skip

    assert (told(True).arm, told(False).arm) == ("fallback", "lean")


def test_what_the_lean_arm_flags_is_passed_on(tmp_path, pair):
    unsure = Calibration(scope_quantiles=(0.9999, 1.0))
    lean = fake(tmp_path / "u", "unsure", calibration=unsure)
    assert behind(None, lean, pair[1], 0.0).predict(["apple"])[0].arm == "fallback"
    assert behind(None, lean, pair[1], 0.0, escalate_flagged=False).predict(["apple"])[0].arm == "lean"


def test_a_cascade_may_stand_within_a_cascade(tmp_path, arms):
    data = development(3000)
    inner = joined(tmp_path, data, *arms, epsilon=0.02)
    lean = fake(tmp_path / "l2", "leaner", accuracy=0.99, seed=5)
    outer = joined(tmp_path, data, lean, inner, epsilon=0.02)
    outputs = open_model(outer).predict([e.input for e in data.dev])
    assert {o.arm for o in outputs} <= {"lean", "fallback/lean", "fallback/fallback"}
    assert {o.arm for o in outputs} >= {"lean", "fallback/lean"}
    assert all(o.escalated == (o.arm != "lean") for o in outputs)


def test_a_cascade_is_calibrated_for_scope_as_a_whole(tmp_path):
    from jettison.evaluate import calibrate

    data = development(4000)
    lean = fake(tmp_path / "l", "lean", accuracy=0.999, seed=1)
    big = fake(tmp_path / "f", "big", margin=6.0)
    lean, big = (calibrate(c, data, cache=tmp_path / "k") for c in (lean, big))
    cascade = calibrate(joined(tmp_path, data, lean, big, epsilon=0.01), data, cache=tmp_path / "k")
    assert cascade.calibration.temperature == 1.0
    assert cascade.calibration.scope_quantiles is not None
    fresh = [f"{LABELS[i % 2]} {i}" for i in range(10_000, 14_000)]
    outputs = open_model(cascade).predict(fresh)
    assert sum(o.flagged for o in outputs) / len(fresh) == pytest.approx(0.05, abs=0.012)
    assert {o.arm for o in outputs} == {"lean", "fallback"}


def test_a_settings_without_a_route_is_refused(tmp_path):
    candidate = msgspec.structs.replace(fake(tmp_path / "c", "x"), backend="cascade")
    with pytest.raises(BrokenArtifact, match=r"must have a cascade in settings\.route"):
        open_model(candidate)


def test_the_fallback_may_be_opened_when_first_needed(tmp_path, arms, monkeypatch):
    opened = []

    class Counted(TextClassifier):
        def __init__(self, candidate: Candidate) -> None:
            super().__init__(candidate)
            opened.append(candidate.name)

        def logits(self, inputs):  # type: ignore[no-untyped-def]
            return np.ones((len(inputs), 3), np.float32)

    monkeypatch.setitem(registry._added, ("backends", "fake"), Counted)
    made = joined(tmp_path, development(3000), *arms, epsilon=0.02)
    opened.clear()
    open_model(made)
    assert opened == ["lean", "big"]
    opened.clear()
    route = {**made.settings["route"], "threshold": 2.0}
    lazy = open_model(msgspec.structs.replace(made, settings={"route": route, "lazy_fallback": True}))
    assert opened == ["lean"]
    lazy.predict(["apple"])
    assert opened == ["lean", "big"]
    lazy.close()


@given(st.lists(st.floats(0, 1), min_size=2, max_size=30).map(sorted), st.floats(-0.5, 1.5))
def test_ranks_equal_numpys_interpolation(quantiles, score):
    ranks = ScopeRanks(quantiles, 0.05)
    expected = np.interp(score, quantiles, np.linspace(0, 1, len(quantiles)))
    assert ranks.rank(score) == pytest.approx(float(expected), abs=1e-9)


def test_the_single_input_path_adds_microseconds(pair):
    class Instant:
        labels = LABELS
        answer = Output(label="apple", confidence=0.9, in_scope=0.5)

        def predict(self, inputs):  # type: ignore[no-untyped-def]
            return [self.answer]

        def close(self) -> None: ...

    calibration = Calibration(scope_quantiles=tuple(np.linspace(0, 1, 201)))
    lean = Instant()
    cascade = CascadeClassifier(LABELS, lean=lean, fallback=lean, threshold=0.5, calibration=calibration)

    def best(model) -> float:  # type: ignore[no-untyped-def]
        def once() -> float:
            began = time.thread_time()
            for _ in range(2000):
                model.predict(["x"])
            return (time.thread_time() - began) / 2000

        return min(once() for _ in range(7))

    # 2 microseconds on an idle core; five times that is the bound on a busy one.
    assert best(cascade) - best(lean) < 10e-6


class Fixed:
    """A model whose outputs are given by text."""

    labels = LABELS

    def __init__(self, outputs: dict[str, Output]) -> None:
        self._outputs = outputs

    def predict(self, inputs):
        return [self._outputs[text] for text in inputs]

    def close(self) -> None:
        pass


def said(label: str, confidence: float, in_scope: float, *logits: float) -> Output:
    return Output(
        label=label, confidence=confidence, in_scope=in_scope, flagged=in_scope < 0.05,
        logits=np.array(logits, np.float32),
    )  # fmt: skip


def test_the_mean_of_both_arms_answers_what_is_escalated():
    # Logits over their temperatures 1 and 2: (1, 0, 0) and (0, 3, 0); their mean is (0.5, 1.5, 0).
    lean = Fixed({"x": said("apple", 0.4, 0.5, 1.0, 0.0, 0.0)})
    fallback = Fixed({"x": said("pear", 0.9, 0.7, 0.0, 6.0, 0.0)})
    cascade = CascadeClassifier(
        LABELS, lean=lean, fallback=fallback, threshold=0.8, combine="average", temperatures=(1.0, 2.0)
    )
    (answer,) = cascade.predict(["x"])
    assert answer.label == "pear"
    assert answer.logits == pytest.approx([0.5, 1.5, 0.0])
    assert answer.confidence == pytest.approx(np.exp(1.5) / (np.exp(0.5) + np.exp(1.5) + 1.0))
    assert answer.in_scope == pytest.approx(0.6)
    assert answer.escalated


def test_what_is_plainly_out_of_scope_is_declined_without_the_fallback():
    lean = Fixed(
        {"far": said("apple", 0.3, 0.004, 1.0, 0.0, 0.0), "odd": said("apple", 0.99, 0.07, 9.0, 0.0, 0.0)}
    )
    fallback = Fixed({"odd": said("pear", 0.9, 0.5, 0.0, 6.0, 0.0)})
    cascade = CascadeClassifier(
        LABELS, lean=lean, fallback=fallback, threshold=0.8, escalate_below=0.1, decline_below=0.01
    )
    far, odd = cascade.predict(["far", "odd"])
    assert (far.arm, far.flagged, far.escalated) == ("lean", True, False)
    assert (odd.arm, odd.label) == ("fallback", "pear")


def test_the_certificate_counts_declined_answers_as_the_lean_arms(tmp_path, arms):
    data = development(3000)
    plain = joined(tmp_path, data, *arms, epsilon=0.02)
    declining = joined(tmp_path, data, *arms, epsilon=0.02, decline_below=0.5, combine="average")
    route = msgspec.convert(declining.settings["route"], Cascade)
    assert (route.combine, route.decline_below) == ("average", 0.5)
    assert declining.digest != plain.digest
