"""What was decided, on what evidence, and why: gates, verdicts and the chosen candidate."""

from enum import StrEnum
from typing import Union

import msgspec

from jettison.errors import InvalidInput

FORMAT = 1
CDF_SHARES = (
    0.0, 0.01, 0.02, 0.05, *(round(0.1 * k, 1) for k in range(1, 9)), 0.85, 0.9, 0.925, 0.95, 0.96,
    0.97, 0.98, 0.985, 0.99, 0.995, 0.999, 1.0,
)  # fmt: skip
"""Shares at which the distribution of latencies is kept."""

CUT_SHORT = "measuring was cut short by the run's budget"
"""How the mark of a measurement begins that there was too little time for."""


class Verdict(StrEnum):
    """What the evidence says; absence of evidence is its own answer."""

    SHIP = "SHIP"
    """The lower bound of the difference is above minus the margin (or the cost below its limit)."""
    BLOCK = "BLOCK"
    """The upper bound is below minus the margin (or the cost above its limit)."""
    NOT_ENOUGH_DATA = "NOT ENOUGH DATA"


class ScorerErrors(msgspec.Struct, frozen=True, kw_only=True):
    """Verdicts of a scorer on answers of which people have said whether they are right."""

    n_right: int
    n_right_passed: int
    """Of the right answers, how many it passed."""
    n_wrong: int
    n_wrong_failed: int
    """Of the wrong ones, how many it failed."""
    source: str
    """Whose answers and labels they are."""


class NotWorse(msgspec.Struct, frozen=True, kw_only=True, tag="not_worse"):
    """The candidate's score may fall below the incumbent's by less than the margin, on every slice."""

    scorer: str = "label"
    margin: float = 0.01
    """In score units: 0.01 is one point of accuracy."""
    slices: tuple[str, ...] = ("all",)
    """`all`, `column=value` or `column=*`; each must hold by itself (intersection-union)."""
    alpha: float = 0.025
    """One-sided error probability."""
    margins: dict[str, float] = msgspec.field(default_factory=dict)
    """Margin of single slices where it differs."""
    is_fallible: bool = False
    """The scorer's verdicts are not the truth: where how it errs is not known, the result says so."""
    scorer_errors: dict[str, ScorerErrors] = msgspec.field(default_factory=dict)
    """Slice, or `*` for any → how the scorer errs there; carried into the interval and the verdict."""


class NotShownWorse(msgspec.Struct, frozen=True, kw_only=True, tag="not_shown_worse"):
    """A loss that the evidence shows blocks, on every slice; one that it does not show passes, unproven.

    For what must not get worse and is told too badly to prove that it does not, such as the toxicity of
    answers to a list of probes. It proves nothing, and stands beside `NotWorse`, never in its place.
    """

    scorer: str
    slices: tuple[str, ...] = ("all",)
    alpha: float = 0.025
    """One-sided probability to block a candidate that loses nothing."""
    is_fallible: bool = False
    """As of `NotWorse`."""
    scorer_errors: dict[str, ScorerErrors] = msgspec.field(default_factory=dict)
    """As of `NotWorse`."""


class AtMost(msgspec.Struct, frozen=True, kw_only=True, tag="at_most"):
    """A cost per task may not exceed a limit."""

    cost: str
    """`cpu_ratio` (CPU time over the incumbent's, the same on a slow machine as on a fast one),
    `latency_p50_s`, `latency_p95_s`, `latency_p99_s`, `cpu_s`, `bytes`, `peak_bytes`, `load_s`, `energy_j`
    or `usd_per_1000`."""
    limit: float


ScoreGate = Union[NotWorse, NotShownWorse]
"""What asks how answers were scored."""
Gate = Union[NotWorse, NotShownWorse, AtMost]


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """An estimate with its confidence interval."""

    value: float
    low: float
    high: float
    confidence: float = 0.95
    method: str = ""


class Flips(msgspec.Struct, frozen=True, kw_only=True):
    """How the candidate's answers changed against the incumbent's, in examples."""

    harmful: int
    """Incumbent right, candidate wrong."""
    beneficial: int
    """Incumbent wrong, candidate right."""
    churn: int
    """Both wrong, differently."""
    both_right: int
    n: int


