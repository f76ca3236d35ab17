"""Ranks what changed in the inputs, on all of them and on each slice: what a classifier tells live by.

A classifier learns to tell live texts from the reference (on a slice: from the reference's texts of that
slice) and is tested on texts that it has not seen. What its scores differ by, feature for feature, is the
ranking.
"""

from collections import deque
from collections.abc import Collection, Mapping, Sequence

import msgspec
import numpy as np

from jettison.release.sketch import FEATURES, Sketch
from jettison.stats.multiplicity import holm
from jettison.stats.two_samples import ClassifierDiffers, classifier_differs

FEWEST_TEXTS = 60
MOST_TEXTS = 1000
"""The newest that are kept."""
ALPHA = 0.05


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """How inputs differ from the reference's."""

    slice: str
    """`all`, or `name=value`."""
    n: int
    """Live texts."""
    p_value: float
    """Of this one look."""
    auc: float
    """How well the classifier tells live from reference: 0.5 is not at all."""
    changed: tuple[tuple[str, float], ...]
    """`words` or a score of the text, with its part in 0-1 of what the classifier tells them by,
    largest first. A part below 0 speaks against."""


def changes_of(
    sketch: Sketch, features: np.ndarray, members: Mapping[str, np.ndarray]
) -> tuple[Change, ...]:
    """Compare live inputs with the reference, all of them first, then slice by slice.

    Args:
        sketch: Of the release.
        features: `FEATURES` of live texts, shape (n_texts, n_features).
        members: Slice as `name=value` → places of its texts.

    Returns:
        One for all and each slice that the sketch knows, where there are `FEWEST_TEXTS` live texts.
    """
    reference = sketch.features
    if reference is None or reference.n < 30 or len(features) < FEWEST_TEXTS:
        return ()
    covariance = reference.covariance_array
    told = classifier_differs(reference.mean_array, covariance, reference.n, other=features)
    found = [_change("all", len(features), told)]
    for name, known in sketch.slice_features.items():
        some = features[members[name]] if name in members else features[:0]
        if len(some) >= FEWEST_TEXTS:
            # A slice's own covariance is not kept, only its mean: that of all inputs is learned by.
            told = classifier_differs(
                known.mean_array, covariance, known.n, other=some, is_own_covariance=False
            )
            found.append(_change(name, len(some), told))
    return tuple(found)


def _change(name: str, n: int, told: ClassifierDiffers) -> Change:
    parts: dict[str, float] = {}
    for feature, part in zip(FEATURES, told.contributions.tolist(), strict=False):
        group = "words" if feature.startswith("words ") else feature
        parts[group] = parts.get(group, 0.0) + part
    ranked = tuple(sorted(parts.items(), key=lambda item: -item[1]))
    return Change(slice=name, n=n, p_value=told.p_value, auc=told.auc, changed=ranked)


def surest(changes: Sequence[Change], *, alpha: float = ALPHA) -> tuple[Change, ...]:
    """Those that hold together at `alpha` (Holm), the plainest first."""
    if not changes:
        return ()
    adjusted = holm([one.p_value for one in changes])
    sure = [one for one, p in zip(changes, adjusted, strict=True) if p <= alpha and one.auc > 0.5]
    return tuple(sorted(sure, key=lambda one: (-one.auc, one.slice)))


def ranking_words(changed: Sequence[tuple[str, float]]) -> str:
    """A ranking in words: `words 71 %, length 20 %`; what makes less than 2 % is left out."""
    return ", ".join(f"{name} {part:.0%}" for name, part in changed if part > 0.02)


class NewestTexts:
    """Features of the newest texts of a log, and the slices they are in.

    Args:
        sketch: Of the release.
        most: How many are kept.
    """

    def __init__(self, sketch: Sketch, *, most: int = MOST_TEXTS) -> None:
        self._sketch = sketch
        self._features: deque[np.ndarray] = deque(maxlen=most)
        self._slices: deque[frozenset[str]] = deque(maxlen=most)
        self._kept: tuple[Change, ...] | None = None

    def take(self, features: np.ndarray, slices: Sequence[Mapping[str, str]]) -> None:
        """Take in texts, oldest first: their features, shape (n, n_features), and slices."""
        self._features.extend(features.astype(np.float32))
        known: Collection[str] = self._sketch.slice_features
        named = (frozenset(f"{name}={value}" for name, value in some.items()) for some in slices)
        self._slices.extend(frozenset(one for one in some if one in known) for some in named)
        self._kept = None

    def changes(self) -> tuple[Change, ...]:
        """`changes_of` what is kept."""
        if self._kept is None:
            members = {
                name: np.array([place for place, some in enumerate(self._slices) if name in some], np.int64)
                for name in self._sketch.slice_features
            }
            rows = np.array(self._features, float) if self._features else np.zeros((0, len(FEATURES)))
            self._kept = changes_of(self._sketch, rows, members)
        return self._kept
