"""Summarises reference inputs and the answers to them, for the release to carry."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from jettison.errors import InvalidInput
from jettison.record import Record
from jettison.release.profile import Profile, token_counts

N_CONFIDENCE_BINS = 20
N_QUANTILES = 21


def reference_profile(records: Sequence[Record], inputs: Sequence[str]) -> Profile:
    """Make the reference profile of one candidate.

    Args:
        records: Of one candidate on one split, which must not be the test split.
        inputs: What was asked, in the records' order.

    Raises:
        InvalidInput: There are no records, or not as many inputs, or they are of the test split.
    """
    if not records or len(records) != len(inputs):
        raise InvalidInput(
            "a reference profile must be made of at least one record and as many inputs, "
            f"got {len(records)} records and {len(inputs)} inputs."
        )
    splits = sorted({record.split for record in records})
    if len(splits) > 1 or splits == ["test"]:
        raise InvalidInput(f"a reference profile must be of one split other than test, got {splits}.")
    answered = [record for record in records if record.error is None]
    flags = [record.flagged for record in answered if record.flagged is not None]
    arms = [record.escalated for record in answered if record.arm is not None]
    sure = [record.confidence for record in answered if record.confidence is not None]
    tokens = token_counts(inputs)
    return Profile(
        split=splits[0],
        n_inputs=len(inputs),
        n_errors=len(records) - len(answered),
        label_counts=dict(sorted(Counter(r.output for r in answered if r.output is not None).items())),
        confidence_counts=tuple(np.histogram(sure, bins=N_CONFIDENCE_BINS, range=(0, 1))[0].tolist()),
        length_quantiles=_quantiles([len(text) for text in inputs]) or (),
        token_counts=tokens,
        n_tokens=sum(tokens),
        in_scope_quantiles=_quantiles([r.in_scope for r in answered if r.in_scope is not None]),
        flagged_share=sum(flags) / len(flags) if flags else None,
        escalated_share=sum(arms) / len(arms) if arms else None,
    )


def _quantiles(values: Sequence[float]) -> tuple[float, ...] | None:
    if not values:
        return None
    return tuple(np.quantile(np.asarray(values, float), np.linspace(0, 1, N_QUANTILES)).tolist())
