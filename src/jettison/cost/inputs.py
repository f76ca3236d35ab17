"""Which inputs are measured: a few that follow the team's own lengths."""

from collections.abc import Sequence

import numpy as np

from jettison.errors import InvalidInput
from jettison.task import Input


def sample_inputs(texts: Sequence[str], *, n: int = 128, seed: int = 0) -> list[str]:
    """Draw texts so that short and long ones come up as often as they do in the whole.

    Args:
        texts: All the team has, of dev or of unlabelled traffic.
        n: How many to draw; all of them when there are fewer.
        seed: The same seed draws the same texts.

    Returns:
        One text of each of `n` strata of equal size, shortest stratum first.

    Raises:
        InvalidInput: There is no text.
    """
    if not len(texts):
        raise InvalidInput("the inputs to measure on must be at least one text, got none.")
    rng = np.random.default_rng(seed)
    by_length = sorted(range(len(texts)), key=lambda row: (len(texts[row]), row))
    strata = np.array_split(np.asarray(by_length), min(n, len(texts)))
    return [texts[int(rng.choice(stratum))] for stratum in strata]


def deal_blocks(inputs: Sequence[Input], block: int, *, rng: np.random.Generator) -> list[list[int]]:
    """Deal inputs into blocks that each hold the whole range of lengths.

    Args:
        inputs: The texts, in any order.
        block: Inputs per block.
        rng: Shuffles each block.

    Returns:
        Rows of the inputs, one list a block; all blocks are of like size.
    """
    by_length = sorted(range(len(inputs)), key=lambda row: (_length(inputs[row]), row))
    n_blocks = max(1, len(inputs) // max(1, block))
    dealt = [by_length[start::n_blocks] for start in range(n_blocks)]
    return [[int(row) for row in rng.permutation(rows)] for rows in dealt]


def _length(asked: Input) -> int:
    """Characters of an input, its choices included."""
    return len(asked) if isinstance(asked, str) else len(asked.text) + sum(map(len, asked.choices))
