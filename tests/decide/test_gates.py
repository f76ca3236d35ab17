"""Verdicts of single gates."""

import msgspec
import numpy as np
import pytest

from jettison.decide.gates import judge_at_most, judge_cheaper, judge_not_worse
from jettison.decide.words import about, is_realistic
from jettison.decision import AtMost, CostSummary, Flips, Gate, Interval, NotWorse, ScorerErrors, Verdict
from jettison.errors import InvalidInput, UnknownName
from jettison.stats.paired import paired_test
from judged_records import cost, flipped, records_of


def judged(n: int, *, harmful: int, beneficial: int = 0, both_wrong: int = 0, **gate: object):  # type: ignore[no-untyped-def]
    incumbent, candidate = flipped(n, harmful=harmful, beneficial=beneficial, both_wrong=both_wrong)
    return judge_not_worse(
        NotWorse(**gate),  # type: ignore[arg-type]
        records_of(incumbent, candidate="a"),
        records_of(candidate, candidate="b", wrong="other"),
    )


def test_few_flips_among_many_examples_ship() -> None:
    (result,) = judged(3000, harmful=12, beneficial=6)
    assert result.verdict is Verdict.SHIP
    assert result.reason == (
        "On all examples the candidate scores 99.6 % against 99.8 % (label, 3,000 examples): "
        "with 97.5 % confidence the loss is under 1 point (difference -0.52 to +0.09)."
    )
    assert result.p_value == paired_test(6, 12, 3000, margin=0.01).p_not_worse


def test_many_harmful_flips_block() -> None:
    (result,) = judged(1000, harmful=60, beneficial=5)
    assert result.verdict is Verdict.BLOCK
    assert "the loss is over 1 point" in result.reason
    assert result.n_missing is None


def test_too_few_examples_are_not_enough_and_say_how_many_more() -> None:
    (result,) = judged(100, harmful=0)
    assert result.verdict is Verdict.NOT_ENOUGH_DATA
    assert result.n_missing == 268  # 368 is the smallest slice that passes without a flip
    assert "even if no answer changed, 100 examples would certify no less than 3.62 points" in result.reason


def test_the_examples_said_to_be_missing_would_settle_it() -> None:
    (result,) = judged(800, harmful=10, beneficial=6)
    assert result.verdict is Verdict.NOT_ENOUGH_DATA
    assert result.n_missing is not None
    times = (800 + result.n_missing) / 800
    more = paired_test(round(6 * times), round(10 * times), 800 + result.n_missing, margin=0.01)
    assert more.p_not_worse <= 0.025


def test_after_one_harmful_flip_more_than_one_example_is_missing() -> None:
    (result,) = judged(100, harmful=1, margin=0.05)  # the normal approximation says 72 examples are enough
    assert result.verdict is Verdict.NOT_ENOUGH_DATA
    assert result.n_missing is not None
    assert 30 <= result.n_missing <= 100
    n = 100 + result.n_missing
    drawn = np.random.default_rng(0).binomial(n, 0.01, 2000)
    ships = [paired_test(0, int(c), n, margin=0.05).p_not_worse <= 0.025 for c in drawn]
    assert np.mean(ships) >= 0.78


def test_a_margin_in_points_is_refused_where_scores_are_shares() -> None:
    with pytest.raises(InvalidInput, match=r"must be under 1 where scores lie in 0-1, got 1\."):
        judged(100, harmful=1, margin=1)


def test_flips_are_told_apart() -> None:
    (result,) = judged(200, harmful=3, beneficial=2, both_wrong=5)
    assert result.flips == Flips(harmful=3, beneficial=2, churn=5, both_right=190, n=200)


def test_every_slice_is_judged_at_full_alpha_with_its_own_margin() -> None:
    results = judged(2000, harmful=8, slices=("all", "lang=*"), margins={"lang=de": 0.05})
    assert [result.slice for result in results] == ["all", "lang=de", "lang=en"]
    assert [result.limit for result in results] == [0.01, 0.05, 0.01]
    assert {result.alpha for result in results} == {0.025}
    assert results[1].n == 1000


def test_a_failed_call_is_a_wrong_answer_and_is_said() -> None:
    rights = [True] * 1000
    broken = records_of(rights, candidate="b")
    broken[:50] = [
        msgspec.structs.replace(r, output=None, error="timeout", scores={"label": None})
        for r in broken[:50]
    ]
    (result,) = judge_not_worse(NotWorse(), records_of(rights, candidate="a"), broken)
    assert result.verdict is Verdict.BLOCK
    assert result.candidate == pytest.approx(0.95)
    assert result.reason.endswith("50 failed calls of the candidate counted as wrong.")


