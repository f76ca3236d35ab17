"""Safety gates know how the scorer behind them errs, or say that it is not known."""

from jettison.decision import AtMost, NotWorse, ScorerErrors
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
