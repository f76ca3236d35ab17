"""One look at a window of the log: has what is asked, or answered, moved since the release was proved?

Alpha is shared out over all tests (Holm). What a window keeps is in `drift_window.py`.
"""

from collections import Counter
from collections.abc import Iterable

import msgspec
import numpy as np

from jettison.errors import InvalidInput, NotEnoughData
from jettison.monitor.drift_window import Window
from jettison.release.describe import describe_texts, languages_of
from jettison.release.profile import Profile
from jettison.release.sketch import EMBEDDING, FEATURES, Sketch, TextScorer, bin_of
from jettison.stats.multiplicity import holm
from jettison.stats.two_samples import classifier_differs, counts_differ, means_differ

FEWEST = 30
LEAST_MOVED = 0.05
"""Of a distribution: what moved less is shown, and is no drift, however surely it moved."""


class DriftTest(msgspec.Struct, frozen=True, kw_only=True):
    """One thing looked at."""

    name: str
    """A score or category; `words` (MMD) and `classifier` look at all of the inputs together."""
    slice: str
    """`all`, or `name=value`."""
    side: str
    """`input` or `answer`."""
    n: int
    p_value: float
    p_adjusted: float
    """After Holm over all tests of the look."""
    moved: float | None
    """Share of the distribution that moved (total variation), in 0-1; of the classifier how much
    better than chance it tells the two apart."""
    has_drifted: bool
    reason: str


class DriftReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one look found."""

    verdict: str
    """`DRIFT`, `NONE` (nothing found) or `NOT ENOUGH DATA`."""
    reason: str
    alpha: float
    n_records: int
    n_texts: int
    """Texts that were looked at."""
    tests: tuple[DriftTest, ...]
    """The surest first."""
    changed: tuple[tuple[str, float], ...]
    """What the classifier tells live from reference by, largest part first; empty without drift."""
    not_looked_at: tuple[str, ...]
    """What the log or the profile has not, and why."""


def sketch_of(profile: Profile) -> Sketch:
    """The sketch of a profile.

    Raises:
        InvalidInput: The release was written before there was one.
    """
    if profile.sketch is None:
        raise InvalidInput(
            "the release's profile must hold a sketch for drift, got one of an earlier version. "
            "Run `jettison run` again: the release that it writes has one."
        )
    return profile.sketch


def judge_drift(window: Window, *, alpha: float = 0.01) -> DriftReport:
    """Compare a window with the reference.

    Args:
        window: What came.
        alpha: Probability of any false finding at this look.

    Raises:
        InvalidInput: Alpha is not in (0, 1).
    """
    if not 0 < alpha < 1:
        raise InvalidInput(f"alpha must be in (0, 1), got {alpha}.")
    missing: list[str] = []
    tests = [*_answer_tests(window, missing), *_category_tests(window, missing)]
    inputs, changed = _input_tests(window, missing)
    tests += inputs
    adjusted = holm([test.p_value for test in tests]).tolist() if tests else []
    judged = [_judged(test, float(p), alpha) for test, p in zip(tests, adjusted, strict=True)]
    judged.sort(key=lambda test: (not test.has_drifted, test.p_value, test.name))
    drifted = [test for test in judged if test.has_drifted]
    if not judged:
        verdict, reason = "NOT ENOUGH DATA", f"{window.n_records} records; nothing can be compared yet."
    elif drifted:
        names = ", ".join(_named(test) for test in drifted[:4])
        more = f" and {len(drifted) - 4} more" if len(drifted) > 4 else ""
        verdict, reason = "DRIFT", f"{names}{more} moved; the surest: {drifted[0].reason}"
    else:
        verdict, reason = "NONE", f"nothing of {len(judged)} tests moved, at alpha {alpha:g} over all."
    return DriftReport(
        verdict=verdict,
        reason=reason,
        alpha=alpha,
        n_records=window.n_records,
        n_texts=len(window.texts),
        tests=tuple(judged),
        changed=changed if any(test.side == "input" for test in drifted) else (),
        not_looked_at=tuple(missing),
    )


def _named(test: DriftTest) -> str:
    return test.name if test.slice == "all" else f"{test.name} on {test.slice}"


def _judged(test: DriftTest, p: float, alpha: float) -> DriftTest:
    is_large = test.moved is None or test.moved >= LEAST_MOVED
    return msgspec.structs.replace(test, p_adjusted=p, has_drifted=p <= alpha and is_large)


def _test(
    name: str, n: int, p: float, moved: float | None, reason: str, *, side: str, of: str = "all"
) -> DriftTest:
    return DriftTest(
        name=name,
        slice=of,
        side=side,
        n=n,
        p_value=p,
        p_adjusted=1.0,
        moved=moved,
        has_drifted=False,
        reason=reason,
    )


def _answer_tests(window: Window, missing: list[str]) -> Iterable[DriftTest]:
    references = {("all", name): counts for name, counts in window.sketch.scores.items()}
    for one, scores in window.sketch.slices.items():
        references.update({(one, name): counts for name, counts in scores.items()})
    for (where, name), reference in references.items():
        if name not in ("confidence", "in_scope", "tokens"):
            continue
        counts = window.scores.get((where, name))
        if counts is None or counts.sum() < FEWEST:
            if where == "all":
                missing.append(f"{name}: fewer than {FEWEST} answers of this release bring it")
            continue
        yield _counts_test(name, np.asarray(reference), counts, side="answer", of=where)


def _counts_test(
    name: str,
    reference: np.ndarray,
    counts: np.ndarray,
    *,
    side: str,
    of: str = "all",
    is_ordered: bool = True,
) -> DriftTest:
    found = counts_differ(reference, counts, is_ordered=is_ordered)
    reason = f"{name}: {found.distance:.1%} moved (PSI {found.psi:.2f}, p = {found.p_value:.2g})"
    return _test(name, int(counts.sum()), found.p_value, found.distance, reason, side=side, of=of)


def _category_tests(window: Window, missing: list[str]) -> Iterable[DriftTest]:
    for name, reference in window.sketch.categories.items():
        if name in ("script", "language"):
            continue
        live = window.category(name)
        if live.total() < FEWEST:
            missing.append(f"{name}: fewer than {FEWEST} answers of this release bring it")
            continue
        yield _category_test(name, reference, live, side="answer")


def _category_test(name: str, reference: dict[str, int], live: Counter[str], *, side: str) -> DriftTest:
    values = sorted(set(reference) | set(live))
    before = np.array([reference.get(value, 0) for value in values])
    now = np.array([live.get(value, 0) for value in values])
    test = _counts_test(name, before, now, side=side, is_ordered=False)
    moves = now / now.sum() - before / before.sum()
    most = int(np.abs(moves).argmax())
    was, is_now = before[most] / before.sum(), now[most] / now.sum()
    said = f"{name}: {values[most]} went from {was:.1%} to {is_now:.1%} (p = {test.p_value:.2g})"
    return msgspec.structs.replace(test, reason=said)


def _input_tests(
    window: Window, missing: list[str]
) -> tuple[list[DriftTest], tuple[tuple[str, float], ...]]:
    sketch, n = window.sketch, len(window.texts)
    if n < FEWEST or sketch.features is None:
        missing.append(f"inputs: fewer than {FEWEST} texts are in the log (its setting may keep none)")
        return [], ()
    described = describe_texts(window.texts, TextScorer(sketch.word_counts, sketch.gram_counts))
    tests = [
        _counts_test(
            name,
            np.asarray(sketch.scores[name]),
            np.bincount(bin_of(name, values), minlength=len(sketch.scores[name])),
            side="input",
        )
        for name, values in described.scores.items()
    ]
    tests.append(
        _category_test("script", sketch.categories["script"], Counter(described.scripts), side="input")
    )
    languages = languages_of(window.texts[:1000]) if "language" in sketch.categories else None
    if languages is not None:
        tests.append(
            _category_test("language", sketch.categories["language"], Counter(languages), side="input")
        )
    else:
        missing.append("language: needs the extra `language`, here and where the release was made")
    return _together(window, described.features, tests, missing)


def _together(
    window: Window, features: np.ndarray, tests: list[DriftTest], missing: list[str]
) -> tuple[list[DriftTest], tuple[tuple[str, float], ...]]:
    """The two tests that look at all features at once."""
    reference = window.sketch.features
    assert reference is not None
    mean, covariance, n = reference.mean_array, reference.covariance_array, len(features)
    try:
        apart = means_differ(
            mean[:EMBEDDING], covariance[:EMBEDDING, :EMBEDDING], reference.n, other=features[:, :EMBEDDING]
        )
        told = classifier_differs(mean, covariance, reference.n, other=features)
    except NotEnoughData as error:
        missing.append(f"words and classifier: {error}")
        return tests, ()
    said = f"words: squared MMD {apart.statistic:.4f} (p = {apart.p_value:.2g})"
    tests.append(_test("words", n, apart.p_value, None, said, side="input"))
    parts: dict[str, float] = {}
    for name, part in zip(FEATURES, told.contributions, strict=True):
        group = "words" if name.startswith("words ") else name
        parts[group] = parts.get(group, 0.0) + float(part)
    ranked = tuple(sorted(parts.items(), key=lambda item: -item[1]))
    said = (
        f"classifier: tells live from reference with AUC {told.auc:.2f} (p = {told.p_value:.2g}), "
        f"most by {ranked[0][0]}"
    )
    tests.append(_test("classifier", n, told.p_value, max(0.0, 2 * told.auc - 1), said, side="input"))
    return tests, ranked
