"""What suites and confidences showed, as the report keeps it: curves, tiers, found slices, attacks."""

import msgspec

from jettison.decision import Flips, Interval


class BinOfAnswers(msgspec.Struct, frozen=True, kw_only=True):
    """Answers of like confidence, and how many of them were right."""

    confidence: float
    """Mean, in 0-1."""
    right_share: float
    low: float
    high: float
    n: int


class KeptAnswers(msgspec.Struct, frozen=True, kw_only=True):
    """The surest answers up to some share, and how many of them are wrong."""

    coverage: float
    risk: float
    low: float
    high: float


class ConfidenceCheck(msgspec.Struct, frozen=True, kw_only=True):
    """What one split's answers say of the confidences they came with."""

    split: str
    """`test`, or `dev`: there the half that confidences were not fitted on."""
    n: int
    ece: Interval
    """Debiased, in 0-1."""
    gap: Interval
    """Mean confidence minus share of right answers: above 0 is too sure."""
    p_value: float
    """Chance of an error or a mean gap at least as large if every confidence were true."""
    near: BinOfAnswers | None = None
    """Answers of a confidence of 0.85 to 0.95; None where there are fewer than ten."""


class ConfidenceCurves(msgspec.Struct, frozen=True, kw_only=True):
    """How far one candidate's confidences can be trusted, on test examples that users wrote."""

    candidate: str
    on: str
    """Slice that the answers are of."""
    n: int
    reliability: tuple[BinOfAnswers, ...]
    """Least sure first."""
    risk_coverage: tuple[KeptAnswers, ...]
    """Growing coverage."""
    ece: float
    """Debiased, in 0-1."""
    brier: float
    brier_difference: Interval | None = None
    """Candidate minus incumbent, paired; above 0 is worse. None of the incumbent itself."""
    test: ConfidenceCheck | None = None
    """Where answers are right or wrong; None in reports of before 2026-11-27."""
    dev: ConfidenceCheck | None = None
    """On the half of dev that was not fitted on; None where it holds too few answers."""
    ece_difference: Interval | None = None
    """Candidate minus incumbent on test, paired. None of the incumbent itself."""
    gap_difference: Interval | None = None
    """Candidate's gap minus the incumbent's on test, paired."""
    refuted: bool = False
    """Whether test refutes the calibration, at 5 % for all candidates together (Holm)."""


class SuiteComparison(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate beside the incumbent on one slice of the suites; shown, not a gate."""

    candidate: str
    slice: str
    """`column=value`."""
    scorer: str
    n: int
    incumbent: float | None = None
    score: float | None = None
    difference: Interval | None = None
    """Candidate minus incumbent, paired."""
    flips: Flips | None = None


class LostExample(msgspec.Struct, frozen=True, kw_only=True):
    """A text that was answered rightly and no longer is."""

    text: str
    expected: str | None
    answer: str | None
    """What the candidate says; None when the call failed."""
    before: str | None = None
    """The text before an attack changed it."""


class WorstSlice(msgspec.Struct, frozen=True, kw_only=True):
    """A subgroup not declared where a candidate loses more than elsewhere, confirmed on a second half."""

    candidate: str
    name: str
    n: int
    """Examples of the second half."""
    loss: float
    """Mean loss there, in score units: incumbent minus candidate."""
    low: float
    high: float
    rest_loss: float
    """Mean loss of all others in the second half."""
    p_value: float
    """Adjusted for all subgroups tested."""
    examples: tuple[LostExample, ...] = ()


class SliceSearch(msgspec.Struct, frozen=True, kw_only=True):
    """How one candidate's subgroups were searched, whatever it came to."""

    candidate: str
    n_searched: int
    n_tested: int
    n_validate: int
    alpha: float
    found: tuple[WorstSlice, ...] = ()
    """Largest loss first."""


class AttackOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate under a search for small changes that turn its right answers wrong."""

    candidate: str
    n: int
    """Examples attacked."""
    n_right: int
    """Of them, answered rightly before."""
    success: Interval | None
    """Share of the right answers that were turned wrong; None where none was right."""
    mean_queries: float
    budget: int
    robust_difference: Interval | None = None
    """Right answers that stand, candidate minus incumbent, each under its own attack."""
    examples: tuple[LostExample, ...] = ()


class SuiteEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. Empty parts were not looked at."""

    curves: tuple[ConfidenceCurves, ...] = ()
    comparisons: tuple[SuiteComparison, ...] = ()
    searches: tuple[SliceSearch, ...] = ()
    attacks: tuple[AttackOutcome, ...] = ()
    tiers: dict[str, int] = msgspec.field(default_factory=dict)
    """Tier → test examples; empty where no suites were built."""
    not_built: tuple[str, ...] = ()
    """What the suites left out, and why."""
