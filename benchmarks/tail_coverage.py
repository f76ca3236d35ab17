"""How often the interval of p99 covers the truth under queueing, beside SciPy's order statistics.

Two servers, Poisson arrivals: one with exponential service times (M/M/1, whose p99 is known in
closed form), and one that takes up to 8 waiting requests at once for 2 ms + 1 ms each (its p99 is
that of one run of four million). Declining to give an upper bound counts as covering, and is
counted. Run: `make bench NAME=tail_coverage` (two minutes).
"""

import argparse
from math import log

import numpy as np
from scipy import stats

from beside import figure
from jettison.stats.tail import percentile, percentile_interval

SHARE = 0.99
BATCH, FIXED_S, EACH_S = 8, 0.002, 0.001


def queue_latencies(rho: float, n: int, rng: np.random.Generator) -> np.ndarray:
    """Time in an M/M/1 system of n consecutive customers, mean service 1, started in equilibrium."""
    gaps, services = rng.exponential(1 / rho, n), rng.exponential(1.0, n)
    first = rng.exponential(1 / (1 - rho)) if rng.random() < rho else 0.0
    steps = np.concatenate([[first], services[:-1] - gaps[1:]])
    # Lindley's recursion: a walk less its running minimum, never below 0.
    walk = np.cumsum(steps)
    return walk - np.minimum(0.0, np.minimum.accumulate(walk)) + services


def true_queue_p99(rho: float) -> float:
    """Time in the system is exponential with rate 1 - rho."""
    return -log(1 - SHARE) / (1 - rho)


def batch_latencies(rho: float, n: int, rng: np.random.Generator, *, burn_in: int = 2000) -> np.ndarray:
    """Latencies behind a server that takes what waits, 8 at most, at a time; rho of its full rate."""
    full_rate = BATCH / (FIXED_S + EACH_S * BATCH)
    due = np.cumsum(rng.exponential(1 / (rho * full_rate), n + burn_in))
    times: list[float] = due.tolist()
    done = np.empty(len(times))
    head, free_s = 0, 0.0
    while head < len(times):
        start_s = max(free_s, times[head])
        tail = head + 1
        while tail < len(times) and tail - head < BATCH and times[tail] <= start_s:
            tail += 1
        free_s = start_s + FIXED_S + EACH_S * (tail - head)
        done[head:tail] = free_s
        head = tail
    return (done - due)[burn_in:]


def coverage(server: str, rho: float, n: int, runs: int, seed: int) -> dict[str, float]:
    """Shares of the runs in which each interval held the truth, and in which ours declined."""
    rng = np.random.default_rng([seed, int(rho * 100), len(server)])
    draw = queue_latencies if server == "M/M/1" else batch_latencies
    truth = true_queue_p99(rho) if server == "M/M/1" else percentile(draw(rho, 4_000_000, rng), SHARE)
    ours = declined = plain = 0
    for _ in range(runs):
        samples = draw(rho, n, rng)
        found = percentile_interval(samples, SHARE)
        ours += found.low <= truth and (found.high is None or truth <= found.high)
        declined += found.high is None
        exact = stats.quantile_test(samples, q=truth, p=SHARE).confidence_interval()
        plain += bool(exact.low <= truth <= exact.high)
    return {"ours": ours / runs, "declined": declined / runs, "plain": plain / runs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--n", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    lines = []
    print("server    rho   n       ours  declines  plain order statistics")
    for server in ("M/M/1", "batching"):
        for rho in (0.3, 0.5, 0.8):
            found = coverage(server, rho, arguments.n, arguments.runs, arguments.seed)
            print(
                f"{server:<9} {rho:.1f}  {arguments.n:>6}  {found['ours']:.3f}  {found['declined']:.3f}"
                f"     {found['plain']:.3f}",
                flush=True,
            )
            name = f"p99_coverage_{'' if server == 'M/M/1' else 'batching_'}rho{int(rho * 10):02d}"
            hits = round(found["ours"] * arguments.runs)
            held = stats.binomtest(hits, arguments.runs).proportion_ci(0.95, method="wilson")
            lines.append(
                figure(
                    name,
                    found["ours"],
                    held.low,
                    held.high,
                    "share of runs covered by the 95 % interval",
                    "scipy.stats.quantile_test on the same runs",
                    plain=round(found["plain"], 3),
                    declined=round(found["declined"], 3),
                    n=arguments.n,
                    runs=arguments.runs,
                )
            )
    print("\n".join(lines))


if __name__ == "__main__":
    main()
