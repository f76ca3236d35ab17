"""What a look at drift asks of the inputs: each score by itself, all words together, and a classifier."""

from collections import Counter

import msgspec
import numpy as np

from jettison.errors import NotEnoughData
from jettison.monitor.drift_changes import Change, changes_of, ranking_words
from jettison.monitor.drift_comparison import FEWEST, DriftTest, category_test, counts_test, drift_test
from jettison.monitor.drift_window import Window
from jettison.release.describe import describe_texts, languages_of
from jettison.release.sketch import EMBEDDING, TextScorer, bin_of
from jettison.stats.two_samples import means_differ

MOST_LANGUAGE_TEXTS = 1000


def input_tests(window: Window, missing: list[str]) -> list[DriftTest]:
    """Tests of the texts of a window; what cannot be tested is said in `missing`."""
    sketch, n = window.sketch, len(window.texts)
    if n < FEWEST or sketch.features is None:
        missing.append(f"inputs: fewer than {FEWEST} texts are in the log (its setting may keep none)")
        return []
    described = describe_texts(window.texts, TextScorer(sketch.word_counts, sketch.gram_counts))
    tests = [
        counts_test(
            name,
            np.asarray(sketch.scores[name]),
            np.bincount(bin_of(name, values), minlength=len(sketch.scores[name])),
            side="input",
        )
        for name, values in described.scores.items()
    ]
    tests.append(
        category_test("script", sketch.categories["script"], Counter(described.scripts), side="input")
    )
    known = sketch.categories.get("language")
    languages = None if known is None else languages_of(window.texts[:MOST_LANGUAGE_TEXTS])
    if known is not None and languages is not None:
        tests.append(category_test("language", known, Counter(languages), side="input"))
    else:
        missing.append("language: needs the extra `language`, here and where the release was made")
    return [
        *tests,
        *_words_test(window, described.features, missing),
        *_changes(window, described.features, missing),
    ]


def _words_test(window: Window, features: np.ndarray, missing: list[str]) -> list[DriftTest]:
    """All words together, by maximum mean discrepancy."""
    reference = window.sketch.features
    assert reference is not None
    mean, covariance = reference.mean_array, reference.covariance_array
    try:
        apart = means_differ(
            mean[:EMBEDDING], covariance[:EMBEDDING, :EMBEDDING], reference.n, other=features[:, :EMBEDDING]
        )
    except NotEnoughData as error:
        missing.append(f"words: {error}")
        return []
    said = f"words: squared MMD {apart.statistic:.4f} (p = {apart.p_value:.2g})"
    return [drift_test("words", len(features), apart.p_value, apart.moved, said, side="input")]


def _changes(window: Window, features: np.ndarray, missing: list[str]) -> list[DriftTest]:
    """All that is known of the texts together, by a classifier: on all, and on each slice."""
    members = {name: window.places_in(name) for name in window.sketch.slice_features}
    changes = changes_of(window.sketch, features, members)
    if not changes:
        missing.append("classifier: needs 60 texts, and 30 in the reference")
    thin = [name for name in members if name not in {one.slice for one in changes}]
    if changes and thin:
        missing.append(f"classifier on {', '.join(thin)}: fewer than 60 texts")
    return [_classifier_test(one) for one in changes]


def _classifier_test(one: Change) -> DriftTest:
    said = (
        f"classifier: tells live from reference with AUC {one.auc:.2f} (p = {one.p_value:.2g}), "
        f"by {ranking_words(one.changed)}"
    )
    moved = max(0.0, 2 * one.auc - 1)
    test = drift_test("classifier", one.n, one.p_value, moved, said, side="input", of=one.slice)
    return msgspec.structs.replace(test, changed=one.changed)
