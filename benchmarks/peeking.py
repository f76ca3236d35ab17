"""How often does a look after every request promote or roll back by mistake? A/A, and at the margin.

Simulated experiments in which both arms are the same model are looked at after every request. Ours
promises at most alpha each way; beside it stands the t test that teams look at the same way. Then a
candidate at the margin's very boundary, a planted loss of three points from the beginning and after a long
good time, and the sample-ratio test.
Prints one JSON object a figure.
"""

import argparse
import json

import numpy as np
from scipy import stats

from jettison.monitor.plan import LATE_SHARE
from jettison.stats.bernstein_sequence import EmpiricalBernsteinSequence, arm_increments
from jettison.stats.betting_sequence import BettingSequence
from jettison.stats.binomial import clopper_pearson
from jettison.stats.late_loss import LateLoss
from jettison.stats.mixtures import SRM_ALPHA, SRM_STRENGTH
from jettison.stats.sequential_planning import pairs_to_find, requests_to_find

ALPHA = 0.025
CHUNK = 100
ALPHA_BOUNDS, ALPHA_LATE = (1 - LATE_SHARE) * ALPHA, LATE_SHARE * ALPHA
"""Of a rollback by the bounds over everything, and by the watch for losses that begin late."""
GOOD, LATEST = 50_000, 60_000
"""Requests before a late loss, and after it at most."""
BATCH = 2_000
"""Experiments side by side."""


def share(name: str, hits: int, n: int, against: str) -> dict[str, object]:
    seen = clopper_pearson(hits, n)
    return {
        "name": name,
        "value": seen.value,
        "low": seen.low,
        "high": seen.high,
        "unit": "share",
        "against": against,
    }


def figure(name: str, seen: tuple[float, float, float], unit: str, against: str) -> dict[str, object]:
    return {
        "name": name,
        "value": seen[0],
        "low": seen[1],
        "high": seen[2],
        "unit": unit,
        "against": against,
    }


def shadow_errors(
    n_runs: int, n_pairs: int, *, harmful: float, beneficial: float, margin: float, seed: int
) -> dict[str, int]:
    """Experiments that ever crossed a bound, of ours and of the t test looked at from the 30th pair on."""
    rng = np.random.default_rng(seed)
    hits = {"promotion": 0, "rollback": 0, "naive promotion": 0, "naive rollback": 0}
    z = stats.norm.isf(ALPHA)
    for first in range(0, n_runs, BATCH):
        runs = min(BATCH, n_runs - first)
        ours = BettingSequence(
            alpha_low=ALPHA, alpha_high=ALPHA_BOUNDS, means=[(1 - margin) / 2], streams=(runs,)
        )
        late = LateLoss(alpha=ALPHA_LATE, limit=-margin, streams=(runs,))
        total, squares = np.zeros(runs), np.zeros(runs)
        up, down = np.zeros(runs, bool), np.zeros(runs, bool)
        for start in range(0, n_pairs, CHUNK):
            u = rng.random((runs, CHUNK))
            d = np.where(u < harmful, -1.0, np.where(u < harmful + beneficial, 1.0, 0.0))
            ours.update((d + 1) / 2)
            late.update(d)
            n = start + 1 + np.arange(CHUNK)
            sums, sq = total[:, None] + d.cumsum(1), squares[:, None] + (d**2).cumsum(1)
            mean = sums / n
            error = np.sqrt(np.maximum(sq / n - mean**2, 1e-12) / np.maximum(n - 1, 1))
            t = np.where(n >= 30, (mean + margin) / error, 0.0)
            usable = sq > 0  # without a flip there is no t
            up |= ((t > z) & usable).any(1)
            down |= ((t < -z) & usable).any(1)
            total, squares = sums[:, -1], sq[:, -1]
        hits["promotion"] += int(ours.is_below[:, 0].sum())
        hits["rollback"] += int((ours.is_above[:, 0] | late.is_found).sum())
        hits["naive promotion"] += int(up.sum())
        hits["naive rollback"] += int(down.sum())
    return hits


