"""Safety gates know how the scorer behind them errs, or say that it is not known."""

import json

import msgspec
import pytest

from jettison.decide.gates import judge_not_shown_worse
from jettison.decision import AtMost, NotShownWorse, NotWorse, ScorerErrors, Verdict
from jettison.errors import NotEnoughData
from jettison.evaluate.suites.safety import ERRORS, safety_probes
from jettison.loop.safety import safety_gates, with_scorer_errors
from jettison.record import Record


def test_the_gates_of_a_run_carry_the_measured_error_and_keep_a_teams_own() -> None:
    task, cost = NotWorse(), AtMost(cost="cpu_s", limit=1.0)
    own = ScorerErrors(n_right=80, n_right_passed=75, n_wrong=90, n_wrong_failed=86, source="ours")
    given = NotWorse(scorer="safe", scorer_errors={"safety=injection": own, "safety=harmful": own})
    built, toxicity = safety_gates(safety_probes(), ())
    assert toxicity == NotShownWorse(scorer="toxicity", slices=("asked=probe",))
    found = with_scorer_errors((task, cost, given, built))
    assert found[:2] == (task, cost)
    assert found[2].scorer_errors == {**ERRORS, "safety=injection": own, "safety=harmful": own}
    assert found[3].scorer_errors == ERRORS
    assert found[3].is_fallible
    assert "safety=injection" in found[3].slices
    assert "safety=injection" not in found[3].scorer_errors


def test_a_judge_that_knows_right_from_wrong_no_better_than_chance_is_refused_before_anything(
    tmp_path,
) -> None:
    path = tmp_path / "people.jsonl"

    def labelled(n_missed: int) -> dict[str, str]:
        rows = [{"right": i % 2 == 0, "passed": i % 2 == 0 and i >= 2 * n_missed} for i in range(80)]
        lines = (json.dumps({"input": "?", "answer": "a", **row}) for row in rows)
        path.write_text("\n".join(lines))
        return {"judge": str(path)}

    asked = [NotWorse(scorer="judge")]
    (gate,) = with_scorer_errors(asked, labelled=labelled(n_missed=4))
    assert (gate.scorer_errors["*"].n_right, gate.scorer_errors["*"].n_right_passed) == (40, 36)
    with pytest.raises(NotEnoughData, match=r"decides nothing on 80 .* no better than chance"):
        with_scorer_errors(asked, labelled=labelled(n_missed=40))
    # Where it only reports, it may be what it is.
    assert with_scorer_errors([NotWorse()], labelled=labelled(n_missed=40)) == (NotWorse(),)


def test_a_rise_of_toxicity_that_is_shown_blocks_and_a_teams_own_gate_takes_its_place() -> None:
    (gate,) = with_scorer_errors(safety_gates(safety_probes(), [NotWorse(scorer="safe")]))
    assert isinstance(gate, NotShownWorse)
    assert (gate.scorer_errors["*"].n_wrong, gate.scorer_errors["*"].n_wrong_failed) == (140, 62)
    assert safety_gates(safety_probes(), [NotWorse(scorer="safe"), NotWorse(scorer="toxicity")]) == ()
    assert safety_gates((), ()) == ()

    def answers(n_toxic: int) -> list[Record]:
        return [
            Record(
                candidate="c",
                example_id=probe.id,
                split="safety",
                output="x",
                scores={"toxicity": float(i >= n_toxic)},
                slices=probe.slices,
            )
            for i, probe in enumerate(safety_probes())
        ]

    # Of 192 answers 12 more are seen to be toxic: truly 12 / 192 / 0.40 = 16 points.
    (shown,) = judge_not_shown_worse(gate, answers(3), answers(15))
    assert shown.verdict is Verdict.BLOCK
    assert shown.difference is not None
    assert shown.difference.value == pytest.approx(-12 / 192 / (84 / 88 + 62 / 140 - 1))
    assert shown.reason.startswith("On asked=probe the candidate scores 92.2 % against 98.4 % (toxicity, ")
    assert "a loss is shown (difference -" in shown.reason
    assert "fails 44.3 % of the wrong ones" in shown.reason
    (passed,) = judge_not_shown_worse(gate, answers(3), answers(4))
    assert (passed.gate, passed.verdict, passed.p_value) == ("not_shown_worse", Verdict.SHIP, None)
    assert "no loss is shown" in passed.reason
    assert "points is not excluded" in passed.reason
    lost = [msgspec.structs.replace(one, unanswered=True, scores={}) for one in answers(3)[:5]]
    (undecided,) = judge_not_shown_worse(gate, answers(3), [*lost, *answers(3)[5:]])
    assert undecided.verdict is Verdict.NOT_ENOUGH_DATA
