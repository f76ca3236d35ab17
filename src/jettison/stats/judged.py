"""Intervals of a true mean or difference when the scores come from a judge that errs.

Where people have labelled answers of any kind on which the judge errs as often as here, take
`corrected_share` and `corrected_difference`. Where they have labelled some of the very answers that are
judged, drawn at random, take `prediction_powered_mean`, of scores or of paired differences: it assumes
nothing of the judge, and a bad one only widens the interval.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from jettison.errors import InvalidInput, NotEnoughData
from jettison.stats.binomial import clopper_pearson
from jettison.stats.clustered import group_sums
from jettison.stats.group_jackknife import group_t, jackknife_variance
from jettison.stats.interval import Interval, MarginTest
from jettison.stats.noninferiority import margin_test

GAIN_ALPHA = 0.1
"""Share of alpha that is spent on not knowing exactly how a judge errs."""
LEAST_LABELLED = 30
"""Fewer labelled answers cannot carry a prediction-powered interval: it leans on the normal law."""


@dataclass(frozen=True, kw_only=True)
class JudgeCounts:
    """A judge's verdicts on answers of which people have said whether they are right."""

    n_right: int
    """Answers that are right."""
    n_right_passed: int
    """Of these, how many the judge passed."""
    n_wrong: int
    n_wrong_failed: int
    """Of the wrong ones, how many the judge failed."""

    @property
    def sensitivity(self) -> float:
        """Share of right answers that the judge passes."""
        return self.n_right_passed / self.n_right

    @property
    def specificity(self) -> float:
        """Share of wrong answers that the judge fails."""
        return self.n_wrong_failed / self.n_wrong


def corrected_share(n_passed: int, n: int, counts: JudgeCounts, *, confidence: float = 0.95) -> Interval:
    """Share of answers that are truly right, from how many the judge passed and how it errs.

    The value is Rogan & Gladen's; the interval is wider than that of a share by what is not known of
    the judge.

    Raises:
        InvalidInput: Counts that cannot be.
        NotEnoughData: No labelled right or wrong answer, or a judge that may be no better than chance.

    Source:
        Rogan & Gladen 1978, Am. J. Epidemiol. 107:71; interval of Lang & Reiczigel 2014,
        Prev. Vet. Med. 113:13, with its small-sample adjustments.
    """
    _check_judge(counts, confidence)
    if n < 1:
        raise NotEnoughData(f"a share needs at least 1 judged answer, got {n}.")
    if not 0 <= n_passed <= n:
        raise InvalidInput(f"answers passed must be a count from 0 to n = {n}, got {n_passed}.")
    z = float(stats.norm.isf((1 - confidence) / 2))
    sens, var_sens, spec, var_spec = _adjusted(counts)
    size = n + z**2
    passed = (n_passed + z**2 / 2) / size
    gain = sens + spec - 1
    center = (passed + spec - 1) / gain
    shift = 2 * z**2 * (center * var_sens - (1 - center) * var_spec)
    variance = passed * (1 - passed) / size + center**2 * var_sens + (1 - center) ** 2 * var_spec
    half = z * np.sqrt(variance) / gain
    value = (n_passed / n + counts.specificity - 1) / (counts.sensitivity + counts.specificity - 1)
    value = float(np.clip(value, 0.0, 1.0))
    return Interval(
        value=value,
        low=float(np.clip(min(center + shift - half, value), 0.0, 1.0)),
        high=float(np.clip(max(center + shift + half, value), 0.0, 1.0)),
        confidence=confidence,
        method="Rogan-Gladen, Lang-Reiczigel",
    )


def corrected_difference(
    candidate: ArrayLike,
    baseline: ArrayLike,
    counts: JudgeCounts,
    *,
    groups: ArrayLike | None = None,
    confidence: float = 0.95,
) -> Interval:
    """True difference of right answers between two models that one judge passed or failed.

    A judge that errs sees too small a difference: it is divided by sensitivity + specificity - 1, and
    what is not known of that divisor is carried into the interval. Assumes that the judge errs alike on
    both models' answers; where it favours one, use `prediction_powered_mean` of the differences.

    Args:
        candidate: Verdicts, 0 or 1, shape (n_examples,).
        baseline: Verdicts on the same examples in the same order.
        counts: How the judge errs.
        groups: Group of each example when some depend on each other.
        confidence: Coverage wanted, in (0, 1).

    Raises:
        InvalidInput: Verdicts other than 0 and 1, or shapes that differ.
        NotEnoughData: Fewer than two groups, or a judge that may be no better than chance.

    Source:
        Fieller 1954, JRSS B 16:175: the set of differences that a test does not reject.
    """
    _check_judge(counts, confidence)
    a, b = np.asarray(candidate, float), np.asarray(baseline, float)
    if not (np.isin(a, (0.0, 1.0)).all() and np.isin(b, (0.0, 1.0)).all()):
        raise InvalidInput("verdicts must be 0 or 1. Of graded scores take prediction_powered_mean.")
    by_group = group_sums(a, b, groups=groups)
    residuals = by_group.sums - by_group.mean * by_group.weights
    # One more pair changed each way keeps the error above zero where nothing changed (Agresti & Min 2005).
    floor = 2.0 / (by_group.n + 2) ** 2
    seen, variance = by_group.mean, max(jackknife_variance(residuals, by_group.weights), floor)
    sens, var_sens, spec, var_spec = _adjusted(counts)
    gain, var_gain = sens + spec - 1, var_sens + var_spec
    t2 = group_t(by_group.weights, confidence) ** 2
    # (seen - d * gain)^2 <= t^2 (variance + d^2 var_gain), a quadratic in d
    square = gain**2 - t2 * var_gain
    if square <= 0:
        raise NotEnoughData(_chance(counts))
    root = np.sqrt(max((seen * gain) ** 2 - square * (seen**2 - t2 * variance), 0.0))
    value = seen / (counts.sensitivity + counts.specificity - 1)
    return Interval(
        value=float(np.clip(value, -1.0, 1.0)),
        low=float(np.clip((seen * gain - root) / square, -1.0, 1.0)),
        high=float(np.clip((seen * gain + root) / square, -1.0, 1.0)),
        confidence=confidence,
        method="Rogan-Gladen, Fieller",
    )


