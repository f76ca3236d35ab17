"""What a decision may still spend of its error probability when the test split was read before.

The first reading spends all of alpha, each further one half as much as the one before: decisions on one
test split together release a candidate that loses the margin with a probability of at most twice alpha,
however many there are (a union bound), where each later nominee was fixed before its answers on this test
split were seen. It counts readings and not candidates looked at: whoever nominates one for what it showed
on test has picked the best of many, and spends more. Of five shown for information in the first reading,
the one that would pass in the second is released wrongly so often that both readings together err with 7.1
instead of at most 5 % (simulated, every candidate at the margin, alpha 2.5 %).
"""

from jettison.errors import InvalidInput


def alpha_share_of_reading(n_reads: int) -> float:
    """Share of alpha that the n-th reading of a test split may spend: 1, 1/2, 1/4, ...

    Args:
        n_reads: Decisions that have read it, this one included; at least 1.
    """
    if n_reads < 1:
        raise InvalidInput(f"readings of a test split must be counted from 1, got {n_reads}.")
    return float(0.5 ** (n_reads - 1))


def alpha_over_all(alpha: float) -> float:
    """Bound on the error probability of all readings together, of nominees not picked by test answers."""
    return 2 * alpha
