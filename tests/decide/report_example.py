"""A decision as the demo's: a linear model ties in domain and fails on tweets; a cascade ships."""

from jettison.candidate import AppliedStep
from jettison.decide.report_types import FlipExample, ReportContent, StageEffect, Tried
from jettison.decision import (
    AtMost,
    CandidateReport,
    CostSummary,
    Decision,
    Flips,
    GateResult,
    Interval,
    NotWorse,
    Verdict,
)
from jettison.task import Finding

SIZES = {
    "all": 2210,
    "domain=movies": 940,
    "domain=tweets": 610,
    "domain=products": 380,
    "domain=news": 280,
}
SHIP, BLOCK, UNSURE = Verdict.SHIP, Verdict.BLOCK, Verdict.NOT_ENOUGH_DATA


def gate(where: str, verdict: Verdict, value: float, half: float, base: float = 0.86) -> GateResult:
    n = SIZES[where]
    harmful = round(n * (0.02 + max(0.0, -value)))
    return GateResult(
        gate="not_worse",
        metric="label",
        slice=where,
        verdict=verdict,
        limit=0.02 if where == "all" else 0.03,
        reason={
            SHIP: "At worst the loss is smaller than the margin.",
            BLOCK: f"It loses {-100 * value:.1f} points here, more than the margin allows.",
            UNSURE: "The interval reaches across the margin; about 420 more examples would settle it.",
        }[verdict],
        n=n,
        n_groups=n,
        incumbent=base,
        candidate=base + value,
        difference=Interval(value=value, low=value - half, high=value + half, method="paired"),
        p_value={SHIP: 0.0004, BLOCK: 0.9999, UNSURE: 0.11}[verdict],
        alpha=0.025,
        flips=Flips(
            harmful=harmful,
            beneficial=max(0, round(harmful + n * value)),
            churn=0,
            both_right=round(0.8 * n),
            n=n,
        ),
        n_missing=420 if verdict == UNSURE else None,
        method="Tango score interval for paired proportions",
    )


def cost(
    cpu_s: float, ratio: float, n_bytes: int, throughput: float, peak: int, base: bool = False
) -> CostSummary:
    return CostSummary(
        cpu_s=Interval(value=cpu_s, low=cpu_s * 0.98, high=cpu_s * 1.03),
        cpu_ratio=Interval(
            value=ratio, low=ratio if base else ratio * 0.97, high=ratio if base else ratio * 1.04
        ),
        latency_p50_s=cpu_s * 1.01,
        latency_p95_s=cpu_s * 1.6,
        latency_p99_s=cpu_s * 2.4 if n_bytes > 1_000_000 else None,
        throughput_per_s=throughput,
        peak_bytes=peak,
        load_s=4.1 if base else 0.42,
        first_answer_s=0.08 if base else 0.006,
        bytes=n_bytes,
        energy_j=cpu_s * 4.06,
        energy_tier="E3",
        energy_factor=3.0,
        energy_source="CPU-seconds x 0.77-4.06 W per vCPU (unknown CPU: median of the table; "
        "cloud-carbon-footprint/ccf-coefficients@b0032d9 (SPECpower), 2026-04)",
        usd_per_1000=0.0000119 * cpu_s * 1000,
        n_tasks=960,
        threads=1,
        noise_share=0.008,
        marks=(
            "tasks waited for a CPU in 14 % of the time (PSI): wall times are inflated, "
            "CPU-second ratios hold better.",
        ),
    )


def scores(base: float, deltas: dict[str, float]) -> dict[str, dict[str, float | None]]:
    return {
        where: {
            "accuracy": base + delta,
            "macro_f1": base + delta - 0.006,
            "ece": 0.021 - delta / 4,
            "auroc": None,
        }
        for where, delta in deltas.items()
    }


def candidate(
    name: str,
    verdict: Verdict,
    role: str,
    cells: dict[str, tuple[Verdict, float, float]],
    costs: CostSummary,
    steps: tuple[str, ...],
    pareto: bool = False,
) -> CandidateReport:
    gates = tuple(gate(where, *cell) for where, cell in cells.items())
    latency = GateResult(
        gate="at_most",
        metric="latency_p95_s",
        slice=None,
        verdict=SHIP,
        limit=0.02,
        candidate=costs.latency_p95_s,
        reason="The 95th-percentile latency is below its limit.",
        method="order statistic of 960 tasks",
    )
    return CandidateReport(
        name=name,
        digest=(name.encode().hex() + "0" * 64)[:64],
        verdict=verdict,
        role=role,
        gates=(*gates, latency) if gates else (),
        scores=scores(0.86, {w: c[1] for w, c in cells.items()} or dict.fromkeys(SIZES, 0.0)),
        n=SIZES,
        cost=costs,
        pareto=pareto,
        steps=steps,
    )


