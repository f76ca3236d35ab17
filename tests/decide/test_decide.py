"""Decisions over several candidates, their words and their files."""

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

from jettison.decide.decide import Evidence, decide
from jettison.decide.render import (
    decision_markdown,
    exit_code,
    read_decision,
    results_junit,
    write_decision,
)
from jettison.decide.report_sections import gate_rules
from jettison.decide.report_view import arm_names, tiles, weakest_check, who_answered
from jettison.decide.tell import headline
from jettison.decision import (
    CUT_SHORT,
    AtMost,
    CostSummary,
    Decision,
    GateResult,
    Interval,
    NotShownWorse,
    NotWorse,
    Verdict,
)
from jettison.errors import InvalidInput
from judged_records import evidence, flipped

N = 3000
INCUMBENT = [True] * N
GOOD, BAD, UNSURE = (flipped(N, harmful=h, beneficial=0)[1] for h in (6, 90, 24))


def decided(
    *candidates: Evidence, gates: tuple[object, ...] = (NotWorse(),), **options: object
) -> Decision:
    settings = {
        "test_digest": "t" * 64,
        "n_test_reads": 1,
        "seed": 0,
        "machine": {"cpu": "x"},
        "created": "now",
    }
    incumbent = evidence("bert", INCUMBENT, role="incumbent", ratio=1.0, size=99_000_000)
    return decide("support", incumbent, candidates, gates, **{**settings, **options})  # type: ignore[arg-type]


def test_the_nominee_is_released_when_every_gate_holds() -> None:
    decision = decided(evidence("int8", GOOD, role="nominee"))
    assert (decision.verdict, decision.chosen, exit_code(decision)) == (Verdict.SHIP, "int8", 0)
    assert decision.headline == (
        "Release int8 in place of bert: it scores 99.8 % against 100.0 %, within the margin of 1 point "
        "on all examples, at 3.33 times less CPU time per task (3.12 to 3.57)."
    )


