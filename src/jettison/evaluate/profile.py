"""Summarises reference inputs and the answers to them, for the release to carry."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from jettison.errors import InvalidInput
from jettison.record import Record
from jettison.release.describe import (
    MOST_LABELS,
    MOST_LANGUAGE_TEXTS,
    answer_categories,
    answer_scores,
    describe_texts,
    languages_of,
)
from jettison.release.profile import Profile, token_counts
from jettison.release.sketch import (
    N_GRAM_BUCKETS,
    N_WORD_BUCKETS,
    Sketch,
    SliceMean,
    TextScorer,
    binned,
    count_table,
    hashed_grams,
    hashed_words,
    moments_of,
)

N_CONFIDENCE_BINS = 20
N_QUANTILES = 21
FEWEST_BACKGROUND = 200
"""With fewer background texts, half of the inputs are taken for it."""
MOST_SLICES, FEWEST_IN_SLICE, FEWEST_TEXTS = 20, 100, 30


def reference_profile(
    records: Sequence[Record], inputs: Sequence[str], *, background: Sequence[str] = ()
) -> Profile:
    """Make the reference profile of one candidate.

    Args:
        records: Of one candidate on one split, which must not be the test split.
        inputs: What was asked, in the records' order.
        background: Other inputs of the same kind (train), which say what is a common word: live inputs are
            as new to them as the reference is. Without enough, every second input is used for that instead.

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
        sketch=reference_sketch(records, inputs, background=background),
    )


def reference_sketch(
    records: Sequence[Record], inputs: Sequence[str], *, background: Sequence[str] = ()
) -> Sketch:
    """What drift detectors compare with: counts and moments, no text.

    Args:
        records: Of one candidate.
        inputs: What was asked, in the records' order.
        background: As of `reference_profile`.
    """
    places = list(range(len(inputs)))
    if len(background) < FEWEST_BACKGROUND:
        background, places = inputs[::2], places[1::2] if len(inputs) > 1 else places
    tables = (
        count_table([hashed_words(text) for text in background], N_WORD_BUCKETS),
        count_table([hashed_grams(text) for text in background], N_GRAM_BUCKETS),
    )
    texts = [inputs[place] for place in places]
    described = describe_texts(texts, TextScorer(*tables))
    is_text = len({r.output for r in records}) > MOST_LABELS
    categories: dict[str, Counter[str]] = {"script": Counter(described.scripts)}
    languages = languages_of(texts[:MOST_LANGUAGE_TEXTS])
    if languages is not None:
        categories["language"] = Counter(languages)
    for record in records:
        for name, value in answer_categories(record, is_text=is_text).items():
            categories.setdefault(name, Counter())[value] += 1
    slices = _large_slices(records)
    of_texts = {name: binned(name, values) for name, values in described.scores.items()}
    return Sketch(
        n=len(places),
        word_counts=tables[0],
        gram_counts=tables[1],
        scores={**of_texts, **_answer_bins(records)},
        categories={name: dict(sorted(counts.items())) for name, counts in categories.items()},
        slices={name: _answer_bins([records[place] for place in some]) for name, some in slices.items()},
        features=moments_of(described.features),
        slice_features=_slice_means(slices, places, described.features),
    )


def _answer_bins(records: Sequence[Record]) -> dict[str, tuple[int, ...]]:
    values: dict[str, list[float]] = {}
    for record in records:
        for name, value in answer_scores(record).items():
            values.setdefault(name, []).append(value)
    return {name: binned(name, some) for name, some in sorted(values.items())}


def _large_slices(records: Sequence[Record]) -> dict[str, list[int]]:
    """The largest slices as `name=value`, with the places of their records."""
    members: dict[str, list[int]] = {}
    for place, record in enumerate(records):
        for name, value in record.slices.items():
            members.setdefault(f"{name}={value}", []).append(place)
    large = sorted(members, key=lambda name: (-len(members[name]), name))[:MOST_SLICES]
    return {name: members[name] for name in large if len(members[name]) >= FEWEST_IN_SLICE}


def _slice_means(
    slices: dict[str, list[int]], places: Sequence[int], features: np.ndarray
) -> dict[str, SliceMean]:
    """Means of the features of the texts at `places` that are in each slice."""
    row_of = {place: row for row, place in enumerate(places)}
    found = {}
    for name, members in slices.items():
        rows = [row_of[place] for place in members if place in row_of]
        if len(rows) >= FEWEST_TEXTS:
            mean = features[rows].mean(axis=0).astype(np.float32).tobytes()
            found[name] = SliceMean(n=len(rows), mean=mean)
    return found


def _quantiles(values: Sequence[float]) -> tuple[float, ...] | None:
    if not values:
        return None
    return tuple(np.quantile(np.asarray(values, float), np.linspace(0, 1, N_QUANTILES)).tolist())