def example_decision() -> Decision:
    return Decision(
        task="review sentiment",
        verdict=SHIP,
        chosen="static+int8 cascade",
        headline="static+int8 cascade does the incumbent's job at 9 % of its CPU time: ship it.",
        reasons=(
            "On all four domains it is shown to lose less than the margin.",
            "hashed linear ties with the incumbent on movie reviews, but loses 17 on tweets: blocked.",
            "int8 holds too, and costs twice as much CPU as the cascade.",
        ),
        incumbent="minilm-sentiment",
        candidates=(
            candidate(
                "minilm-sentiment",
                SHIP,
                "incumbent",
                {},
                cost(0.0138, 1.0, 91_300_000, 148, 512_000_000, base=True),
                (),
                pareto=True,
            ),
            candidate(
                "static+int8 cascade",
                SHIP,
                "nominee",
                {
                    "all": (SHIP, -0.001, 0.007),
                    "domain=movies": (SHIP, 0.002, 0.010),
                    "domain=tweets": (SHIP, -0.005, 0.014),
                    "domain=products": (SHIP, 0.0, 0.016),
                    "domain=news": (SHIP, -0.004, 0.021),
                },
                cost(0.00121, 0.088, 31_200_000, 3900, 148_000_000),
                ("static student, distilled", "int8 of the incumbent", "cascade at 0.83"),
                pareto=True,
            ),
            candidate(
                "int8",
                SHIP,
                "fallback",
                {
                    "all": (SHIP, -0.002, 0.005),
                    "domain=movies": (SHIP, 0.0, 0.009),
                    "domain=tweets": (SHIP, -0.004, 0.011),
                    "domain=products": (SHIP, -0.003, 0.013),
                    "domain=news": (SHIP, -0.004, 0.016),
                },
                cost(0.0026, 0.19, 23_100_000, 670, 121_000_000),
                ("export to ONNX", "int8, per channel"),
            ),
            candidate(
                "static student",
                UNSURE,
                "shown",
                {
                    "all": (UNSURE, -0.017, 0.009),
                    "domain=movies": (SHIP, -0.006, 0.014),
                    "domain=tweets": (UNSURE, -0.031, 0.020),
                    "domain=products": (UNSURE, -0.021, 0.024),
                    "domain=news": (UNSURE, -0.014, 0.031),
                },
                cost(0.000047, 0.0034, 8_100_000, 52_000, 61_000_000),
                ("static student, distilled",),
                pareto=True,
            ),
            candidate(
                "hashed linear",
                BLOCK,
                "shown",
                {
                    "all": (BLOCK, -0.098, 0.017),
                    "domain=movies": (SHIP, 0.003, 0.019),
                    "domain=tweets": (BLOCK, -0.171, 0.034),
                    "domain=products": (BLOCK, -0.132, 0.041),
                    "domain=news": (BLOCK, -0.118, 0.049),
                },
                cost(0.000019, 0.0014, 812_000, 118_000, 44_000_000),
                ("hashed word 1-2-grams, distilled",),
                pareto=True,
            ),
        ),
        gates=(
            NotWorse(
                scorer="label",
                margin=0.02,
                slices=("all", "domain=*"),
                alpha=0.025,
                margins={"domain=*": 0.03},
            ),
            AtMost(cost="latency_p95_s", limit=0.02),
        ),
        test_digest="5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8",
        n_test_reads=2,
        seed=0,
        machine={
            "cpu": "AMD EPYC, 2 CPUs",
            "instruction_sets": "avx2 avx512f avx512_vnni",
            "threads": "1",
            "python": "3.11.9",
            "onnxruntime": "1.32.0",
            "jettison": "0.1.0",
        },
        created="2026-11-22T23:10:00Z",
        caveats=(
            "Only the four domains named were judged; other kinds of text were not seen.",
            "The test examples were rated by volunteers in 2014: today's usage may differ.",
        ),
    )


