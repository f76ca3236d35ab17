"""How far the weights of examples may lie apart and still give one mean."""

from collections.abc import Sequence

from jettison.errors import InvalidInput

SMALLEST, LARGEST = 1e-100, 1e100
MOST_RATIO = 1e12


def check_weights(weights: Sequence[float], places: Sequence[str]) -> None:
    """Refuse weights whose sums overflow, or beside whose largest the others count for nothing.

    Args:
        weights: Each above 0, shape (n_examples,).
        places: Where each stands, for messages, shape (n_examples,).

    Raises:
        InvalidInput: One is out of range, or two lie further apart than `MOST_RATIO`.
    """
    if not weights:
        return
    largest = max(range(len(weights)), key=lambda i: weights[i])
    smallest = min(range(len(weights)), key=lambda i: weights[i])
    for i in (largest, smallest):
        if not SMALLEST <= weights[i] <= LARGEST:
            raise InvalidInput(
                f"a weight must be from {SMALLEST:g} to {LARGEST:g}, got {weights[i]:g} at {places[i]}."
            )
    if weights[largest] > MOST_RATIO * weights[smallest]:
        raise InvalidInput(
            f"weights must lie within a factor of {MOST_RATIO:g} of each other, got "
            f"{weights[largest]:g} at {places[largest]} and {weights[smallest]:g} at {places[smallest]}. "
            "Bring them to one scale, or leave the column out."
        )
