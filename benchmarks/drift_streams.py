"""How soon the streaming watch finds a new domain in a fifth of the traffic: real texts, many streams.

Texts are put into two halves by a hash. What is tuned is tuned on one (`--half tuning`), what
is reported is of the other.
"""

import statistics
import zlib
from collections.abc import Iterator

import numpy as np

from beside import figure
from drift_answers import Answers, background_texts
from jettison.evaluate.profile import reference_sketch
from jettison.monitor.drift_stream import DriftWatch
from jettison.monitor.log import News, Place
from jettison.record import Record
from jettison.stats.binomial import clopper_pearson

BEFORE, AFTER, STEP, NEW_SHARE, ALPHA = 500, 500, 25, 0.2, 0.01
NEW = {
    "clinc150": ("out of scope",),
    "sentiment": ("tweets", "product_reviews", "news_editorials"),
}


def stream_figures(told: dict[str, Answers], *, n_streams: int, half: str) -> Iterator[str]:
    """Of each new domain in how many streams it is found within 500 requests; how many clean ones alarm."""
    for task, answers in told.items():
        records = answers["reference"]
        texts = [str(record.input) for record in records]
        sketch = reference_sketch(records, texts, background=background_texts(task))
        for domain in (None, *NEW[task]):
            found, first, by = 0, [], {}
            for seed in range(n_streams):
                rng = np.random.default_rng([seed, zlib.crc32(half.encode())])
                watch = DriftWatch(sketch, alpha=ALPHA, seed=seed)
                after = when_found(watch, stream(rng, answers, domain, half))
                if after is not None and (after > 0 or domain is None):
                    found += 1
                    first.append(after)
                    for one in watch.status():
                        if one.has_drifted:
                            by[one.stream] = by.get(one.stream, 0) + 1
            seen = clopper_pearson(found, n_streams)
            facts = {
                "task": task,
                "new": domain or "nothing",
                "median_requests": statistics.median(first) if first else None,
                "found_by": dict(sorted(by.items(), key=lambda item: -item[1])),
                "streams": n_streams,
                "half": half,
            }
            name = "false_alarms" if domain is None else "found_in_500"
            yield figure(name, seen.value, seen.low, seen.high, "share of streams", "none", **facts)


def stream(rng: np.random.Generator, answers: Answers, domain: str | None, half: str) -> list[Record]:
    """500 clean requests, then 500 with a fifth of the new domain; no text twice where there are enough."""
    clean = of_half(answers["clean"], half)
    made = [clean[place] for place in _drawn(rng, len(clean), BEFORE + AFTER)]
    if domain is None:
        return made
    new = of_half(answers[domain], half)
    is_new = rng.random(AFTER) < NEW_SHARE
    for place, other in zip(np.flatnonzero(is_new), _drawn(rng, len(new), int(is_new.sum())), strict=True):
        made[BEFORE + place] = new[other]
    return made


def when_found(watch: DriftWatch, records: list[Record]) -> int | None:
    """Requests after the change at which a look finds drift, negative before it; None: not at all."""
    for start in range(0, len(records), STEP):
        part = tuple(records[start : start + STEP])
        watch.take(News(records=part, feedback=(), place=Place(), is_all=True))
        if watch.has_drifted:
            return start + STEP - BEFORE
    return None


def of_half(records: list[Record], half: str) -> list[Record]:
    """Those whose text falls into this half."""
    wanted = 0 if half == "tuning" else 1
    return [record for record in records if zlib.crc32(str(record.input).encode()) % 2 == wanted]


def _drawn(rng: np.random.Generator, n: int, size: int) -> np.ndarray:
    return rng.permutation(n)[:size] if size <= n else rng.integers(0, n, size)
