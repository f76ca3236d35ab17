"""How likely a candidate is to pass when examples come in groups, or have graded scores or weights."""

import numpy as np

from jettison.errors import InvalidInput
from jettison.stats.clustered import GroupSums
from jettison.stats.noninferiority import ships_by_group


def pass_probability_by_group(
    dev: GroupSums,
    *,
    n_test: int,
    margin: float,
    alpha: float = 0.025,
    binary: bool = True,
    n_draws: int = 100,
    seed: int = 0,
) -> float:
    """Probability that a candidate passes the gate on grouped test examples, given its flips on dev.

    Whole groups are drawn again, so that flips which came together on dev come together on
    test. The share of each kind of group is drawn from its posterior (Bayesian bootstrap),
    with half a group that gains and half a group that loses beside those seen: dev without a
    flip is no proof that there is none. They change by as much as the changed groups of dev on
    average, by one answer where none changed. The gate's own test judges each draw.

    Args:
        dev: Differences of scores in [0, 1] on dev, candidate minus incumbent, by group.
        n_test: Test examples, taken to come in groups as large as those of dev.
        margin: Loss that still counts as not worse.
        alpha: One-sided error probability the gate will spend.
        binary: False where scores are graded: the gate then judges by another test.
        n_draws: Simulated test splits.
        seed: Of the simulation.

    Raises:
        InvalidInput: Dev holds no group.

    Source:
        Rubin 1981, Ann. Stat. 9:130; the half groups are the Jeffreys prior of
        `planning.pass_probability`.
    """
    if len(dev.sums) == 0:
        raise InvalidInput("a prediction must start from at least 1 group of dev, got 0.")
    if n_test < 1:
        return 0.0
    rng = np.random.default_rng(seed)
    changes = np.abs(dev.sums[dev.sums != 0])
    change = float(changes.mean()) if len(changes) else 1.0
    usual = max(float(np.median(dev.weights)), change)
    sums = np.append(dev.sums, [change, -change])
    weights = np.append(dev.weights, [usual, usual])
    prior = np.append(np.ones(len(dev.sums)), [0.5, 0.5])
    n_groups = max(1, round(n_test * len(dev.weights) / dev.n))
    passed = 0
    for share in rng.dirichlet(prior, n_draws):
        drawn = rng.choice(len(sums), n_groups, p=share)
        test = GroupSums(sums=sums[drawn], weights=weights[drawn], n=n_test)
        passed += ships_by_group(test, margin=margin, alpha=alpha, binary=binary, seed=seed)
    return passed / n_draws
