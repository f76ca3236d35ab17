"""Drift: detectors, one look at a window, and the streams that may be looked at any time."""

import json
import zlib
from pathlib import Path

import msgspec
import numpy as np
import pytest

from jettison import registry
from jettison.cli.main import main
from jettison.errors import InvalidInput
from jettison.evaluate.profile import reference_sketch
from jettison.monitor.drift import judge_drift, sketch_of
from jettison.monitor.drift_stream import DriftWatch
from jettison.monitor.drift_window import Window
from jettison.monitor.log import News, Place
from jettison.record import Record
from jettison.release import open_release, read_profile
from jettison.release.describe import describe_texts
from jettison.release.sketch import (
    FEWER_WORD_BUCKETS,
    N_GRAM_BUCKETS,
    N_WORD_BUCKETS,
    Sketch,
    TextScorer,
    _run_buckets,
    binned,
    count_table,
    hashed_grams,
    hashed_words,
    moments_of,
)
from jettison.stats.conformal_martingale import log_growth
from jettison.stats.two_samples import counts_differ
from jettison.testing import check_detector
from jettison.testing.traffic import TrafficWriter
from releasing import make_release

OLD = ["please", "send", "my", "card", "balance", "account", "money", "transfer", "bank", "today", "now"]
NEW = ["rain", "storm", "Guitar", "planet", "Ocean", "flight", "music", "recipe", "garden", "river"]


def records(rng: np.random.Generator, n: int, *, new: float = 0.0, candidate: str = "c") -> list[Record]:
    made = []
    for number in range(n):
        is_new = rng.random() < new
        words = rng.choice(NEW if is_new else OLD, 6)
        made.append(
            Record(
                candidate=candidate, example_id=str(number), split="live", role="answer",
                output=str(rng.choice(["a", "b"], p=[0.7, 0.3])), input=" ".join(words),
                confidence=float(rng.beta(2, 4) if is_new else rng.beta(9, 2)), time=float(number),
            )
        )  # fmt: skip
    return made


def sketch(n: int = 600) -> Sketch:
    made = records(np.random.default_rng(99), n)
    background = [str(r.input) for r in records(np.random.default_rng(98), 400)]
    return reference_sketch(made, [str(r.input) for r in made], background=background)


def news(some: list[Record]) -> News:
    return News(records=tuple(some), feedback=(), place=Place(), is_all=True)


@pytest.mark.parametrize("use", registry.names("detectors"))
def test_every_detector_keeps_the_promises(use: str) -> None:
    check_detector(use)


class _Eager:
    """Alarms at the first score: more often than alpha allows."""

    is_heuristic, any_time = False, False

    def __init__(self, reference, *, alpha, seed=0):
        self._inner = registry.load("detectors", "chi_squared")(reference, alpha=alpha)

    def __getattr__(self, name):
        return getattr(self._inner, name)

    @property
    def alarm(self):
        return self._inner.reading().n > 0

    def update(self, scores):
        self._inner.update(scores)

    def reading(self):
        return msgspec.structs.replace(self._inner.reading(), alarm=self.alarm)

    def state(self):
        return self._inner.state()

    @classmethod
    def from_state(cls, state):
        found = cls(state["reference"], alpha=state["alpha"])
        found._inner = type(found._inner).from_state(state)
        return found


def test_the_conformance_check_finds_one_that_alarms_too_often() -> None:
    registry.register("detectors", "eager", _Eager)
    try:
        with pytest.raises(AssertionError, match="clean runs may alarm"):
            check_detector("eager")
    finally:
        registry._added.pop(("detectors", "eager"))


def test_homogeneity_of_two_by_two_counts_is_the_textbook_chi_squared() -> None:
    # 60/40 against 40/60: pooled 50/50, each cell (10^2)/50 = 2, four cells: 8; half of 0.2 + 0.2 moved.
    found = counts_differ([60, 40], [40, 60])
    assert found.statistic == pytest.approx(8.0)
    assert found.distance == pytest.approx(0.2)


