"""What the tiers share: their names, and how an example says which tier it is of and where it came from."""

from collections.abc import Mapping

import msgspec
import numpy as np

from jettison.files import value_sha256
from jettison.task import Example

TIERS = ("in_domain", "long_tail", "out_of_domain", "perturbed", "adversarial", "safety")
TIER = "tier"
"""Slice column with the tier; `long_tail` is a column of its own, since its examples are in the domain."""


def in_tier(
    example: Example,
    tier: str,
    *,
    name: str,
    source: str,
    slices: Mapping[str, str] | None = None,
    made: bool = False,
) -> Example:
    """An example as one of a tier: its own id, and a group that ties it to what it was made of.

    Args:
        example: As it should be asked.
        tier: One of `TIERS`.
        name: Ends the id; empty keeps it.
        source: Where it came from, in words.
        slices: Further slices.
        made: Whether the text is a changed one. The slices of the original then stay with the original:
            what the task reports on a domain is of what users wrote.
    """
    return msgspec.structs.replace(
        example,
        id=f"{example.id}~{name}" if name else example.id,
        group=example.group or (example.id if name else None),
        slices={**({} if made else example.slices), TIER: tier, **(slices or {})},
        source=source,
    )


def with_slice(example: Example, column: str, value: str) -> Example:
    """The example with one more slice."""
    return msgspec.structs.replace(example, slices={**example.slices, column: value})


def rng_of(seed: int, *parts: str) -> np.random.Generator:
    """A generator that depends on the seed and the parts alone, not on what else is drawn."""
    return np.random.default_rng(int(value_sha256([seed, *parts])[:16], 16))