POS, NEG, LINEAR, CASCADE = "positive", "negative", "hashed linear", "static+int8 cascade"
HOSTILE = "<script>alert('x')</script> | **not bold** \"quoted\" & so on"


def example_flips() -> tuple[FlipExample, ...]:
    texts = [
        (LINEAR, "not bad at all lol, would def watch again", POS, NEG, "tweets", True),
        (LINEAR, "Well THAT was two hours I'll never get back. #cinema", NEG, POS, "tweets", True),
        (LINEAR, "The battery lasts. Nothing else about it does.", NEG, POS, "products", True),
        (CASCADE, "It never quite recovers from its own cleverness.", NEG, POS, "movies", True),
        (CASCADE, "A minor film, and I mean that kindly.", POS, POS, "movies", False),
        (LINEAR, HOSTILE, NEG, POS, "tweets", True),
        ("static student", "Growth slowed less than feared.", POS, NEG, "news", True),
    ]  # fmt: skip
    other = {"positive": "negative", "negative": "positive"}
    return tuple(
        FlipExample(
            candidate=name,
            id=f"{domain}:{index}",
            input=text,
            expected=expected,
            incumbent_output=expected if harmful else other[answer],
            candidate_output=answer,
            incumbent_confidence=0.91 - 0.03 * index,
            candidate_confidence=0.88 - 0.05 * index,
            slices={"domain": domain},
            harmful=harmful,
        )
        for index, (name, text, expected, answer, domain, harmful) in enumerate(texts)
    )


def example_content() -> ReportContent:
    return ReportContent(
        decision=example_decision(),
        flips=example_flips(),
        tried=(
            Tried(
                name="pruned-50+int8",
                steps=("prune half of the heads", "distill back, 2 epochs", "int8"),
                dev_score=0.842,
                dev_loss_vs_incumbent=0.021,
                cpu_ratio=0.13,
                bytes=14_800_000,
                status="dominated",
                reason="The cascade is better and cheaper on dev.",
                stages=(
                    StageEffect(step="prune", dev_loss=0.043, cpu_ratio=0.61, bytes=58_000_000),
                    StageEffect(step="distill", dev_loss=-0.024, cpu_ratio=1.0, bytes=58_000_000),
                    StageEffect(step="quantize", dev_loss=0.002, cpu_ratio=0.22, bytes=14_800_000),
                ),
            ),
            Tried(
                name="static+int8 cascade",
                steps=("static student", "int8", "cascade"),
                dev_score=0.861,
                dev_loss_vs_incumbent=0.002,
                cpu_ratio=0.09,
                bytes=31_200_000,
                status="finalist",
                reason="The cheapest that is likely to pass every gate.",
            ),
            Tried(
                name="bfloat16",
                steps=("bfloat16",),
                status="failed",
                reason="This CPU has no bfloat16 kernels; it ran slower than float32.",
            ),
            Tried(
                name="vocabulary-8k",
                steps=("trim vocabulary to 8,000",),
                dev_score=0.86,
                dev_loss_vs_incumbent=0.0,
                cpu_ratio=1.0,
                bytes=70_000_000,
                status="dropped",
                reason="Smaller but no cheaper to run.",
            ),
        ),
        lineage={
            "int8": (
                AppliedStep(
                    step="export",
                    settings={"opset": 17},
                    seed=0,
                    versions={"onnx": "1.23"},
                    parents=("aa",),
                    duration_s=6.2,
                ),
                AppliedStep(
                    step="quantize",
                    settings={"weights": "int8", "per_channel": True},
                    seed=0,
                    versions={"onnxruntime": "1.32"},
                    parents=("bb",),
                    duration_s=3.1,
                ),
            )
        },
        findings=(
            Finding(
                rule="duplicate_across_splits",
                severity="warning",
                message="12 test texts also stand in train; they were left out of train.",
                n_examples=12,
                examples=("tweets:17", "tweets:90", "news:4"),
            ),
            Finding(
                rule="imbalance",
                severity="note",
                message="64 % of the tweets are positive, 48 % of the news.",
            ),
        ),
        settings={
            "budget": "10m",
            "threads": 1,
            "seed": 0,
            "margin": 0.02,
            "slices": ["all", "domain=*"],
            "recipes": "auto",
        },
    )