def judged_margin_test(
    candidate: ArrayLike,
    baseline: ArrayLike,
    counts: JudgeCounts,
    *,
    margin: float,
    alpha: float = 0.025,
    groups: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    seed: int = 0,
) -> MarginTest:
    """Judge a true difference of right answers against a margin, by a judge that errs.

    What the judge sees is the true difference times its gain, sensitivity + specificity - 1. A tenth of
    alpha goes to the gain's exact bound on the side that makes the claim harder, the rest to the test of
    what was seen against the margin times that bound: their errors add up to alpha. Assumes that the judge
    errs alike on both models' answers.

    Args:
        candidate: Verdicts, 0 or 1, shape (n_examples,).
        baseline: Verdicts on the same examples in the same order.
        counts: How the judge errs.
        margin: Loss of truly right answers that still counts as not worse.
        alpha: One-sided error probability; the interval has confidence 1 - 2 alpha.
        groups: Group of each example when some depend on each other.
        weights: Positive weight of each example.
        seed: For the draws of the sign-flip test.

    Raises:
        InvalidInput: Verdicts other than 0 and 1, or as `margin_test`.
        NotEnoughData: As `margin_test`, or the judge may be no better than chance.

    Source:
        Rogan & Gladen 1978 for the gain, Clopper & Pearson 1934 for its bounds, Bonferroni.
    """
    a, b = np.asarray(candidate, float), np.asarray(baseline, float)
    if not (np.isin(a, (0.0, 1.0)).all() and np.isin(b, (0.0, 1.0)).all()):
        raise InvalidInput("verdicts must be 0 or 1.")
    for_gain = alpha * GAIN_ALPHA
    gain = gain_interval(counts, confidence=1 - 2 * for_gain)
    hard, easy = (
        margin_test(
            a, b, margin=margin * g, alpha=alpha - for_gain, groups=groups, weights=weights, seed=seed
        )
        for g in (gain.low, gain.high)
    )
    seen = hard.interval
    low = max(-1.0, seen.low / (gain.low if seen.low < 0 else gain.high))
    high = min(1.0, seen.high / (gain.low if seen.high > 0 else gain.high))
    return MarginTest(
        interval=Interval(
            value=float(np.clip(seen.value / gain.value, low, high)),
            low=low,
            high=high,
            confidence=1 - 2 * alpha,
            method=f"{seen.method}, over the scorer's gain",
        ),
        p_not_worse=min(1.0, hard.p_not_worse + for_gain),
        p_worse=min(1.0, easy.p_worse + for_gain),
        n=hard.n,
        n_groups=hard.n_groups,
        method=f"{hard.method}; the scorer's own error carried over",
    )


def gain_interval(counts: JudgeCounts, *, confidence: float = 0.95) -> Interval:
    """Sensitivity + specificity - 1 (Youden's index): how much of a true difference a judge sees.

    Raises:
        InvalidInput: Counts that cannot be.
        NotEnoughData: No labelled right or wrong answer, or a judge that may be no better than chance.
    """
    _check_judge(counts, confidence)
    # Each of the two shares takes half of the error of either side.
    each = 1 - (1 - confidence) / 2
    sens = clopper_pearson(counts.n_right_passed, counts.n_right, confidence=each)
    spec = clopper_pearson(counts.n_wrong_failed, counts.n_wrong, confidence=each)
    low = sens.low + spec.low - 1
    if low <= 0:
        raise NotEnoughData(_chance(counts))
    return Interval(
        value=counts.sensitivity + counts.specificity - 1,
        low=low,
        high=sens.high + spec.high - 1,
        confidence=confidence,
        method="Clopper-Pearson of both, Bonferroni",
    )