def test_what_the_scorer_could_not_judge_is_left_out_and_said() -> None:
    rights = [True] * 1000
    partly = records_of(rights, candidate="b")
    partly[0] = msgspec.structs.replace(partly[0], scores={"label": None})
    (result,) = judge_not_worse(NotWorse(), records_of(rights, candidate="a"), partly)
    assert result.n == 999
    assert result.reason.endswith("1 example left out, which the scorer could not judge.")


def test_groups_make_the_verdict_more_careful() -> None:
    incumbent, candidate = flipped(3000, harmful=12, beneficial=6)
    alone = judge_not_worse(
        NotWorse(), records_of(incumbent, candidate="a"), records_of(candidate, candidate="b")
    )[0]
    grouped = [
        [msgspec.structs.replace(r, group=f"g{i // 10}") for i, r in enumerate(records)]
        for records in (records_of(incumbent, candidate="a"), records_of(candidate, candidate="b"))
    ]
    together = judge_not_worse(NotWorse(), *grouped)[0]
    assert alone.verdict is Verdict.SHIP
    assert together.verdict is Verdict.NOT_ENOUGH_DATA
    assert together.n_groups == 300


def test_a_loss_next_to_the_margin_asks_for_no_number_of_examples_that_nobody_will_label() -> None:
    """At 100 harmful flips of 10,000 the loss is the margin of 1 point but for a hair."""
    incumbent, candidate = flipped(10_000, harmful=100, beneficial=1)
    sides = records_of(incumbent, candidate="a"), records_of(candidate, candidate="b")
    (result,) = judge_not_worse(NotWorse(margin=0.01), *sides)
    assert result.n_missing is not None
    assert result.n_missing > 200_000  # decision.json keeps it
    assert result.reason.endswith(
        "; the loss lies so near the margin that no realistic number of examples would settle it."
    )


@pytest.mark.parametrize(
    ("n", "said"),
    [(1, "1 example"), (999, "999 examples"), (12_345, "12,000 examples"), (5_880, "5,900 examples")],
)
def test_an_estimate_of_many_examples_is_told_to_two_digits(n: int, said: str) -> None:
    assert about(n, "example") == said


@pytest.mark.parametrize(
    ("more", "n", "realistic"),
    [(100_000, 10, True), (100_001, 10, False), (100_001, 10_000, True), (200_001, 10_000, False)],
)
def test_what_is_realistic_grows_with_what_there_is(more: int, n: int, realistic: bool) -> None:
    assert is_realistic(more, n) is realistic


def twin_in_groups(n_groups: int, **gate: object):  # type: ignore[no-untyped-def]
    """One harmful flip among 1,326 examples in groups of one size."""
    incumbent, candidate = flipped(1326, harmful=1, beneficial=0)
    sides = [
        [
            msgspec.structs.replace(r, group=f"g{i % n_groups}")
            for i, r in enumerate(records_of(s, candidate=c))
        ]
        for s, c in ((incumbent, "a"), (candidate, "b"))
    ]
    return judge_not_worse(NotWorse(**gate), *sides)[0]  # type: ignore[arg-type]


def test_too_few_groups_say_how_many_more() -> None:
    result = twin_in_groups(40)
    assert result.verdict is Verdict.NOT_ENOUGH_DATA
    assert result.reason.endswith(
        "even if no answer changed, 40 groups, the largest with 2.6 % of the weight, would certify no less "
        "than 9.33 points, the margin is 1 point; about 403 more groups like these (13,000 examples) would "
        "settle it."
    )
    assert result.n_missing == 443 * 1326 // 40 + 1 - 1326


def test_a_twin_ships_where_its_groups_are_enough() -> None:
    assert twin_in_groups(1000).verdict is Verdict.SHIP
    assert twin_in_groups(300, margin=0.03).verdict is Verdict.SHIP


def test_weights_move_the_means() -> None:
    incumbent, candidate = flipped(400, harmful=20, beneficial=0)
    heavy = [
        [msgspec.structs.replace(r, weight=10.0 if i < 20 else 1.0) for i, r in enumerate(records)]
        for records in (records_of(incumbent, candidate="a"), records_of(candidate, candidate="b"))
    ]
    (result,) = judge_not_worse(NotWorse(), *heavy)
    assert result.candidate == pytest.approx(380 / 580)


