"""The table of costs, in units people read, and the sentences that say what the figures rest on."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from jettison.cost.published import Figure, contexts
from jettison.decide import report_words as words
from jettison.decision import CostSummary, Interval, MovedBytes, PhaseMemory


class CostRow(NamedTuple):
    """One cost of every candidate."""

    name: str
    what: str
    """How it is defined, in a few words."""
    figures: list[str]
    is_estimate: bool = False
    """Estimated or modelled: such rows stand in a table of their own, beside no measured figure."""


class CostTables(NamedTuple):
    """The same rows, what was measured apart from what was not."""

    measured: list[CostRow]
    estimated: list[CostRow]


ESTIMATED_TITLE = "Estimated or modelled, not measured"
ESTIMATED_LEAD = (
    "Nothing here was read off a meter: the notes say how each figure was made and by what factor it may "
    "be wrong. It does not belong in one column, sum or plot with the figures above."
)


def cost_tables(rows: Sequence[CostRow]) -> CostTables:
    """Part the rows; their order stays."""
    return CostTables(
        [row for row in rows if not row.is_estimate], [row for row in rows if row.is_estimate]
    )


def cost_rows(costs: Sequence[CostSummary], *, is_narrow: bool = False) -> list[CostRow]:
    """Every cost that was measured of at least one candidate; figures in the candidates' order.

    Args:
        costs: Of the candidates.
        is_narrow: Leave the intervals of latencies, throughput and money to wider pages: a terminal's lines
            would break.
    """

    def known(name: str, in_words: Callable[[float | None], str]) -> list[str]:
        intervals = [None if is_narrow else c.intervals.get(name) for c in costs]
        return [
            in_words(getattr(c, name)) if found is None else _between(found, in_words)
            for c, found in zip(costs, intervals, strict=True)
        ]

    rows = [
        CostRow(
            "CPU time per task",
            "all threads, one at a time",
            [words.seconds(c.cpu_s.value if c.cpu_s else None) for c in costs],
        ),
        CostRow(
            "CPU time over the incumbent's",
            "paired rounds; A/A: a second copy of the incumbent over the first",
            [_ratio(c.cpu_ratio, c.aa_ratio) for c in costs],
        ),
        CostRow(
            "Latency, median",
            "one at a time, no queue",
            known("latency_p50_s", words.seconds),
        ),
        CostRow("Latency, 95th percentile", "", known("latency_p95_s", words.seconds)),
        CostRow("Latency, 99th percentile", "", known("latency_p99_s", words.seconds)),
        CostRow("Throughput", "in its best batches", known("throughput_per_s", words.rate)),
        CostRow("Peak memory", "children included", [words.size(c.peak_bytes) for c in costs]),
        *memory_rows([c.memory for c in costs]),
        CostRow("Size on disk", "", [words.size(c.bytes) for c in costs]),
        CostRow("Size compressed", "zstd, level 3", [words.size(c.compressed_bytes) for c in costs]),
        CostRow(
            "Time to load", "fresh process, imports included", [words.seconds(c.load_s) for c in costs]
        ),
        CostRow("First answer", "after loading", [words.seconds(c.first_answer_s) for c in costs]),
        CostRow(
            "Cold start: import",
            "runtime, its files cached; median",
            [_cold(c.cold.import_s if c.cold else None) for c in costs],
        ),
        CostRow(
            "Cold start: open",
            "artifact, its files not cached; median",
            [_cold(c.cold.open_s if c.cold else None) for c in costs],
        ),
        CostRow(
            "Cold start: load", "both; median", [_cold(c.cold.load_s if c.cold else None) for c in costs]
        ),
        CostRow(
            "Cold start: first answer",
            "median",
            [_cold(c.cold.first_answer_s if c.cold else None) for c in costs],
        ),
        *_energy_rows(costs),
        CostRow(
            "Price per million tasks",
            "machine kept busy",
            known("usd_per_1000", _per_million),
        ),
        CostRow(
            "Price over the incumbent's",
            "tokens at their prices, this machine at its own",
            [words.ratio(c.usd_ratio) for c in costs],
        ),
        CostRow(
            "Price per million tasks at your rate",
            "idle time paid",
            [_per_million(c.own_rate_usd_per_1000) for c in costs],
        ),
        CostRow(
            "Machines at your rate",
            "by throughput",
            [words.UNKNOWN if c.own_machines is None else f"{c.own_machines}" for c in costs],
        ),
        CostRow(
            "Energy per task at your rate, ESTIMATED",
            "idle time included",
            energies([c.own_rate_energy_j for c in costs], is_estimate=True),
            is_estimate=True,
        ),
        *moved_rows([c.moved for c in costs]),
        CostRow("Answers that are correct", "on dev", [words.share_bounds(c.correct_share) for c in costs]),
        *per_correct_rows(
            [c.per_correct for c in costs],
            [(c.energy_tier or "")[:1] for c in costs],
            latency="median latency",
            money_of=10**6,
        ),
        CostRow("Tokens of the prompt", "mean", [words.count_or_unknown(c.prompt_tokens) for c in costs]),
        CostRow(
            "Tokens of the answer", "mean", [words.count_or_unknown(c.completion_tokens) for c in costs]
        ),
        CostRow("Tasks measured", "", [f"{c.n_tasks:,}" if c.n_tasks else words.UNKNOWN for c in costs]),
    ]
    return [row for row in rows if any(figure != words.UNKNOWN for figure in row.figures)]


def memory_rows(found: Sequence[PhaseMemory | None]) -> list[CostRow]:
    """Peak of each phase, and what is held at the end with shared pages divided or left out."""
    parts = {
        "Peak memory while loading": ("", "load_peak_bytes"),
        "Peak memory while warming up": ("first answer included", "warm_up_peak_bytes"),
        "Peak memory while measured": ("", "steady_peak_bytes"),
        "Memory at the end, PSS": ("shared pages divided", "steady_pss_bytes"),
        "Memory at the end, USS": ("its own alone", "steady_uss_bytes"),
    }
    return [
        CostRow(name, what, [words.size(getattr(m, part) if m is not None else None) for m in found])
        for name, (what, part) in parts.items()
    ]


def moved_rows(found: Sequence[MovedBytes | None]) -> list[CostRow]:
    """Modelled bytes of weights, keys and values."""
    parts = {
        "Weights moved per task, MODELLED": [None if m is None else m.weight_bytes for m in found],
        "Keys and values moved per task, MODELLED": [None if m is None else m.kv_bytes for m in found],
    }
    return [
        CostRow(
            name,
            "from file sizes and token counts",
            [words.UNKNOWN if v is None else f"≈ {words.size(v)}" for v in values],
            is_estimate=True,
        )
        for name, values in parts.items()
    ]


def moved_notes(names: Sequence[str], found: Sequence[MovedBytes | None]) -> list[str]:
    """What the model of the bytes counts, and by what factor it may be wrong."""
    told: dict[str, list[str]] = {}
    for name, one in zip(names, found, strict=True):
        if one is not None:
            said = f"Bytes moved (modelled, ×/÷ {one.factor:g}): {one.source}."
            told.setdefault(said, []).append(name)
    if len(told) < 2:
        return list(told)
    return [f"{', '.join(who)}: {said[0].lower()}{said[1:]}" for said, who in told.items()]


def per_correct_rows(
    found: Sequence[Mapping[str, Interval]],
    kinds: Sequence[str],
    *,
    latency: str = "mean latency",
    money_of: int = 1000,
) -> list[CostRow]:
    """What one correct answer takes; measured and estimated joules apart.

    Args:
        found: Cost → interval, of each target.
        kinds: M or E, the first letter of each one's tier of energy.
        latency: What the latency is.
        money_of: How many answers money is given for.
    """
    many = f"{money_of:,}" if money_of < 10**6 else f"{money_of // 10**6} million"
    rows = [
        CostRow(f"Per correct answer: {name}", "", _intervals(found, cost, say))
        for cost, name, say in (
            ("latency_s", latency, words.seconds),
            ("cpu_s", "CPU time per task", words.seconds),
            (
                "usd",
                f"money for {many}",
                lambda usd: words.dollars(None if usd is None else money_of * usd),
            ),
            ("wire_bytes", "bytes on the wire", words.size),
        )
    ]
    exact = _intervals(found, "energy_j", words.energy)
    rough = _intervals(found, "energy_j", lambda joules: f"≈ {words.energy(joules)}")
    return [
        *rows,
        CostRow("Per correct answer: energy, measured", "", _of_kind(exact, kinds, "M")),
        CostRow(
            "Per correct answer: energy, ESTIMATED",
            "interval of the share alone: the factor comes on top",
            _of_kind(rough, kinds, "E"),
            is_estimate=True,
        ),
    ]


def _of_kind(figures: Sequence[str], kinds: Sequence[str], kind: str) -> list[str]:
    return [figure if of == kind else words.UNKNOWN for figure, of in zip(figures, kinds, strict=True)]


def _intervals(
    found: Sequence[Mapping[str, Interval]], cost: str, say: Callable[[float | None], str]
) -> list[str]:
    costs = [one.get(cost) for one in found]
    return [f"{say(c.value)} [{say(c.low)}, {say(c.high)}]" if c else words.UNKNOWN for c in costs]


def energy_note(costs: Sequence[CostSummary]) -> str:
    """How the energy is known: the tier, and by how much it may be wrong."""
    tiers = {c.energy_tier for c in costs if c.energy_tier}
    factors = {c.energy_factor for c in costs if c.energy_factor}
    if len(tiers) != 1 or len(factors) != 1:
        return "tiers differ: these do not compare" if tiers else ""
    (tier,), (factor,) = tiers, factors
    kind = "measured" if tier.startswith("M") else "estimate"
    return f"{kind}, tier {tier}: ×/÷ {words.three_digits(factor)}"


def cost_notes(costs: Sequence[CostSummary], names: Sequence[str]) -> list[str]:
    """What the figures rest on: noise floor, source of the energy, what disturbed the run.

    Args:
        costs: Of the candidates.
        names: Theirs: notes may differ.
    """
    notes = _noise_words(costs)
    notes += _cold_words(costs)
    tiers = energy_note(costs)
    sources = sorted({(c.energy_source, c.energy_boundary or "") for c in costs if c.energy_source})
    notes += [
        f"Energy ({tiers}{f'; boundary: {boundary}' if boundary else ''}): {source}."
        for source, boundary in sources
    ]
    notes += sorted({f"CO₂e: {c.co2e_source}." for c in costs if c.co2e_source})
    if any((c.energy_tier or "").startswith("E") for c in costs):
        notes.append("Estimated joules compare candidates on this machine; they compare with nothing else.")
    notes += moved_notes(names, [c.moved for c in costs])
    rates = sorted({c.own_rate_per_s for c in costs if c.own_rate_per_s is not None})
    notes += [
        f"Your rate: {words.rate(rate)}; machines are paid for while they wait, too." for rate in rates
    ]
    notes += sorted({mark[0].upper() + mark[1:] for c in costs for mark in c.marks})
    return notes


def _noise_words(costs: Sequence[CostSummary]) -> list[str]:
    """The noise floor, and what the intervals of ratios hold."""
    base = next((c for c in costs if c.noise_share is not None), None)
    notes = []
    if base is not None:
        interval = f" (ratio {words.near_one(base.aa_ratio)})" if base.aa_ratio else ""
        notes.append(
            f"Two copies of the incumbent, measured in the same run, differed by "
            f"{words.percent(base.noise_share)}{interval} in CPU time: the noise floor (A/A) of this "
            "machine on that day."
        )
    compared = [c for c in costs if c.cpu_ratio is not None]
    once = [c for c in compared if c.n_openings == 1]
    if len(compared) > 1 and once:
        notes.append(
            "Each was opened once: the intervals of their ratios hold for these processes alone, and two "
            "processes of one model differ by some percent."
        )
    elif len(compared) > 1:
        n = min(c.n_openings for c in compared)
        notes.append(f"Each was opened {n} times in fresh processes; intervals of CPU time are over these.")
    return notes


def cost_contexts(names: Sequence[str], costs: Sequence[CostSummary], kind: str | None) -> tuple[str, ...]:
    """Where the joules fall among published ones, or why they do not compare.

    Args:
        names: Of the candidates, shape (n_candidates,).
        costs: Theirs.
        kind: Of the task; None where it is not known.
    """
    return contexts(
        [
            Figure(name=name, energy_j=c.energy_j, tier=c.energy_tier, boundary=c.energy_boundary)
            for name, c in zip(names, costs, strict=True)
            if c.n_tasks
        ],
        kind,
    )


def _ratio(ratio: Interval | None, aa_ratio: Interval | None) -> str:
    """Of the incumbent itself how its twin compares, where that was measured."""
    is_base = ratio is not None and ratio.low == ratio.high == 1.0
    if not is_base:
        return words.ratio(ratio)
    return words.REFERENCE if aa_ratio is None else words.against_itself(aa_ratio)


def _cold(found: Interval | None) -> str:
    return words.UNKNOWN if found is None else _between(found, words.seconds)


def _between(found: Interval, in_words: Callable[[float | None], str]) -> str:
    """ "13 ms [12.4, 13.7]": the unit stands once where all three have the same."""
    parts = [in_words(end).partition(" ") for end in (found.value, found.low, found.high)]
    (value, _, unit), low, high = parts
    if {low[2], high[2]} == {unit}:
        return f"{value} {unit} [{low[0]}, {high[0]}]" if unit else f"{value} [{low[0]}, {high[0]}]"
    return f"{value} {unit} [{' '.join(low[::2])}, {' '.join(high[::2])}]"


def _cold_words(costs: Sequence[CostSummary]) -> list[str]:
    """How cold the starts were."""
    found = [c.cold for c in costs if c.cold is not None]
    if not found:
        return []
    shares = [cold.cached_share for cold in found]
    n, method = found[0].n_starts, found[0].load_s.method
    said = f"Cold starts ({n} each; {method}): the libraries' files stayed in the system's cache"
    if None in shares:
        return [f"{said}; whether the artifact's were dropped is not told here."]
    most = max(share for share in shares if share is not None)
    if most > 0.01:
        return [f"{said}, and so did up to {most:.0%} of an artifact: that start was not cold."]
    return [f"{said}; the artifact's were dropped before each."]


def _per_million(usd_per_1000: float | None) -> str:
    return words.dollars(None if usd_per_1000 is None else 1000 * usd_per_1000)


def _energy_rows(costs: Sequence[CostSummary]) -> list[CostRow]:
    """Measured and estimated joules are rows of their own: they never share one."""
    kinds = [(c.energy_tier or "")[:1] for c in costs]
    joules, grams = [c.energy_j for c in costs], [c.co2e_g for c in costs]
    return [
        CostRow("Energy per task, measured", energy_note(costs), energies(only(joules, kinds, "M"))),
        CostRow(
            "Energy per task, ESTIMATED",
            energy_note(costs),
            energies(only(joules, kinds, "E"), is_estimate=True),
            is_estimate=True,
        ),
        *co2e_rows(grams, kinds),
    ]


def co2e_rows(grams: Sequence[float | None], kinds: Sequence[str]) -> list[CostRow]:
    """Emissions of measured joules apart from those of estimated ones.

    Args:
        grams: Per task, shape (n_targets,).
        kinds: M or E, the first letter of each one's tier of energy.
    """
    return [
        CostRow(
            "CO₂e per task, of measured joules",
            "grid and PUE as given",
            [_grams(value) for value in only(grams, kinds, "M")],
        ),
        CostRow(
            "CO₂e per task, of ESTIMATED joules",
            "grid and PUE as given",
            [_grams(value) for value in only(grams, kinds, "E")],
            is_estimate=True,
        ),
    ]


def only(values: Sequence[float | None], kinds: Sequence[str], kind: str) -> list[float | None]:
    """The values of one kind; None in the place of the others."""
    return [value if of == kind else None for value, of in zip(values, kinds, strict=True)]


def energies(joules: Sequence[float | None], *, is_estimate: bool = False) -> list[str]:
    """Joules in words, with ≈ where they are estimates."""
    sign = "≈ " if is_estimate else ""
    return [words.UNKNOWN if value is None else f"{sign}{words.energy(value)}" for value in joules]


def _grams(value: float | None) -> str:
    return words.UNKNOWN if value is None else f"≈ {words.grams(value)}"
