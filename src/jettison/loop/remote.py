"""What candidates cost when some of them run elsewhere: their own records say, none is asked again.

An endpoint is paid for each answer, so it is never measured for its own sake. Its latency and
price come from the records of the evaluation; its CPU time is not to be seen from here.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np

from jettison.backends.remote import REMOTE, is_remote
from jettison.candidate import Candidate
from jettison.cost.latency import latency_percentiles
from jettison.cost.load_summary import cdf_of
from jettison.cost.measure import measure_costs
from jettison.decision import CostSummary, Interval
from jettison.loop.remote_words import LEAST_PRICED, price_marks
from jettison.loop.workspace import Contender
from jettison.record import Record
from jettison.task import Input

N_RESAMPLES = 1000


def costs_of(
    contenders: Sequence[Contender],
    inputs: Sequence[Input],
    *,
    seed: int,
    settings: dict[str, Any],
    progress: Callable[[str, float | None], None],
) -> list[CostSummary]:
    """Costs of the contenders, the incumbent first; what runs here is measured interleaved.

    Args:
        contenders: With dev records.
        inputs: What the local ones are measured on.
        seed: Of the measurement.
        settings: Of `measure_costs`.
        progress: Called with a phrase and the share done.
    """
    local = [_local_part(contender) for contender in contenders]
    measured = [part for part in local if part is not None]
    if len(measured) == len(contenders) and not any(is_remote(c.candidate) for c in contenders):
        candidates = [contender.candidate for contender in contenders]
        return measure_costs(candidates, inputs, seed=seed, **settings, progress=progress)
    # Money needs throughput, and is what a paid incumbent is compared by.
    settings = {**settings, "throughput": True}
    found = iter(
        measure_costs(measured, inputs, seed=seed, **settings, progress=progress) if measured else ()
    )
    costs = [
        _cost(contender, None if part is None else next(found))
        for contender, part in zip(contenders, local, strict=True)
    ]
    rng = np.random.default_rng(seed)
    times = _resampled_mean(_latencies(contenders[0], costs[0]), rng)
    money = _money_ratios(contenders, costs, np.random.default_rng(seed))
    return [
        _compared(cost, costs[0], _over(_resampled_mean(_latencies(contender, cost), rng), times), ratios)
        for contender, cost, ratios in zip(contenders, costs, money, strict=True)
    ]


def _local_part(contender: Contender) -> Candidate | None:
    """What of a contender runs here: all of it, a cascade's lean arm, or nothing."""
    candidate = contender.candidate
    if not is_remote(candidate):
        return candidate
    while candidate.backend == "cascade":
        candidate = Candidate.at(candidate.path / "lean")
    return None if candidate.backend in REMOTE else candidate


def _cost(contender: Contender, here: CostSummary | None) -> CostSummary:
    """A local contender's own figures, or those of its lean arm with what its records paid elsewhere."""
    if not is_remote(contender.candidate) and here is not None:
        return msgspec.structs.replace(here, cpu_ratio=None)
    own = here or CostSummary()
    latencies = _latencies(contender, own)
    # Each answer is to another request, and what gave it is one service to those who ask.
    tails = latency_percentiles([latencies.tolist()], n_inputs=len(latencies))
    elsewhere = [record for record in contender.records if _went(contender, record)]
    share = len(elsewhere) / max(1, len(contender.records))
    paid = _paid_usd(contender)
    usd: float | None = None
    if paid is not None and (here is None or own.usd_per_1000 is not None):
        usd = (own.usd_per_1000 or 0.0) + 1000 * float(paid.mean() if len(paid) else 0.0)
    return msgspec.structs.replace(
        own,
        intervals=tails.intervals,
        at_least=tails.at_least,
        cpu_ratio=None,
        latency_p50_s=tails.values.get("latency_p50_s"),
        latency_p95_s=tails.values.get("latency_p95_s"),
        latency_p99_s=tails.values.get("latency_p99_s"),
        latency_quantiles_s=cdf_of(latencies) if len(latencies) else (),
        throughput_per_s=None,
        energy_j=None,
        own_rate_per_s=None,
        own_machines=None,
        own_rate_usd_per_1000=None,
        own_rate_energy_j=None,
        moved=None,
        prompt_tokens=_mean_tokens(elsewhere, "prompt_tokens") if here is None else own.prompt_tokens,
        completion_tokens=_mean_tokens(elsewhere, "completion_tokens")
        if here is None
        else own.completion_tokens,
        # A folder of settings says nothing of the model's size.
        bytes=None if here is None else contender.candidate.artifact_bytes,
        compressed_bytes=None,
        usd_per_1000=usd,
        n_tasks=len(contender.records),
        marks=(
            *own.marks,
            f"{share:.0%} of the answers come from elsewhere: CPU time is of this side alone.",
            *price_marks(contender),
        ),
    )