def test_a_window_of_the_same_kind_is_clean_and_one_with_a_new_domain_is_not() -> None:
    known = sketch()
    clean, moved = Window(known), Window(known)
    clean.take(records(np.random.default_rng(1), 600))
    moved.take(records(np.random.default_rng(2), 600, new=0.3))
    assert judge_drift(clean).verdict == "NONE"
    found = judge_drift(moved)
    assert found.verdict == "DRIFT"
    names = {test.name for test in found.tests if test.has_drifted}
    assert {"confidence", "unseen_words", "off_topic", "classifier"} <= names
    assert not any(test.has_drifted for test in found.tests if test.name == "label")
    assert found.changed[0][1] >= found.changed[-1][1]


def test_the_streams_find_a_switch_and_a_restart_goes_on_to_the_last_digit() -> None:
    known = sketch()
    stream = [*records(np.random.default_rng(1), 200), *records(np.random.default_rng(2), 400, new=0.3)]
    whole, parts = DriftWatch(known, slices=("x",)), DriftWatch(known, slices=("x",))
    whole.take(news(stream[:200]))
    assert not whole.has_drifted
    whole.take(news(stream[200:]))
    assert whole.has_drifted
    for start in range(0, len(stream), 70):
        parts.take(news(stream[start : start + 70]))
        again = DriftWatch(known, slices=("x",))
        assert again.restore(json.loads(json.dumps(parts.state())))
        parts = again
    assert parts.status() == whole.status()
    assert DriftWatch(known, alpha=0.5).restore(whole.state()) is False
    # What was kept of another release's reference is not gone on with.
    scores = {name: tuple(n + 1 for n in counts) for name, counts in known.scores.items()}
    other = msgspec.structs.replace(known, scores=scores)
    assert DriftWatch(other, slices=("x",)).restore(whole.state()) is False


def test_each_bet_of_the_martingale_is_fair_and_the_parts_of_alpha_are_the_whole() -> None:
    ranks = (np.arange(200_000) + 0.5) / 200_000
    means = np.exp(log_growth(ranks)).mean(axis=0)
    np.testing.assert_allclose(means, 1.0, atol=1e-3)
    watch = DriftWatch(sketch(), alpha=0.02)
    parts = {name: one.alpha for name, one in watch._streams.items()}
    assert sum(parts.values()) == pytest.approx(0.02)
    assert parts["rare_text"] == parts["off_topic"] == pytest.approx(0.005)


def test_a_sketch_with_the_smaller_table_of_runs_of_five_is_still_read() -> None:
    # The buckets of these runs as releases had them before.
    assert _run_buckets(np.frombuffer(b"abcdefg", np.uint8), 32_768).tolist() == [19611, 9237, 556]
    table = np.zeros(32_768, np.uint8)
    table[_run_buckets(np.frombuffer(b"a known text", np.uint8), 32_768)] = 80
    words = zlib.compress(np.zeros(FEWER_WORD_BUCKETS, np.uint8).tobytes())
    scorer = TextScorer(words, zlib.compress(table.tobytes()))
    known, new = scorer.scores(["A known text", "zebra crossings"], [[], []])[:, 1]
    assert known < 5 < 12 < new <= 16.05
    with pytest.raises(ValueError, match="131072 or 32768 buckets, got 9"):
        TextScorer(words, zlib.compress(bytes(9)))


def test_words_common_in_english_and_not_in_the_reference_are_off_topic() -> None:
    # "card" is half of the reference's words; English has it once in 10,000 or so, "government" more often.
    words = count_table([hashed_words("card balance")] * 2, N_WORD_BUCKETS)
    scorer = TextScorer(words, zlib.compress(bytes(N_GRAM_BUCKETS)))
    texts = ["card", "government", "card card card", "Government government government", "zzxqv", ""]
    hashed = [hashed_words(text) for text in texts]
    own, other, three, more, unknown, none = scorer.scores(texts, hashed)[:, 5]
    # Half of the words against 3e-5 to 3e-4; 5e-4 against 3e-6; by the root of one word and one.
    assert -14 / 2**0.5 < own < -10 / 2**0.5
    assert 6 / 2**0.5 < other < 9 / 2**0.5
    assert unknown == pytest.approx(np.log2(1e-5 / 3e-6) / 2**0.5)
    assert three == pytest.approx(own * 3 / 2**0.5)
    assert more == pytest.approx(other * 3 / 2**0.5)
    assert none == 0


