"""What a decision may still spend of its error probability when the test split was read before.

The first reading spends all of alpha, each further one half as much as the one before: all decisions on
one test split together release a candidate that loses the margin with a probability of at most twice
alpha, however many there are and whatever was learned on the way (a union bound).
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
    """Bound on the error probability of all readings together."""
    return 2 * alpha