def _paid_usd(contender: Contender) -> np.ndarray | None:
    """Price of each answer on dev, 0 where it was given here, shape (n,); None where too few are known.

    Where some have no price (a log that counts no tokens in some lines), the mean of the others stands for
    them.
    """
    went = [_went(contender, record) for record in contender.records]
    prices = [
        record.cost.price_usd if w else 0.0 for record, w in zip(contender.records, went, strict=True)
    ]
    known = [price for price, w in zip(prices, went, strict=True) if w and price is not None]
    if len(known) < min(sum(went), LEAST_PRICED):
        return None
    mean = sum(known) / len(known) if known else 0.0
    return np.array([mean if price is None else price for price in prices])


def _mean_tokens(records: Sequence[Record], side: str) -> float | None:
    known = [n for record in records if (n := getattr(record.cost, side)) is not None]
    return sum(known) / len(known) if known else None


def _latencies(contender: Contender, cost: CostSummary) -> np.ndarray:
    """Seconds to each answer on dev, shape (n,): the median here, and what went elsewhere on top."""
    here = 0.0 if _local_part(contender) is None else cost.latency_p50_s or 0.0
    if not is_remote(contender.candidate):
        return np.array([here])
    return np.array(
        [
            here + (record.cost.latency_s or 0.0)
            for record in contender.records
            if record.cost.latency_s is not None or not _went(contender, record)
        ]
    )


def _went(contender: Contender, record: Record) -> bool:
    """Whether an answer came from elsewhere."""
    return contender.candidate.backend != "cascade" or record.escalated


def _resampled_mean(latencies: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """Means of bootstrap samples, shape (N_RESAMPLES,); None where nothing is known."""
    if not len(latencies):
        return None
    return np.asarray(rng.choice(latencies, (N_RESAMPLES, len(latencies))).mean(axis=1))


def _over(one: np.ndarray | None, other: np.ndarray | None) -> np.ndarray | None:
    return None if one is None or other is None else np.asarray(one / other)


def _money_ratios(
    contenders: Sequence[Contender], costs: Sequence[CostSummary], rng: np.random.Generator
) -> list[np.ndarray | None]:
    """Each one's mean price over the incumbent's on resampled dev requests, the same ones for both."""
    n = len(contenders[0].records)
    rows = rng.integers(0, n, (N_RESAMPLES, n)) if n else np.zeros((N_RESAMPLES, 0), int)
    means = [_resampled_usd(one, cost, rows) for one, cost in zip(contenders, costs, strict=True)]
    base = means[0]
    if base is None or not (base > 0).all():
        return [None] * len(means)
    return [None if mean is None else mean / base for mean in means]


def _resampled_usd(contender: Contender, cost: CostSummary, rows: np.ndarray) -> np.ndarray | None:
    """Mean price of a task, shape (N_RESAMPLES,); where all is answered here it does not vary."""
    if cost.usd_per_1000 is None:
        return None
    paid = _paid_usd(contender) if is_remote(contender.candidate) else None
    if paid is None or len(paid) != rows.shape[1]:
        return np.full(len(rows), cost.usd_per_1000 / 1000)
    here_usd = cost.usd_per_1000 / 1000 - float(paid.mean())
    return np.asarray(here_usd + paid[rows].mean(axis=1))


def _compared(
    cost: CostSummary, base: CostSummary, times: np.ndarray | None, money: np.ndarray | None
) -> CostSummary:
    """With its ratio to the incumbent's money, or else mean latency."""
    if cost is base:
        one = Interval(value=1.0, low=1.0, high=1.0, method="the incumbent itself")
        return msgspec.structs.replace(
            cost,
            usd_ratio=one if base.usd_per_1000 else None,
            latency_ratio=None if times is None else one,
        )
    if times is not None:
        cost = msgspec.structs.replace(cost, latency_ratio=_latency_ratio(times))
    if money is None or not base.usd_per_1000 or cost.usd_per_1000 is None:
        return cost
    # Prices are given: what is uncertain is the throughput of this machine, and which requests come.
    spread = 1.0 + (cost.noise_share or 0.0)
    low, high = (float(x) for x in np.quantile(money, [0.025, 0.975]))
    ratio = Interval(
        value=cost.usd_per_1000 / base.usd_per_1000,
        low=low / spread,
        high=high * spread,
        method="prices as given, bootstrap over requests",
    )
    return msgspec.structs.replace(cost, usd_ratio=ratio)


def _latency_ratio(times: np.ndarray) -> Interval:
    low, middle, high = (float(x) for x in np.quantile(times, [0.025, 0.5, 0.975]))
    return Interval(value=middle, low=low, high=high, method="means, bootstrap over requests")
