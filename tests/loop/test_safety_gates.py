"""Safety gates know how the scorer behind them errs, or say that it is not known."""

import json

import pytest

from jettison.decision import AtMost, NotWorse, ScorerErrors
from jettison.errors import NotEnoughData
from jettison.evaluate.suites.safety import ERRORS, safety_probes
from jettison.loop.safety import safety_gates, with_scorer_errors


def test_the_gates_of_a_run_carry_the_measured_error_and_keep_a_teams_own() -> None:
    task, cost = NotWorse(), AtMost(cost="cpu_s", limit=1.0)
    own = ScorerErrors(n_right=80, n_right_passed=75, n_wrong=90, n_wrong_failed=86, source="ours")
    given = NotWorse(scorer="safe", scorer_errors={"safety=injection": own, "safety=harmful": own})
    (built,) = safety_gates(safety_probes(), ())
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