def test_a_sketch_with_fewer_words_has_no_topic_and_is_watched_as_before() -> None:
    rng = np.random.default_rng(3)
    texts = [str(r.input) for r in records(rng, 600)]
    words = count_table([[bucket % FEWER_WORD_BUCKETS for bucket in hashed_words(t)] for t in texts[:300]],
                        FEWER_WORD_BUCKETS)  # fmt: skip
    grams = count_table([hashed_grams(text) for text in texts[:300]], N_GRAM_BUCKETS)
    scorer = TextScorer(words, grams)
    described = describe_texts(texts[300:], scorer)
    assert "off_topic" not in described.scores
    old = Sketch(
        n=300, word_counts=words, gram_counts=grams, categories={"script": {"latin": 300}}, slices={},
        scores={name: binned(name, values) for name, values in described.scores.items()},
        features=moments_of(described.features),
    )  # fmt: skip
    watch, window = DriftWatch(old), Window(old)
    clean, moved = records(rng, 300), records(rng, 400, new=0.5)
    watch.take(news(clean))
    assert not watch.has_drifted
    watch.take(news(moved))
    assert watch.has_drifted
    assert watch.newest.changes()[0].n == 700
    window.take(moved)
    assert {"rare_text", "unseen_words", "classifier"} <= {test.name for test in judge_drift(window).tests}


def test_many_rare_labels_of_the_same_kind_are_no_drift() -> None:
    # Ten of each label in the reference; ordered by those counts, clean windows alarmed.
    def labelled(seed: int, n: int) -> list[Record]:
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, 150, n)
        return [
            Record(candidate="c", example_id=str(i), split="live", output=f"l{x}")
            for i, x in enumerate(labels)
        ]

    known = labelled(0, 1500)
    described = reference_sketch(known, ["x"] * len(known))
    n_alarms = 0
    for seed in range(1, 13):
        watch = DriftWatch(described, seed=seed)
        watch.take(news(labelled(seed, 500)))
        n_alarms += watch.has_drifted
    assert n_alarms == 0  # at alpha 0.01 one in 12 has probability under 0.12


def test_a_reference_holds_no_text_and_is_small() -> None:
    encoded = msgspec.json.encode(sketch())
    assert len(encoded) < 100_000
    # Short words come up in any base64 by chance.
    for word in (word for word in (*OLD, *NEW) if len(word) > 4):
        assert word.encode() not in encoded


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    release = make_release(tmp_path / "releases")
    digest = next(iter(open_release(release.path).candidates.values()))
    assert sketch_of(read_profile(release)).n > 0
    with TrafficWriter(tmp_path / "traffic") as writer:
        writer.write(records(np.random.default_rng(0), 300, new=1.0, candidate=digest))
        code, said = run(capsys, "drift", tmp_path, "--release", release.path, "--json")
        assert (code, json.loads(said)["verdict"]) == (1, "DRIFT")
        code, said = run(capsys, "drift", tmp_path, "--release", release.path)
        assert code == 1
        assert "moved" in said
        code, said = run(capsys, "monitor", tmp_path, "--release", release.path, "--once", "--json")
        assert code == 0
        assert json.loads(said)["drift"]
        code, said = run(capsys, "drift", tmp_path, "--release", release.path, "--alpha", "2")
        assert (code, "alpha must be in (0, 1), got 2" in said) == (2, True)
        code, said = run(capsys, "traffic", tmp_path, "--release", release.path, "--json")
        compared = {(row["name"], row["against"]): row["has_drifted"] for row in json.loads(said)["drift"]}
        assert code == 0
        assert compared[("confidence", "release")]
        code, said = run(capsys, "traffic", tmp_path, "--release", tmp_path / "none")
        assert (code, "none" in said) == (2, True)
        code, said = run(capsys, "monitor", tmp_path, "--slice", "x", "--once")
        assert (code, "--slice must come with --release" in said) == (2, True)


def test_a_release_without_a_sketch_says_what_to_do() -> None:
    from jettison.release import Profile

    old = Profile(
        split="dev", n_inputs=1, n_errors=0, label_counts={}, confidence_counts=(),
        length_quantiles=(), token_counts=(), n_tokens=0,
    )  # fmt: skip
    with pytest.raises(InvalidInput, match="must hold a sketch"):
        sketch_of(old)


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    with pytest.raises(SystemExit) as stopped:
        main([str(one) for one in arguments])
    said = capsys.readouterr()
    return int(stopped.value.code or 0), said.out + said.err
