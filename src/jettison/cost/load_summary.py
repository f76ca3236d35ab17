"""One target's blocks as figures: percentiles with their intervals, ratios of paired blocks, bytes."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from jettison.cost.calls import Calls
from jettison.cost.load_types import Tail
from jettison.cost.ratio import openings_interval
from jettison.decision import CDF_SHARES, Interval
from jettison.errors import NotEnoughData
from jettison.stats.tail import percentile, percentile_interval

LEAST_FOR_TAIL_RATIO = 59
"""Fewest requests of a block whose 95th percentile is compared: log(0.05) / log(0.95)."""
PACKET_BYTES = 40
"""Least headers of IPv4 and TCP of one packet; with options, IPv6 or Ethernet there are more."""


def tail_of(samples: np.ndarray, share: float) -> Tail | None:
    """A percentile in the order of time, with its interval; None without samples."""
    if not len(samples):
        return None
    try:
        found = percentile_interval(samples, share)
    except NotEnoughData as error:
        return Tail(value_s=finite(percentile(samples, share)), low_s=None, high_s=None, reason=str(error))
    return Tail(
        value_s=finite(found.value),
        low_s=finite(found.low),
        high_s=found.high,
        n_missing=found.n_missing,
        reason=found.words,
        method=found.method,
    )


def percentile_or_none(samples: np.ndarray, share: float) -> float | None:
    """A percentile without interval; None without samples or among the failed."""
    return finite(percentile(samples, share)) if len(samples) else None


def cdf_of(samples: np.ndarray) -> tuple[float | None, ...]:
    """Latencies at `CDF_SHARES`."""
    ordered = np.sort(samples)
    ranks = [max(0, int(np.ceil(share * len(ordered) - 1e-9)) - 1) for share in CDF_SHARES]
    return tuple(finite(float(ordered[rank])) for rank in ranks)


Parts = Sequence[Sequence[Calls]]
"""Blocks of each opening, in the order of time."""


def block_ratio(
    parts: Parts, base: Parts, share: float, *, is_open: bool, twin: Parts = ()
) -> Interval | None:
    """Ratio of a percentile of paired blocks.

    Args:
        parts: Of a target.
        base: Of the one it is compared with: the same schedules.
        share: Which percentile.
        is_open: Whether requests had a time at which they were due.
        twin: Of the base's twin: no interval is narrower than what varies among equals.

    Returns:
        With an interval over openings; None with too few, or where one lies among the failed.
    """
    ratios = _percentile_ratios(parts, base, share, is_open=is_open)
    twins = _percentile_ratios(twin, base, share, is_open=is_open)
    return _ratio(ratios, twins, f"paired blocks' p{100 * share:g}")


def throughput_ratio(parts: Parts, base: Parts, *, twin: Parts = ()) -> Interval | None:
    """Ratio of tasks a second of paired blocks."""

    def ratios(ours: Parts) -> list[list[float]]:
        return [[_rate(a) / _rate(b) for a, b in part if _rate(b) > 0] for part in _pairs(ours, base)]

    return _ratio(ratios(parts), ratios(twin), "paired blocks' tasks per second")


def cpu_ratio(parts: Parts, base: Parts, *, twin: Parts = ()) -> Interval | None:
    """Ratio of CPU-seconds of paired blocks; None where the work is not done here."""

    def ratios(ours: Parts) -> list[list[float]]:
        return [
            [(a.cpu_s / len(a.rows)) / (b.cpu_s / len(b.rows)) for a, b in part if a.cpu_s and b.cpu_s]
            for part in _pairs(ours, base)
        ]

    return _ratio(ratios(parts), ratios(twin), "paired blocks' CPU-seconds")


def cpu_per_task(blocks: Sequence[Calls]) -> float | None:
    """CPU-seconds of a task in some blocks; None where the work is not done here."""
    known = [block for block in blocks if block.cpu_s is not None and len(block.rows)]
    n = sum(len(block.rows) for block in known)
    return sum(block.cpu_s or 0.0 for block in known) / n if n else None


def times_of(block: Calls, *, is_open: bool) -> np.ndarray:
    """Latency from when each was due; of a closed loop, which has no such moment, the service time."""
    return block.latency_s if is_open else block.service_s


def failures_of(blocks: Sequence[Calls]) -> dict[str, int]:
    """Reasons of failures, the commonest ten, and how often each came."""
    counted = Counter(error[:120] for block in blocks for error in block.errors if error)
    return dict(counted.most_common(10))


class WireShares:
    """Bytes per task; None where the kernel does not tell or nothing went over a wire."""

    def __init__(self, blocks: Sequence[Calls]) -> None:
        self.payload_bytes = self.protocol_bytes = self.packet_bytes = self.resent_bytes = None
        wires = [block.wire for block in blocks if block.wire is not None]
        n = sum(len(block.rows) for block in blocks)
        if not wires or len(wires) < len(blocks) or not n:
            return
        payload = sum(sum(block.payload_bytes) for block in blocks)
        streams = sum(wire.sent_bytes + wire.received_bytes for wire in wires)
        self.payload_bytes = payload / n
        self.protocol_bytes = max(0.0, (streams - payload) / n)
        self.packet_bytes = PACKET_BYTES * sum(wire.n_segments for wire in wires) / n
        resent = [wire.resent_bytes for wire in wires]
        if None not in resent:
            self.resent_bytes = sum(r for r in resent if r is not None) / n


def mean_or_none(values: Sequence[int | None]) -> float | None:
    """Mean of the known; None when none is."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def finite(value: float) -> float | None:
    """The value; None where it is infinite: among the failed."""
    return value if np.isfinite(value) else None


def _rate(block: Calls) -> float:
    return float(block.is_ok.sum()) / block.wall_s if block.wall_s > 0 else 0.0


def _percentile_ratios(parts: Parts, base: Parts, share: float, *, is_open: bool) -> list[list[float]]:
    """Opening by opening; empty where a block is too short for the percentile."""
    pairs = _pairs(parts, base)
    if len(pairs) > 1:
        # One figure of all the blocks of an opening: of single ones, a high percentile is mostly noise.
        grouped = [[part] for part in pairs]
    else:
        grouped = [[[pair] for pair in part] for part in pairs]
    times = [
        [
            (_times([a for a, _ in group], is_open=is_open), _times([b for _, b in group], is_open=is_open))
            for group in part
        ]
        for part in grouped
    ]
    if share > 0.5 and any(min(len(a), len(b)) < LEAST_FOR_TAIL_RATIO for part in times for a, b in part):
        return []
    return [[percentile(a, share) / percentile(b, share) for a, b in part] for part in times]


def _pairs(parts: Parts, base: Parts) -> list[list[tuple[Calls, Calls]]]:
    """Blocks that both played, opening by opening; an opening without any is left out."""
    pairs = [
        [(a, b) for a, b in zip(ours, theirs, strict=False) if len(a.rows) and len(b.rows)]
        for ours, theirs in zip(parts, base, strict=False)
    ]
    return [part for part in pairs if part]


def _times(blocks: Sequence[Calls], *, is_open: bool) -> np.ndarray:
    return np.concatenate([times_of(block, is_open=is_open) for block in blocks])


def _ratio(
    ratios: Sequence[Sequence[float]],
    twins: Sequence[Sequence[float]],
    of: str,
) -> Interval | None:
    flat = [ratio for part in ratios for ratio in part]
    if not flat or not np.isfinite(flat).all() or min(flat) <= 0:
        return None
    return openings_interval(ratios, twins=twins, of=f"ratios of {of}")