def split_errors(
    n_runs: int, n_keys: int, *, accuracy: float, part: float, loss: float, margin: float, seed: int
) -> dict[str, int]:
    """The same of randomised arms, with the two-sample t test beside."""
    rng = np.random.default_rng(seed)
    hits = {"promotion": 0, "rollback": 0, "naive promotion": 0, "naive rollback": 0}
    z, reach = stats.norm.isf(ALPHA), 1 / min(part, 1 - part)
    for first in range(0, n_runs, BATCH):
        runs = min(BATCH, n_runs - first)
        ours = EmpiricalBernsteinSequence(alpha_low=ALPHA, alpha_high=ALPHA_BOUNDS, streams=(runs,))
        late = LateLoss(alpha=ALPHA_LATE, limit=-margin, streams=(runs,))
        sums, counts = np.zeros((2, runs)), np.zeros((2, runs))
        up, down = np.zeros(runs, bool), np.zeros(runs, bool)
        for start in range(0, n_keys, CHUNK):
            arm = rng.random((runs, CHUNK)) < part
            y = (rng.random((runs, CHUNK)) < accuracy - loss * arm).astype(float)
            before = sums.sum(0)[:, None] + y.cumsum(1) - y
            center = (0.5 + before) / (1 + start + np.arange(CHUNK))
            increments = arm_increments(y, arm, np.full(arm.shape, part), center)
            ours.update(increments, low=-reach, high=reach)
            late.update(increments, low=-reach, high=reach)
            ys = [sums[k][:, None] + (y * (arm == bool(k))).cumsum(1) for k in (0, 1)]
            ns = [counts[k][:, None] + (arm == bool(k)).cumsum(1) for k in (0, 1)]
            with np.errstate(all="ignore"):
                p = [a / b for a, b in zip(ys, ns, strict=True)]
                error = np.sqrt(sum(q * (1 - q) / b for q, b in zip(p, ns, strict=True)))
                t = (p[1] - p[0] + margin) / error
            usable = np.isfinite(t) & (np.minimum(*ns) >= 30)
            up |= ((t > z) & usable).any(1)
            down |= ((t < -z) & usable).any(1)
            sums, counts = np.stack([a[:, -1] for a in ys]), np.stack([a[:, -1] for a in ns]).astype(float)
        hits["promotion"] += int((ours.low > -margin).sum())
        hits["rollback"] += int(((ours.high < -margin) | late.is_found).sum())
        hits["naive promotion"] += int(up.sum())
        hits["naive rollback"] += int(down.sum())
    return hits


def late_times(
    kind: str, n_runs: int, *, loss: float, margin: float, seed: int, good: int = GOOD, latest: int = LATEST
) -> tuple[np.ndarray, np.ndarray, int]:
    """Requests after a loss began until it is rolled back, by all that watches and by bounds alone.

    Before it the arms were equals: shadow pairs flip 2 % each way, arms at 50/50 are 90 % right.
    The last number is of runs that were rolled back before there was a loss.
    """
    rng = np.random.default_rng(seed)
    late = LateLoss(alpha=ALPHA_LATE, limit=-margin, streams=(n_runs,))
    pairs = BettingSequence(alpha_high=ALPHA_BOUNDS, means=[(1 - margin) / 2], streams=(n_runs,))
    arms = EmpiricalBernsteinSequence(alpha_high=ALPHA_BOUNDS, streams=(n_runs,))
    before, total = np.zeros(n_runs, bool), np.zeros(n_runs)
    found, alone = np.zeros(n_runs, int), np.zeros(n_runs, int)
    step = 250
    for start in range(0, good + latest, step):
        now = loss if start >= good else 0.0
        if kind == "shadow":
            u = rng.random((n_runs, step))
            z = np.where(u < 0.02 + now, -1.0, np.where(u < 0.04 + now, 1.0, 0.0))
            pairs.update((z + 1) / 2)
            late.update(z)
            by_bounds = pairs.is_above[:, 0]
        else:
            arm = rng.random((n_runs, step)) < 0.5
            y = (rng.random((n_runs, step)) < 0.9 - now * arm).astype(float)
            center = (0.5 + total[:, None] + y.cumsum(1) - y) / (1 + start + np.arange(step))
            total += y.sum(1)
            z = arm_increments(y, arm, np.full(arm.shape, 0.5), center)
            arms.update(z, low=-2.0, high=2.0)
            late.update(z, low=-2.0, high=2.0)
            by_bounds = arms.high < -margin
        if start < good:
            before |= by_bounds | late.is_found
            continue
        after = start + step - good
        alone[(alone == 0) & by_bounds] = after
        found[(found == 0) & (by_bounds | late.is_found)] = after
        if (found > 0).all() and (alone > 0).all():
            break
    kept = ~before
    times = [np.where(one == 0, latest + 1, one)[kept] for one in (found, alone)]
    return times[0], times[1], int(before.sum())


