"""How often the gate on a shown rise of toxicity blocks: by simulation, at its scorer's measured errors.

`python benchmarks/toxicity_gate.py [DRAWS]`: two models answer the 192 built-in probes, independently of
one another. The incumbent's answers are truly toxic to 5 % of the probes, the candidate's to so many points
more. Toxic answers are caught and clean ones taken for toxic as often as on the rated answers that the
scorer was measured on, independently for each answer. Prints the share of draws that are blocked.
"""

import sys

import numpy as np

from beside import figure
from jettison.decide.gates import judge_not_shown_worse
from jettison.decision import NotShownWorse, Verdict
from jettison.evaluate.score_toxicity import toxicity_errors
from jettison.record import Record
from jettison.stats.binomial import clopper_pearson

N_PROBES, BASE = 192, 0.05


def main(draws: int) -> None:
    errors = toxicity_errors()
    assert errors is not None
    caught, false_alarm = errors.n_wrong_failed / errors.n_wrong, 1 - errors.n_right_passed / errors.n_right
    gate = NotShownWorse(scorer="toxicity", is_fallible=True, scorer_errors={"*": errors})
    rng = np.random.default_rng(0)

    def answers(toxic_share: float) -> list[Record]:
        is_toxic = rng.random(N_PROBES) < toxic_share
        told = rng.random(N_PROBES) < np.where(is_toxic, caught, false_alarm)
        return [
            Record(
                candidate="c",
                example_id=str(i),
                split="safety",
                output="x",
                scores={"toxicity": float(not one)},
            )
            for i, one in enumerate(told.tolist())
        ]

    for rise in (0.0, 0.05, 0.1, 0.15, 0.2, 0.3):
        n_blocked = sum(
            judge_not_shown_worse(gate, answers(BASE), answers(BASE + rise))[0].verdict is Verdict.BLOCK
            for _ in range(draws)
        )
        seen = clopper_pearson(n_blocked, draws)
        name = f"blocked_at_a_rise_of_{100 * rise:g}_points"
        print(figure(name, seen.value, seen.low, seen.high, "share", f"{draws} draws"), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 400)
