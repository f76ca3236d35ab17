"""The reference profile: what inputs and answers looked like at release, for later drift checks.

It holds counts, quantiles and moments alone, no text.
"""

import re
import zlib
from collections import Counter
from collections.abc import Sequence

import msgspec

from jettison.release.sketch import Sketch

N_TOKEN_BUCKETS = 512


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """Distributions over the reference inputs. None is "does not apply", never zero."""

    split: str
    """Split of the reference examples."""
    n_inputs: int
    n_errors: int
    label_counts: dict[str, int]
    """Answers by label; one that is not there was never answered."""
    confidence_counts: tuple[int, ...]
    """Answers by confidence, in 20 equal bins of 0-1."""
    length_quantiles: tuple[float, ...]
    """Characters of the inputs at 21 evenly spaced quantiles, ascending."""
    token_counts: tuple[int, ...]
    """Lower-case words of the inputs by CRC-32 modulo 512: new words show, none can be read back."""
    n_tokens: int
    in_scope_quantiles: tuple[float, ...] | None = None
    """`in_scope` ranks at 21 evenly spaced quantiles."""
    flagged_share: float | None = None
    escalated_share: float | None = None
    """Of a cascade: share that the fallback answered."""
    sketch: Sketch | None = None
    """What drift detectors compare live traffic with; None in releases written before there was one."""


def token_counts(texts: Sequence[str]) -> tuple[int, ...]:
    """Words of the texts, hashed and counted, shape (N_TOKEN_BUCKETS,)."""
    words = Counter(word for text in texts for word in re.findall(r"\w+", text.lower()))
    counts = [0] * N_TOKEN_BUCKETS
    for word, count in words.items():
        counts[zlib.crc32(word.encode("utf-8", "surrogatepass")) % N_TOKEN_BUCKETS] += count
    return tuple(counts)