class GateResult(msgspec.Struct, frozen=True, kw_only=True):
    """One gate on one slice (or one cost)."""

    gate: str
    """`not_worse`, `not_shown_worse` or `at_most`."""
    metric: str
    """Scorer or cost."""
    slice: str | None
    verdict: Verdict
    limit: float
    """Margin (0 where a loss only has to be shown), or the limit of a cost."""
    reason: str
    """One sentence a product manager understands."""
    n: int | None = None
    n_groups: int | None = None
    n_groups_to_show: int | None = None
    """Groups like these in which harm that spoils few of them whole could not hide; None: these do."""
    incumbent: float | None = None
    candidate: float | None = None
    difference: Interval | None = None
    """Candidate minus incumbent."""
    p_value: float | None = None
    """One-sided, of the hypothesis that the loss is the margin or more."""
    alpha: float | None = None
    flips: Flips | None = None
    n_missing: int | None = None
    """With NOT ENOUGH DATA: about how many more examples would settle it, at the flips seen."""
    method: str = ""

    @property
    def is_of_scores(self) -> bool:
        """Whether scores were judged, and not a cost."""
        return self.gate != "at_most"


class PhaseMemory(msgspec.Struct, frozen=True, kw_only=True):
    """Most memory of a process and its children in each phase. None is not measured.

    With children, peaks are the sum of each process's own: an upper bound.
    """

    load_peak_bytes: int | None = None
    """While the runtime was imported and the artifact opened."""
    warm_up_peak_bytes: int | None = None
    """From the first answer until the warm-up was over."""
    steady_peak_bytes: int | None = None
    """While it was measured."""
    steady_pss_bytes: int | None = None
    """At the end, what is shared with other processes divided by those who share it."""
    steady_uss_bytes: int | None = None
    """At the end, its own alone: what ending it would free."""
    n_children: int = 0
    """Processes of its own that lived at the end."""


class ColdStart(msgspec.Struct, frozen=True, kw_only=True):
    """Starts in fresh processes, the artifact's files dropped from the system's cache before each."""

    n_starts: int
    load_s: Interval
    """Both of the next: import of the runtime, whose files stay cached, and opening of the artifact."""
    first_answer_s: Interval
    import_s: Interval | None = None
    """Of every module that is in at the first answer, imported before the artifact is opened."""
    open_s: Interval | None = None
    """Opening of the artifact after that."""
    cached_share: float | None = None
    """The most of the artifact that was in memory before a start, in 0-1: above 0, that one was not all
    cold. None: the system does not tell."""


