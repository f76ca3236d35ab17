"""Percentiles under load from us and from MLPerf's LoadGen, of one target on one schedule.

LoadGen draws its Poisson schedule from a seed (std::mt19937 and std::exponential_distribution); here the
same moments are computed again, so both sides ask the same inputs at the same times. The target answers
one request at a time, first come first served, each input in a time of its own (exponential, mean 5 ms).
Run: `make bench NAME=loadgen_parity` (two minutes). Needs `mlcommons-loadgen`.
"""

import argparse
import queue
import re
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from beside import figure
from jettison.cost.play_local import play_local
from jettison.model import Output
from jettison.stats.tail import percentile

SHARES = (0.5, 0.9, 0.99)
N_INPUTS, MEAN_S = 64, 0.005


class Pair(NamedTuple):
    """Percentiles at `SHARES` of both sides of one schedule, and what the timers do here."""

    ours_s: list[float]
    loadgen_s: list[float]
    floor_s: float
    """99th percentile of how much longer than asked the target slept, the worse of both sides: what the
    timers of this machine did while it was measured."""
    schedule_off_s: float
    """Median of how much later than computed LoadGen issued a query."""


def service_times(seed: int) -> list[float]:
    return [float(t) for t in np.random.default_rng(seed).exponential(MEAN_S, N_INPUTS)]


def loadgen_schedule(rate_per_s: float, n: int, seed: int) -> list[float]:
    """When LoadGen issues its queries in the server scenario: the first at once, then Poisson gaps."""
    # An integer seeds NumPy's RandomState as it does std::mt19937; generate_canonical takes two words.
    words = np.random.RandomState(seed).randint(0, 2**32, size=2 * (n - 1), dtype=np.uint32).astype(float)
    uniform = (words[0::2] + words[1::2] * 2.0**32) / 2.0**64
    return [0.0, *np.cumsum(-np.log1p(-uniform) / rate_per_s).tolist()]


def sleep(time_s: float) -> float:
    """Seconds slept longer than asked."""
    due = time.perf_counter() + time_s
    time.sleep(time_s)
    return time.perf_counter() - due


def run_loadgen(rate_per_s: float, n: int, seed: int, times_s: list[float]) -> "dict[str, list[float]]":
    """LoadGen's percentiles, and each query's sample and moment of issue."""
    import mlperf_loadgen as loadgen

    settings = loadgen.TestSettings()
    settings.scenario, settings.mode = loadgen.TestScenario.Server, loadgen.TestMode.PerformanceOnly
    settings.server_target_qps = rate_per_s
    settings.server_target_latency_ns = 10**9
    settings.min_query_count = settings.max_query_count = n
    settings.min_duration_ms = 0
    settings.schedule_rng_seed, settings.sample_index_rng_seed, settings.qsl_rng_seed = seed, 1, 2
    waiting: queue.SimpleQueue[object] = queue.SimpleQueue()
    rows: list[float] = []
    issued_s: list[float] = []
    overslept_s: list[float] = []

    def issue(samples: list) -> None:  # type: ignore[type-arg]
        now = time.perf_counter()
        for sample in samples:
            issued_s.append(now)
            rows.append(sample.index)
            waiting.put((sample.id, sample.index))

    def serve() -> None:
        while (query := waiting.get()) is not None:
            overslept_s.append(sleep(times_s[query[1]]))  # type: ignore[index]
            loadgen.QuerySamplesComplete([loadgen.QuerySampleResponse(query[0], 0, 0)])  # type: ignore[index]

    server = threading.Thread(target=serve)
    server.start()
    target = loadgen.ConstructSUT(issue, lambda: None)
    library = loadgen.ConstructQSL(N_INPUTS, N_INPUTS, lambda _: None, lambda _: None)
    with tempfile.TemporaryDirectory() as folder:
        output, logs = loadgen.LogOutputSettings(), loadgen.LogSettings()
        output.outdir, output.copy_summary_to_stdout = folder, False
        logs.log_output, logs.enable_trace = output, False
        loadgen.StartTestWithLogSettings(target, library, settings, logs)
        waiting.put(None)
        server.join()
        loadgen.DestroyQSL(library)
        loadgen.DestroySUT(target)
        summary = (Path(folder) / "mlperf_log_summary.txt").read_text()
    told = [re.search(rf"{100 * s:.2f} percentile latency \(ns\)\s*: (\d+)", summary) for s in SHARES]
    return {
        "percentiles_s": [int(found[1]) / 1e9 for found in told if found],
        "rows": rows,
        "overslept_s": overslept_s,
        "issued_s": [t - issued_s[0] for t in issued_s],
    }


def compare(*, rate_per_s: float, n: int, seed: int) -> Pair:
    """Both sides, one after the other."""
    times_s = service_times(seed)
    due = loadgen_schedule(rate_per_s, n, seed)
    theirs = run_loadgen(rate_per_s, n, seed, times_s)
    overslept_s: list[float] = []

    def predict(asked: list[float]) -> list[Output]:
        overslept_s.append(sleep(asked[0]))
        return [Output(label="done", confidence=1.0)]

    calls = play_local(predict, times_s, [int(row) for row in theirs["rows"]], due)
    return Pair(
        [percentile(calls.latency_s, share) for share in SHARES],
        theirs["percentiles_s"],
        max(percentile(late, 0.99) for late in (overslept_s, theirs["overslept_s"])),
        float(np.median(np.subtract(theirs["issued_s"], due))),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--rate", type=float, default=100.0)
    parser.add_argument("--n", type=int, default=1000)
    arguments = parser.parse_args()
    pairs = []
    for number in range(arguments.pairs):
        pairs.append(compare(rate_per_s=arguments.rate, n=arguments.n, seed=100 + number))
        ours, theirs, floor_s, off_s = pairs[-1]
        told = "  ".join(
            f"p{100 * share:g} {1000 * a:.2f} / {1000 * b:.2f}"
            for share, a, b in zip(SHARES, ours, theirs, strict=True)
        )
        print(
            f"pair {number + 1}: ours / LoadGen, ms: {told}; timers late by {1000 * floor_s:.2f}, "
            f"LoadGen's queries by {1000 * off_s:.2f}",
            flush=True,
        )
    floors = [pair.floor_s for pair in pairs]
    for index, share in enumerate(SHARES):
        off = [pair.ours_s[index] - pair.loadgen_s[index] for pair in pairs]
        print(
            figure(
                f"loadgen_difference_p{100 * share:g}_s",
                float(np.median(off)),
                min(off),
                max(off),
                "s, ours less LoadGen's; median, least and most of the pairs",
                "mlcommons-loadgen, same target, inputs and schedule",
                floor_s=[round(f, 6) for f in floors],
                loadgen_s=[round(pair.loadgen_s[index], 6) for pair in pairs],
            )
        )


if __name__ == "__main__":
    main()