def prediction_powered_mean(
    labels: ArrayLike,
    judged_of_labelled: ArrayLike,
    judged_of_rest: ArrayLike,
    *,
    confidence: float = 0.95,
    tuned: bool = True,
    guarded: bool = True,
) -> Interval:
    """True mean from a judge's scores of many answers and people's labels of some drawn at random.

    Scores may be graded, and may be paired differences of two models.

    Args:
        labels: What people say, shape (n_labelled,).
        judged_of_labelled: What the judge says of the same answers, same order.
        judged_of_rest: What the judge says of the answers that nobody labelled, shape (n_rest,).
        confidence: Coverage wanted, in (0, 1).
        tuned: Lean on the judge only as far as it is worth it (PPI++); else wholly (PPI).
        guarded: Widen by a few invented labels at the ends of the scale (Agresti & Coull 1998) and ask
            for `LEAST_LABELLED`; else the plain published interval, which covers 85 % instead of 95 % at
            30 labels of which 90 % are alike.

    Raises:
        InvalidInput: Shapes differ, or a value is not finite or outside [-1, 1].
        NotEnoughData: Too few labels, or no other answer judged.

    Source:
        Angelopoulos et al. 2023, Science 382:669; Angelopoulos, Duchi & Zrnic 2023, arXiv 2311.01453.
    """
    y, f, rest = (np.asarray(x, float) for x in (labels, judged_of_labelled, judged_of_rest))
    if y.shape != f.shape or y.ndim != 1 or rest.ndim != 1:
        raise InvalidInput(
            "labels and the judge's scores of the same answers must share one shape (n_labelled,), "
            f"got {y.shape} and {f.shape}."
        )
    if not all((np.abs(x) <= 1).all() for x in (y, f, rest)):
        raise InvalidInput("labels and scores must be finite numbers in [-1, 1].")
    n, n_rest, least = len(y), len(rest), LEAST_LABELLED if guarded else 2
    if n < least or n_rest < 2:
        raise NotEnoughData(
            f"a prediction-powered interval needs at least {least} labelled answers and 2 others, "
            f"got {n} and {n_rest}."
        )
    lean = _lean(y, f, rest) if tuned else 1.0
    left = y - lean * f
    value = float(lean * rest.mean() + left.mean())
    if guarded:
        signed = min(x.min() for x in (y, f, rest)) < 0
        left = np.append(left, (-1.0, 1.0) if signed else (-lean, -lean, 1.0, 1.0))
    center = float(lean * rest.mean() + left.mean())
    variance = lean**2 * rest.var() / n_rest + left.var() / len(left)
    half = float(stats.norm.isf((1 - confidence) / 2) * np.sqrt(variance))
    return Interval(
        value=value,
        low=min(center - half, value),
        high=max(center + half, value),
        confidence=confidence,
        method="prediction-powered (PPI++)" if tuned else "prediction-powered (PPI)",
    )


def _lean(y: np.ndarray, f: np.ndarray, rest: np.ndarray) -> float:
    """How much of the judge to take, in 0-1, for the least variance."""
    spread = float(np.concatenate([f, rest]).var(ddof=1))
    if spread == 0:
        return 0.0
    together = float(((y - y.mean()) * (f - f.mean())).mean())
    return float(np.clip(together / ((1 + len(y) / len(rest)) * spread), 0.0, 1.0))


def _adjusted(counts: JudgeCounts) -> tuple[float, float, float, float]:
    """Sensitivity, its variance, specificity, its variance, each with one more hit and one more miss."""
    sens = (counts.n_right_passed + 1) / (counts.n_right + 2)
    spec = (counts.n_wrong_failed + 1) / (counts.n_wrong + 2)
    return (
        sens,
        sens * (1 - sens) / (counts.n_right + 2),
        spec,
        spec * (1 - spec) / (counts.n_wrong + 2),
    )


def _check_judge(counts: JudgeCounts, confidence: float) -> None:
    if not 0 < confidence < 1:
        raise InvalidInput(f"confidence must be in (0, 1), got {confidence}.")
    for hits, n in ((counts.n_right_passed, counts.n_right), (counts.n_wrong_failed, counts.n_wrong)):
        if not 0 <= hits <= n:
            raise InvalidInput(f"a judge's verdicts must be counts from 0 to n = {n}, got {hits}.")
    if not (counts.n_right and counts.n_wrong):
        raise NotEnoughData(
            "a judge is measured on right and wrong answers, got "
            f"{counts.n_right} right and {counts.n_wrong} wrong."
        )
    sens, var_sens, spec, var_spec = _adjusted(counts)
    z = float(stats.norm.isf((1 - confidence) / 2))
    # The adjustment draws to one half; a judge that is right by the plain counts alone is not enough.
    plain = counts.sensitivity + counts.specificity - 1
    if plain <= 0 or sens + spec - 1 <= z * np.sqrt(var_sens + var_spec):
        raise NotEnoughData(_chance(counts))


def _chance(counts: JudgeCounts) -> str:
    passed = f"{counts.n_right_passed} of {counts.n_right} right answers"
    failed = f"{counts.n_wrong_failed} of {counts.n_wrong} wrong ones"
    return (
        f"the judge may be no better than chance: it passes {passed} and fails {failed}. "
        "Label more answers, or take another judge."
    )