def ratio_times(n_runs: int, n_keys: int, *, drawn: float, seed: int) -> np.ndarray:
    """Keys after which the sample-ratio test at 50/50 calls the assignment broken; 0 is never."""
    rng = np.random.default_rng(seed)
    log_e, n1, found = np.zeros(n_runs), np.zeros(n_runs), np.zeros(n_runs, int)
    limit = np.log(1 / SRM_ALPHA)
    for n in range(n_keys):
        hit = rng.random(n_runs) < drawn
        counts = np.where(hit, n1, n - n1)
        log_e += np.log((SRM_STRENGTH * 0.5 + counts) / (SRM_STRENGTH + n) / 0.5)
        n1 += hit
        found[(found == 0) & (log_e >= limit)] = n + 1
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--pairs", type=int, default=3_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    n, pairs, seed = given.runs, given.pairs, given.seed
    lines = []
    worst = {"promotion": 0, "rollback": 0, "naive promotion": 0}
    settings = [
        (
            "A/A shadow, 2% flips each way",
            shadow_errors(n, pairs, harmful=0.02, beneficial=0.02, margin=0.0, seed=seed),
        ),
        (
            "A/A shadow, 10% flips each way",
            shadow_errors(n, pairs, harmful=0.1, beneficial=0.1, margin=0.0, seed=seed),
        ),
        (
            "A/A split 50/50, 90% right",
            split_errors(n, pairs, accuracy=0.9, part=0.5, loss=0.0, margin=0.0, seed=seed),
        ),
        (
            "A/A split 10/90, 90% right",
            split_errors(n, pairs, accuracy=0.9, part=0.1, loss=0.0, margin=0.0, seed=seed),
        ),
    ]
    for name, hits in settings:
        against = f"alpha {ALPHA}; {name}, a look after each of {pairs} requests"
        lines += [share(f"false {key}, {name}", found, n, against) for key, found in hits.items()]
        worst = {key: max(worst[key], hits[key]) for key in worst}
    for low in (0.005, 0.02, 0.1):
        hits = shadow_errors(n, pairs, harmful=low + 0.03, beneficial=low, margin=0.03, seed=seed)
        lines.append(
            share(
                f"false promotion at the margin, flips {low}/{low + 0.03}",
                hits["promotion"],
                n,
                f"alpha {ALPHA}",
            )
        )
        lines.append(
            share(
                f"naive false promotion at the margin, flips {low}/{low + 0.03}",
                hits["naive promotion"],
                n,
                f"alpha {ALPHA}",
            )
        )
        worst["promotion"] = max(worst["promotion"], hits["promotion"])
        worst["naive promotion"] = max(worst["naive promotion"], hits["naive promotion"])
    clean = ratio_times(n, 10_000, drawn=0.5, seed=seed)
    lines.append(
        share(
            "srm_false_alarm",
            int((clean > 0).sum()),
            n,
            f"alpha {SRM_ALPHA}, a look after each of 10,000 keys",
        )
    )
    # 51/49 where 50/50 was meant.
    tilted = ratio_times(500, 120_000, drawn=0.51, seed=seed)
    times = np.where(tilted == 0, 120_001, tilted)
    against = "51/49 where 50/50 was drawn, 500 runs"
    low, median, high = (float(np.quantile(times, q)) for q in (0.05, 0.5, 0.95))
    lines.append(figure("srm_found_after", (median, low, high), "keys", against))
    for loss, margin in ((0.03, 0.0), (0.03, 0.01)):
        stated = pairs_to_find(loss, margin=margin, alpha=ALPHA_BOUNDS, n_runs=400, seed=seed)
        most, median = stated.most or stated.limit, stated.median or stated.limit
        again = pairs_to_find(
            loss, margin=margin, alpha=ALPHA_BOUNDS, n_runs=2000, limit=most, seed=seed + 1
        )
        against = f"stated: 9 of 10 within the high value; median of 2,000 other runs {again.median}"
        name = f"rolled_back_after, shadow, loss {loss} margin {margin}"
        lines.append(figure(name, (median, median, most), "pairs", against))
        arms = requests_to_find(loss, margin=margin, alpha=ALPHA_BOUNDS, n_runs=100, seed=seed)
        most, median = arms.most or arms.limit, arms.median or arms.limit
        name = f"rolled_back_after, split 50/50, loss {loss} margin {margin}"
        against = "stated: 9 of 10 within the high value"
        lines.append(figure(name, (median, median, most), "keys", against))
    for kind, unit in (("shadow", "pairs"), ("split", "keys")):
        found, alone, n_before = late_times(kind, 200, loss=0.03, margin=0.0, seed=seed)
        for name, times in (("", found), (" by the bounds alone", alone)):
            median, most = float(np.median(times)), float(np.quantile(times, 0.9))
            against = f"200 runs, high is 9 of 10; {LATEST + 1:,} is never; {n_before} rolled back before"
            full = f"late_rollback_after{name}, {kind}, loss 0.03 after {GOOD:,} good, margin 0"
            lines.append(figure(full, (median, median, most), unit, against))
    named = {
        "false_promotion": "promotion",
        "false_rollback": "rollback",
        "naive_false_promotion": "naive promotion",
    }
    for name, key in named.items():
        lines.append(share(name, worst[key], n, f"alpha {ALPHA}; the worst of all settings above"))
    for line in lines:
        print(json.dumps(line))


if __name__ == "__main__":
    main()