def test_sides_that_do_not_pair_are_refused() -> None:
    one, other = records_of([True] * 3, candidate="a"), records_of([True] * 3, candidate="b")
    with pytest.raises(InvalidInput, match="got 1 that the candidate did not answer at e2"):
        judge_not_worse(NotWorse(), one, other[:2])
    with pytest.raises(
        InvalidInput, match="examples must be unique, got two records of the candidate at e0"
    ):
        judge_not_worse(NotWorse(), one, [*other, other[0]])
    changed = [msgspec.structs.replace(other[0], expected="no"), *other[1:]]
    with pytest.raises(InvalidInput, match="must expect the same answer, got 'yes' and 'no' at e0"):
        judge_not_worse(NotWorse(), one, changed)


def test_unknown_slices_and_scorers_are_refused() -> None:
    records = records_of([True] * 4, candidate="a")
    with pytest.raises(UnknownName, match=r"must be one of \['lang'\], got 'tone=x'"):
        judge_not_worse(NotWorse(slices=("tone=x",)), records, records)
    with pytest.raises(UnknownName, match=r"must be one of \['de', 'en'\], got 'fr'"):
        judge_not_worse(NotWorse(slices=("lang=fr",)), records, records)
    with pytest.raises(InvalidInput, match="must be `all`, `column=value` or `column=\\*`, got 'lang'"):
        judge_not_worse(NotWorse(slices=("lang",)), records, records)
    with pytest.raises(UnknownName, match=r"scorer of a gate must be one of \['label'\], got 'f1'"):
        judge_not_worse(NotWorse(scorer="f1"), records, records)
    with pytest.raises(InvalidInput, match=r"margin of a gate must be zero or more, got -0\.1"):
        judge_not_worse(NotWorse(margin=-0.1), records, records)
    with pytest.raises(InvalidInput, match="at least one slice, got none"):
        judge_not_worse(NotWorse(slices=()), records, records)


def test_a_cost_within_its_limit_ships_and_one_over_it_blocks() -> None:
    assert judge_at_most(AtMost(cost="cpu_s", limit=0.02), cost(0.3)).verdict is Verdict.SHIP
    assert judge_at_most(AtMost(cost="cpu_s", limit=0.001), cost(0.3)).verdict is Verdict.BLOCK
    assert judge_at_most(AtMost(cost="cpu_s", limit=0.003), cost(0.3)).verdict is Verdict.NOT_ENOUGH_DATA


def test_a_latency_holds_its_limit_with_all_that_its_samples_leave_open() -> None:
    found = Interval(value=0.018, low=0.016, high=0.021)
    known = CostSummary(latency_p95_s=0.018, intervals={"latency_p95_s": found})
    limits = {0.022: Verdict.SHIP, 0.02: Verdict.NOT_ENOUGH_DATA, 0.015: Verdict.BLOCK}
    for limit, verdict in limits.items():
        result = judge_at_most(AtMost(cost="latency_p95_s", limit=limit), known)
        assert result.verdict is verdict
        assert "18 ms (16 ms to 21 ms)" in result.reason, result.reason


def test_a_latency_that_its_samples_do_not_bound_from_above_never_passes() -> None:
    known = CostSummary(latency_p99_s=0.018, at_least={"latency_p99_s": 0.016})
    for limit, verdict in {0.02: Verdict.NOT_ENOUGH_DATA, 0.015: Verdict.BLOCK}.items():
        result = judge_at_most(AtMost(cost="latency_p99_s", limit=limit), known)
        assert result.verdict is verdict
        assert "18 ms (at least 16 ms; too few inputs to say at most what)" in result.reason
    bare = judge_at_most(AtMost(cost="latency_p50_s", limit=0.02), CostSummary(latency_p50_s=0.018))
    assert bare.verdict is Verdict.NOT_ENOUGH_DATA


@pytest.mark.parametrize(
    ("cost", "factor"), [("load_s", 1.5), ("peak_bytes", 1.1), ("usd_per_1000", 1.1), ("bytes", 1.0)]
)
def test_a_cost_measured_once_is_not_held_by_a_hair(cost: str, factor: float) -> None:
    known = CostSummary(**{cost: 1000})
    verdicts = [
        judge_at_most(AtMost(cost=cost, limit=1000 * share), known).verdict
        for share in (1.001 * factor, 1 / (1.001 * factor))
    ]
    assert verdicts == [Verdict.SHIP, Verdict.BLOCK]
    if factor > 1:
        near = judge_at_most(AtMost(cost=cost, limit=1000.5), known)
        assert near.verdict is Verdict.NOT_ENOUGH_DATA