def test_the_headline_quotes_the_weakest_of_several_checks() -> None:
    """Here the first slice gains and the second loses; the gain must not stand for both."""

    def parted(rights: list[bool], name: str, role: str) -> Evidence:
        found = evidence(name, rights, role=role)
        records = tuple(
            msgspec.structs.replace(r, slices={"domain": "a" if i < N // 2 else "b"})
            for i, r in enumerate(found.records)
        )
        return replace(found, records=records)

    wrong_at_first = [i >= 30 for i in range(N)]
    lean = [i < N - 6 for i in range(N)]  # right on all of a, wrong on six of b
    gates = (NotWorse(margin=0.02, slices=("domain=a", "domain=b")),)
    decision = decide(
        "support",
        parted(wrong_at_first, "bert", "incumbent"),
        [parted(lean, "int8", "nominee")],
        gates,
        test_digest="t" * 64,
        n_test_reads=1,
        seed=0,
        machine={"cpu": "x"},
        created="now",
    )
    assert decision.verdict is Verdict.SHIP
    assert (
        "it scores 99.6 % against 100.0 % on domain=b, where its room to the margin is smallest, and holds "
        "the margin of 2 points on each of 2 required checks" in decision.headline
    )


def test_the_weakest_check_is_the_one_nearest_to_failing() -> None:
    """Of a loss known well and a tie known badly the headline, as the page, names the tie."""

    def checked(where: str, value: float, half: float) -> GateResult:
        return GateResult(
            gate="not_worse",
            metric="label",
            slice=where,
            verdict=Verdict.SHIP,
            limit=0.02,
            incumbent=0.8,
            candidate=0.8 + value,
            difference=Interval(value=value, low=value - half, high=value + half),
            reason="",
            method="",
        )

    gates = (checked("domain=large", -0.002, 0.003), checked("domain=small", 0.0, 0.015))
    chosen = msgspec.structs.replace(
        decided(evidence("int8", GOOD, role="nominee")).candidates[1], gates=gates
    )
    assert "80.0 % against 80.0 % on domain=small, where its room to the margin is smallest" in headline(
        "bert", chosen, [chosen]
    )
    assert weakest_check(chosen) is gates[1]


def test_headline_and_first_tile_name_the_same_slice_though_all_examples_hold() -> None:
    """All examples hold with a gain; 3 of the 100 of home are harmed: there the verdict is decided."""
    rare = evidence("bert", [i >= 60 for i in range(N)], role="incumbent", ratio=1.0, size=99_000_000)
    lean = evidence("int8", [i < N - 3 for i in range(N)], role="nominee")

    def parted(found: Evidence) -> Evidence:
        records = tuple(
            msgspec.structs.replace(r, slices={"domain": "home" if i >= N - 100 else "work"})
            for i, r in enumerate(found.records)
        )
        return replace(found, records=records)

    decision = decide(
        "support",
        parted(rare),
        [parted(lean)],
        (NotWorse(margin=0.05, slices=("all", "domain=*")),),
        test_digest="t" * 64,
        n_test_reads=1,
        seed=0,
        machine={"cpu": "x"},
        created="now",
    )
    assert decision.verdict is Verdict.NOT_ENOUGH_DATA
    assert "int8 is neither proven nor ruled out on domain=home; about " in decision.headline
    first = tiles(decision)[0]
    assert (first.title, first.value) == (
        "Accuracy, in points, on domain=home (smallest room to the margin)",
        "-3.0",
    )


def test_alpha_is_split_between_nominee_and_fallback_and_not_spent_otherwise() -> None:
    both = decided(evidence("a", GOOD, role="nominee"), evidence("b", GOOD, role="fallback"))
    alphas = {r.name: r.gates[0].alpha for r in both.candidates[1:]}
    assert alphas == pytest.approx({"a": 0.02, "b": 0.005})
    alone = decided(evidence("a", GOOD, role="nominee"), evidence("c", GOOD, role="shown"))
    assert alone.candidates[1].gates[0].alpha == 0.025


def test_the_rules_say_why_nominees_stand_at_other_confidences_and_name_the_rule_of_cost() -> None:
    both = decided(evidence("a", GOOD, role="nominee"), evidence("b", GOOD, role="fallback"))
    share, place = gate_rules(both)[1:]
    assert "2 % for the nominee a and 0.5 % for the second nominee b" in share
    assert "a confidence of 98 % and 99.5 % in their rows, and intervals of 96 % and 99 %" in share
    assert place.startswith("A candidate must earn its place: the CPU time over the incumbent's is shown")
    assert both.caveats[0].endswith("(2 % for the nominee, 0.5 % for the second nominee).")
    assert "fallback" not in decision_markdown(both)
    alone = gate_rules(decided(evidence("a", GOOD, role="nominee")))
    assert len(alone) == 2
    again = gate_rules(decided(evidence("a", GOOD, role="nominee"), n_test_reads=3))
    assert "decision 3 on this test split, which leaves it 1/4 of the error probability" in again[1]


def test_the_fallback_is_released_when_the_nominee_fails() -> None:
    decision = decided(evidence("tiny", BAD, role="nominee"), evidence("int8", GOOD, role="fallback"))
    assert decision.chosen == "int8"
    assert any(reason.startswith("tiny: BLOCK.") for reason in decision.reasons)


def test_a_candidate_only_shown_is_never_released() -> None:
    decision = decided(evidence("tiny", BAD, role="nominee"), evidence("int8", GOOD, role="shown"))
    assert (decision.verdict, decision.chosen) == (Verdict.BLOCK, None)
    assert decision.headline == "Keep bert: tiny loses more than the margin of 1 point."
    assert any("was not nominated on dev before the test split was read" in r for r in decision.reasons)


def test_too_little_data_holds_and_says_what_is_missing() -> None:
    decision = decided(evidence("int8", UNSURE, role="nominee"))
    assert (decision.verdict, exit_code(decision)) == (Verdict.NOT_ENOUGH_DATA, 1)
    assert "more test examples would settle it" in decision.headline


def test_the_headline_asks_for_no_number_of_examples_that_nobody_will_label() -> None:
    hair = [i >= 31 for i in range(N)]
    decision = decided(evidence("int8", hair, role="nominee"), gates=(NotWorse(margin=0.0106),))
    assert decision.headline == (
        "Keep bert for now: int8 is neither proven nor ruled out on all examples; the loss lies so near "
        "the margin that no realistic number of examples would settle it."
    )


def test_a_saving_that_was_measured_briefly_is_told_as_that_in_headline_and_tile() -> None:
    found = evidence("int8", GOOD, role="nominee")
    mark = f"{CUT_SHORT}: 1 of 3 openings in fresh processes."
    decision = decided(replace(found, cost=msgspec.structs.replace(found.cost, marks=(mark,))))
    assert decision.headline.endswith(
        "at 3.33 times less CPU time per task (3.12 to 3.57, measured briefly)."
    )
    assert tiles(decision)[1].detail.endswith(
        "; measured briefly, as the run's budget allowed: 1 of 3 openings in fresh processes"
    )
    assert "briefly" not in tiles(decided(found))[1].detail


def test_who_answered_on_test_is_told_of_a_cascade_by_the_names_of_its_models() -> None:
    arms = ["lean"] * (N // 2) + ["fallback/lean"] * (N // 4) + ["fallback/fallback"] * (N // 4)
    found = evidence("linear→static→onnx-int8", GOOD, role="nominee")
    records = tuple(msgspec.structs.replace(r, arm=arm) for r, arm in zip(found.records, arms, strict=True))
    base, cascade = decided(replace(found, records=records)).candidates
    assert base.arm_shares == {}
    assert cascade.arm_shares == {"lean": 0.5, "fallback/fallback": 0.25, "fallback/lean": 0.25}
    assert who_answered(base) == ""
    assert who_answered(cascade).startswith(
        "Who answered on test: linear 50.0 %, static 25.0 %, onnx-int8 25.0 %."
    )


def test_arms_are_told_as_they_are_where_the_name_does_not_tell_the_models() -> None:
    assert arm_names("a→b #2", ["lean", "fallback"]) == {"lean": "a", "fallback": "b"}
    assert arm_names("mine", ["lean", "fallback"]) == {"lean": "lean", "fallback": "fallback"}
    nested = ["lean/lean", "lean/fallback", "fallback"]
    assert arm_names("a→b→c", nested) == dict(zip(nested, nested, strict=True))


def test_a_candidate_that_costs_no_less_is_never_released() -> None:
    decision = decided(evidence("same", GOOD, role="nominee", ratio=1.1, size=99_000_000))
    assert (decision.verdict, decision.chosen) == (Verdict.BLOCK, None)
    assert decision.headline == "Keep bert: same does not cost less."


def test_every_gate_must_hold() -> None:
    gates = (NotWorse(), AtMost(cost="cpu_s", limit=0.001))
    decision = decided(evidence("int8", GOOD, role="nominee"), gates=gates)
    assert decision.chosen is None
    assert [g.metric for g in decision.candidates[1].gates] == ["label", "cpu_s", "cpu_ratio"]


def test_the_pareto_set_leaves_out_what_another_beats_on_both() -> None:
    decision = decided(
        evidence("int8", GOOD, role="nominee", ratio=0.3),
        evidence("tiny", BAD, role="shown", ratio=0.1),
        evidence("slow", BAD, role="shown", ratio=0.6),
    )
    assert {r.name: r.pareto for r in decision.candidates} == {
        "bert": True,
        "int8": True,
        "tiny": True,
        "slow": False,
    }


def test_the_pareto_set_is_of_the_score_over_all_examples_whatever_slice_a_gate_names_first() -> None:
    """On lang=de `int8` loses to `lean`, over all examples it does not: the picture draws all examples."""

    def right_but(*wrong: int) -> list[bool]:
        return [i not in wrong for i in range(N)]

    gates = (NotWorse(margin=0.05, slices=("lang=de", "lang=en")),)
    decision = decided(
        evidence("int8", right_but(0, 2), role="nominee", ratio=0.3),  # even examples are of lang=de
        evidence("lean", right_but(0, 1, 3, 5), role="shown", ratio=0.2),
        gates=gates,
    )
    assert {r.name: r.pareto for r in decision.candidates} == {"bert": True, "int8": True, "lean": True}


def test_repeated_reading_of_the_test_split_is_a_caveat() -> None:
    once, thrice = (decided(evidence("a", GOOD, role="nominee"), n_test_reads=n) for n in (1, 3))
    assert not any("has been read" in caveat for caveat in once.caveats)
    assert any("has been read for 3 decisions" in caveat for caveat in thrice.caveats)


def test_a_candidate_that_abstains_is_said_to_and_how_often() -> None:
    found = evidence("careful", GOOD, role="nominee")
    withheld = [msgspec.structs.replace(r, abstained=i % 4 == 0) for i, r in enumerate(found.records)]
    (said,) = (c for c in decided(replace(found, records=tuple(withheld))).caveats if "abstains" in c)
    assert said.startswith("careful abstains from what looks out of scope")
    assert "to 25.0 % of the test split" in said
    assert not any("abstains" in caveat for caveat in decided(found).caveats)


def test_without_candidates_the_incumbent_stays() -> None:
    decision = decided()
    assert (decision.verdict, decision.headline) == (
        Verdict.NOT_ENOUGH_DATA,
        "Keep bert: no candidate was put to the test.",
    )


def test_without_a_nominee_the_headline_says_why_there_was_none() -> None:
    dear = evidence("big", GOOD, role="shown", ratio=1.2)
    untold = replace(dear, name="linear", cost=CostSummary())
    assert decided(dear).headline == (
        "Keep bert: no candidate was put to the test, since none clearly costs less."
    )
    assert decided(untold).headline == (
        "Keep bert: no candidate was put to the test, since what bert costs is not known and so none is "
        "shown to cost less."
    )


def test_a_decision_survives_the_disk(tmp_path: Path) -> None:
    decision = decided(evidence("int8", UNSURE, role="nominee"))
    path = write_decision(tmp_path, decision)
    assert read_decision(path) == read_decision(tmp_path) == decision
    assert decision.headline in (tmp_path / "decision.md").read_text()
    suite = ElementTree.parse(tmp_path / "decision.junit.xml").getroot()
    assert suite.attrib["tests"] == "2"
    assert suite.attrib["errors"] == "1"
    assert suite.find("testcase/error") is not None


def test_no_test_at_all_is_no_success_to_a_build_server(tmp_path: Path) -> None:
    write_decision(tmp_path, decided())
    suite = ElementTree.parse(tmp_path / "decision.junit.xml").getroot()
    assert (suite.attrib["tests"], suite.attrib["errors"]) == ("1", "1")
    error = suite.find("testcase/error")
    assert error is not None
    assert error.attrib["message"] == "Keep bert: no candidate was put to the test."


def test_junit_is_well_formed_whatever_the_names_hold() -> None:
    result = decided(evidence("int8", GOOD, role="nominee")).candidates[1].gates[0]
    strange = msgspec.structs.replace(result, slice="a\x00\x1b\ufffe\nb\t<é>")
    root = ElementTree.fromstring(results_junit([strange], suite="s\x07", case="c"))
    assert root.attrib["name"] == "s\ufffd"
    assert root[0].attrib["name"].endswith("[a\ufffd\ufffd\ufffd\nb\t<é>]")


def test_a_decision_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    path = write_decision(tmp_path, msgspec.structs.replace(decided(), format=99))
    with pytest.raises(InvalidInput, match="must be of format 1 or older, got 99"):
        read_decision(path)


def test_the_markdown_shows_unknown_costs_as_unknown() -> None:
    bare = msgspec.structs.replace(evidence("x", GOOD, role="shown").cost, cpu_ratio=None, bytes=None)
    shown = Evidence(
        name="x", digest="x", records=evidence("x", GOOD, role="s").records, cost=bare, role="shown"
    )
    text = decision_markdown(decided(evidence("int8", GOOD, role="nominee"), shown))
    assert "| x | shown | NOT ENOUGH DATA | 99.8 % | – | – | – |" in text


@pytest.mark.parametrize(
    ("roles", "message"),
    [
        (("nominee", "nominee"), "at most one nominee, got 2"),
        (("fallback",), "a fallback must stand beside a nominee"),
        (("winner",), r"must be one of \['nominee', 'fallback', 'shown'\], got 'winner' at c0"),
    ],
)
def test_roles_that_would_widen_the_choice_are_refused(roles: tuple[str, ...], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        decided(*(evidence(f"c{i}", GOOD, role=role) for i, role in enumerate(roles)))


def test_alpha_shares_over_one_and_costs_alone_are_refused() -> None:
    pair = evidence("a", GOOD, role="nominee"), evidence("b", GOOD, role="fallback")
    with pytest.raises(InvalidInput, match=r"must sum to at most 1, got 1\.2"):
        decided(*pair, alpha_share={"nominee": 0.8, "fallback": 0.4})
    with pytest.raises(InvalidInput, match="at least one `not_worse` gate, got none"):
        decided(pair[0], gates=(AtMost(cost="cpu_s", limit=1),))


def test_a_further_reading_spends_half_the_alpha():
    gates = [NotWorse(margin=0.02)]
    alphas = [
        decided(evidence("a", GOOD, role="nominee"), gates=gates, n_test_reads=n)
        .candidates[1]
        .gates[0]
        .alpha
        for n in (1, 2, 3)
    ]
    assert alphas == [0.025, 0.0125, 0.00625]


def test_a_gate_that_blocks_what_is_shown_keeps_its_alpha_at_a_further_reading():
    # 10 harmful flips of 3,000 and 2 beneficial: z = -8 / sqrt(12) = -2.31, p = 0.0105, under 0.025 and
    # over half of it, which the second reading would have spent.
    lost = flipped(N, harmful=10, beneficial=2)
    incumbent = evidence("bert", lost[0], role="incumbent", ratio=1.0, size=99_000_000)
    gates = (NotWorse(margin=0.02), NotShownWorse(scorer="label"))
    for n_reads in (1, 6):
        decision = decide(
            "support",
            incumbent,
            [evidence("a", lost[1], role="nominee"), evidence("b", lost[1], role="fallback")],
            gates,
            test_digest="t" * 64,
            n_test_reads=n_reads,
            seed=0,
            machine={"cpu": "x"},
            created="now",
        )
        for report in decision.candidates[1:]:
            shown = next(gate for gate in report.gates if gate.gate == "not_shown_worse")
            assert (shown.verdict, shown.alpha) == (Verdict.BLOCK, 0.025)
        told = " ".join(gate_rules(decision))
        parts = (f"{2 / 2 ** (n_reads - 1):.3g} % for the nominee a", "% for the second nominee b")
        assert all(part in told for part in parts)  # of the gates that share it, not of this one