class MovedBytes(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that one task moves, MODELLED and not measured. None is not modelled."""

    weight_bytes: float
    kv_bytes: float | None
    """Keys and values, of models that write; None where the model's own sizes are not told."""
    factor: float
    """The truth may be that much more or less."""
    source: str
    """What the model counts, and what it leaves out."""


class CostSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Cost per task of one candidate, one at a time, in a run on dev inputs. None is not measured."""

    cpu_s: Interval | None = None
    """CPU-seconds per task, batch of one."""
    cpu_ratio: Interval | None = None
    """CPU-seconds over the incumbent's, from interleaved blocks; under 1 is cheaper."""
    usd_ratio: Interval | None = None
    """Money per task over the incumbent's, where that runs elsewhere and both prices are known."""
    latency_ratio: Interval | None = None
    """Median latency over the incumbent's, where that runs elsewhere: its CPU time is not to be seen."""
    latency_p50_s: float | None = None
    latency_p95_s: float | None = None
    latency_p99_s: float | None = None
    latency_quantiles_s: tuple[float | None, ...] = ()
    """At `CDF_SHARES`: service times, one at a time, no queue."""
    throughput_per_s: float | None = None
    """Tasks per second in the candidate's best batches."""
    peak_bytes: int | None = None
    """The most of all phases."""
    memory: PhaseMemory | None = None
    load_s: float | None = None
    """Import of the runtime and opening of the artifact, in a fresh process."""
    first_answer_s: float | None = None
    """The first answer after opening, which pays for what is set up late."""
    cold: ColdStart | None = None
    bytes: int | None = None
    """Of the artifact on disk."""
    compressed_bytes: int | None = None
    """Of the artifact's files through zstd, level 3."""
    energy_j: float | None = None
    """Per task; `energy_tier` says how it is known and `energy_factor` by how much it may be wrong."""
    energy_tier: str | None = None
    energy_factor: float | None = None
    energy_source: str | None = None
    """The counter, or the coefficients of the estimate with their date."""
    energy_boundary: str | None = None
    """What is inside the figure: chip, board, server or facility."""
    co2e_g: float | None = None
    """Grams of CO2-equivalent per task, of `energy_j`; None without the user's grid factor."""
    co2e_source: str | None = None
    usd_per_1000: float | None = None
    """Of a machine kept busy in its best batches."""
    own_rate_per_s: float | None = None
    """Arrivals a second that the user has."""
    own_machines: int | None = msgspec.field(default=None, name="n_machines_at_own_rate")
    """Machines that these keep, none over what one can do in its best batches."""
    own_rate_usd_per_1000: float | None = None
    """Idle time paid."""
    own_rate_energy_j: float | None = None
    """Per task, ESTIMATED as `energy_j` is, with the share of the time in between; None where energy is
    measured: what a meter would read at that rate is not known."""
    moved: MovedBytes | None = None
    correct_share: Interval | None = None
    """Of answers judged on dev examples."""
    per_correct: dict[str, Interval] = {}
    """Cost → what one correct answer takes of it."""
    prompt_tokens: float | None = None
    completion_tokens: float | None = None
    """Mean per task, as the backend counts them."""
    intervals: dict[str, Interval] = {}
    """Cost → what its samples leave open, of latencies, memory, throughput and money, where there were
    enough."""
    at_least: dict[str, float] = {}
    """Cost → lower end of what its samples leave open, where they do not bound it from above."""
    n_tasks: int = 0
    threads: int = 1
    n_openings: int = 1
    """Fresh processes that it was measured in; intervals are over them where there are several."""
    noise_share: float | None = None
    """The A/A ratio of this run: what a ratio shows when nothing differs, as max(ratio, 1/ratio) - 1."""
    aa_ratio: Interval | None = None
    """CPU-seconds of the incumbent's twin over the incumbent's own, measured like any other ratio."""
    marks: tuple[str, ...] = ()
    """What may have disturbed the measurement, one sentence each."""

    @property
    def cut_short(self) -> str | None:
        """What there was time for, where a budget cut a planned measurement short."""
        said = next((mark for mark in self.marks if mark.startswith(CUT_SHORT)), None)
        return None if said is None else said.removeprefix(CUT_SHORT).strip(": .")

    @property
    def ratio(self) -> Interval | None:
        """Cost over the incumbent's by the best measure there is: CPU time, money, latency."""
        return self.cpu_ratio or self.usd_ratio or self.latency_ratio

    @property
    def ratio_words(self) -> str:
        """What `ratio` compares."""
        return "CPU time" if self.cpu_ratio else "price" if self.usd_ratio else "latency"


class CandidateReport(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was found about one candidate on the test split."""

    name: str
    digest: str
    verdict: Verdict
    role: str
    """`incumbent`, `nominee`, `fallback`, or `shown`: measured, but not eligible in this decision."""
    gates: tuple[GateResult, ...]
    scores: dict[str, dict[str, float | None]]
    """slice → metric (accuracy, macro_f1, ece, auroc, ...) → value."""
    n: dict[str, int]
    """slice → examples."""
    cost: CostSummary
    arm_shares: dict[str, float] = {}
    """Of a cascade: arm (`lean`, `fallback`, `fallback/lean`, ...) → share of the test answers that are its
    own. Empty for a single model, and in decisions of before 2026-11-28."""
    pareto: bool = False
    """No other candidate is both better on the first gate's score, over all examples, and cheaper."""
    steps: tuple[str, ...] = ()
    """The lineage in words."""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of one reading of the test split."""

    task: str
    verdict: Verdict
    chosen: str | None
    """Name of the released candidate; None when none earned its place."""
    headline: str
    """The verdict in one sentence."""
    reasons: tuple[str, ...]
    incumbent: str
    candidates: tuple[CandidateReport, ...]
    """The incumbent first."""
    gates: tuple[Gate, ...]
    test_digest: str
    n_test_reads: int
    seed: int
    machine: dict[str, str]
    """CPU model and features, threads, versions: the same file may answer differently elsewhere."""
    created: str
    caveats: tuple[str, ...] = ()
    """What the evidence cannot tell."""
    format: int = FORMAT


def ratio_figure(value: float, form: str = ".3g") -> str:
    """A ratio as people read it: 0.163, and what is under a thousandth as 1/353,000."""
    if 0 < value < 1e-3:
        return f"1/{float(f'{1 / value:.3g}'):,.0f}"
    return f"{value:,.0f}" if value >= 1000 else f"{value:{form}}"


EXIT_CODE = {Verdict.SHIP: 0, Verdict.BLOCK: 1, Verdict.NOT_ENOUGH_DATA: 1}


def check_names(decision: Decision, place: str) -> None:
    """Refuse a decision, perhaps edited by hand, that names candidates it does not hold.

    Raises:
        InvalidInput: The incumbent or the chosen candidate is no candidate, or one is there twice.
    """
    names = [candidate.name for candidate in decision.candidates]
    for field, name in (("incumbent", decision.incumbent), ("chosen", decision.chosen)):
        if name is not None and name not in names:
            raise InvalidInput(
                f"decision.{field} must name one of candidates {names[:20]}, got {name!r} at {place}. "
                "Write the file again with `jettison run`."
            )
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidInput(
            f"decision.candidates must have names of their own, got {twice!r} twice at {place}."
        )