def test_a_cost_that_was_not_measured_never_passes() -> None:
    result = judge_at_most(AtMost(cost="energy_j", limit=1e9), CostSummary())
    assert result.verdict is Verdict.NOT_ENOUGH_DATA
    assert result.reason == "energy_j was not measured; its limit is 1,000,000,000 J."


def test_an_estimated_energy_is_judged_with_its_factor() -> None:
    known = CostSummary(energy_j=1.0, energy_tier="E2", energy_factor=2.0)
    limits = {3.0: Verdict.SHIP, 1.5: Verdict.NOT_ENOUGH_DATA, 0.4: Verdict.BLOCK}
    for limit, verdict in limits.items():
        result = judge_at_most(AtMost(cost="energy_j", limit=limit), known)
        assert result.verdict is verdict
        assert "ESTIMATED (tier E2)" in result.reason
    metered = judge_at_most(AtMost(cost="energy_j", limit=3.0), CostSummary(energy_j=1.0, energy_tier="M2"))
    assert "ESTIMATED" not in metered.reason


def test_unknown_costs_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"cost of a gate must be one of .*, got 'vibes'"):
        judge_at_most(AtMost(cost="vibes", limit=1), CostSummary())
    with pytest.raises(InvalidInput, match="limit of cpu_s must be positive, got 0"):
        judge_at_most(AtMost(cost="cpu_s", limit=0), CostSummary())


def test_a_candidate_earns_its_place_by_cpu_or_by_size() -> None:
    incumbent = cost(1.0, size=50)
    assert judge_cheaper(incumbent, cost(0.5, size=50)).verdict is Verdict.SHIP
    assert judge_cheaper(incumbent, cost(1.2, size=10)).verdict is Verdict.SHIP
    assert judge_cheaper(incumbent, cost(1.2, size=50)).verdict is Verdict.BLOCK
    assert judge_cheaper(incumbent, cost(0.99, size=50)).verdict is Verdict.NOT_ENOUGH_DATA
    assert judge_cheaper(incumbent, CostSummary()).verdict is Verdict.NOT_ENOUGH_DATA


ERRS = ScorerErrors(
    n_right=983, n_right_passed=897, n_wrong=1091, n_wrong_failed=1017, source="labels of ours"
)


def test_the_scorers_own_error_goes_into_the_interval_and_the_verdict() -> None:
    plain = judged(400, harmful=16, beneficial=2, margin=0.07)[0]
    told = judged(400, harmful=16, beneficial=2, margin=0.07, scorer_errors={"all": ERRS})[0]
    assert plain.verdict is Verdict.SHIP
    assert told.verdict is Verdict.NOT_ENOUGH_DATA
    assert told.difference is not None
    assert plain.difference is not None
    assert told.difference.low < plain.difference.low / 0.86
    assert told.difference.value == pytest.approx(-0.035 / (897 / 983 + 1017 / 1091 - 1))
    assert told.n_missing is not None
    assert (
        "passes 91.3 % of the right answers and fails 93.2 % of the wrong ones (labels of ours)"
        in told.reason
    )
    assert "scorer's own error carried over" in told.method


def test_a_loss_that_only_a_scorer_shows_is_called_the_scorers_where_its_error_is_not_known() -> None:
    (result,) = judged(3000, harmful=12, beneficial=6, is_fallible=True)
    assert result.verdict is Verdict.SHIP
    assert (
        "The figure is the scorer's and not the truth: how often it errs here was not measured."
        in result.reason
    )


def test_a_scorer_no_better_than_chance_decides_nothing() -> None:
    coin = msgspec.structs.replace(ERRS, n_right_passed=500, n_wrong_failed=540)
    (result,) = judged(3000, harmful=0, scorer_errors={"all": coin})
    assert result.verdict is Verdict.NOT_ENOUGH_DATA
    assert "no better than chance" in result.reason
    with pytest.raises(InvalidInput, match=r"counts from 0 to n = 983, got 2000"):
        judged(300, harmful=0, scorer_errors={"all": msgspec.structs.replace(ERRS, n_right_passed=2000)})


def test_a_gate_of_a_newer_version_still_opens():
    text = (
        b'[{"type":"not_worse","margin":0.02,"new":1},{"type":"at_most","cost":"bytes","limit":1,"new":1}]'
    )
    gates = msgspec.json.decode(text, type=tuple[Gate, ...])
    assert gates == (NotWorse(margin=0.02), AtMost(cost="bytes", limit=1))
