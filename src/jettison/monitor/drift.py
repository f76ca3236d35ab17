"""One look at a window of the log: has what is asked, or answered, moved since the release was proved?

Alpha is shared out over all tests (Holm). What a window keeps is in `drift_window.py`, what is asked of the
inputs in `drift_inputs.py`.
"""

from collections.abc import Iterable

import msgspec
import numpy as np

from jettison.errors import InvalidInput
from jettison.monitor.drift_comparison import FEWEST, DriftTest, category_test, counts_test
from jettison.monitor.drift_inputs import input_tests
from jettison.monitor.drift_window import Window
from jettison.release.profile import Profile
from jettison.release.sketch import Sketch
from jettison.stats.multiplicity import holm

LEAST_MOVED = 0.05
"""Of a distribution: what moved less is shown, and is no drift, however surely it moved."""


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
    least_moved: float
    changed: tuple[tuple[str, float], ...]
    """What the classifier tells live from reference by, on all inputs, largest part first; empty without
    drift of inputs. Of each slice its test has it."""
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


def judge_drift(window: Window, *, alpha: float = 0.01, least_moved: float = LEAST_MOVED) -> DriftReport:
    """Compare a window with the reference.

    Args:
        window: What came.
        alpha: Probability of any false finding at this look.
        least_moved: Of a distribution, in 0-1: what moved less is no drift, however surely it moved.

    Raises:
        InvalidInput: Alpha is not in (0, 1), or `least_moved` not in [0, 1).
    """
    if not 0 < alpha < 1:
        raise InvalidInput(f"alpha must be in (0, 1), got {alpha}.")
    if not 0 <= least_moved < 1:
        raise InvalidInput(f"the least that must have moved must be in [0, 1), got {least_moved}.")
    missing: list[str] = []
    inputs = input_tests(window, missing)
    tests = [*_answer_tests(window, missing), *_category_tests(window, missing), *inputs]
    changed = next((one.changed for one in inputs if (one.name, one.slice) == ("classifier", "all")), ())
    adjusted = holm([test.p_value for test in tests]).tolist() if tests else []
    judged = [_judged(test, float(p), alpha, least_moved) for test, p in zip(tests, adjusted, strict=True)]
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
        least_moved=least_moved,
        n_records=window.n_records,
        n_texts=len(window.texts),
        tests=tuple(judged),
        changed=changed if any(test.side == "input" for test in drifted) else (),
        not_looked_at=tuple(missing),
    )


def _named(test: DriftTest) -> str:
    return test.name if test.slice == "all" else f"{test.name} on {test.slice}"


def _judged(test: DriftTest, p: float, alpha: float, least_moved: float) -> DriftTest:
    has_drifted = p <= alpha and test.moved >= least_moved
    return msgspec.structs.replace(test, p_adjusted=p, has_drifted=has_drifted)


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
        yield counts_test(name, np.asarray(reference), counts, side="answer", of=where)


def _category_tests(window: Window, missing: list[str]) -> Iterable[DriftTest]:
    for name, reference in window.sketch.categories.items():
        if name in ("script", "language"):
            continue
        live = window.category(name)
        if live.total() < FEWEST:
            missing.append(f"{name}: fewer than {FEWEST} answers of this release bring it")
            continue
        yield category_test(name, reference, live, side="answer")
