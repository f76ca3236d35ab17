"""A real language model as judge: what it says by itself, and what its measured error makes of that.

The answers are sentences that people wrote of movies and of products (`sentiment_domains`), the question
is whether they say something good, and people's ratings are the truth. A small language model (GGUF, one
thread), through scorer `judge`, gives its verdict on each sentence once. Two made models then answer: one
gets 80 % right, the other 65 %, each answer a sentence drawn from the judged ones, so that truth and
verdicts are real and every share is known. Labels are drawn from the same sentences. Over many such draws
each interval is held against the truth:

- of the better one's share: the judge's own rate with Wilson's interval, `corrected_share`, and
  `prediction_powered_mean`;
- of the difference: the judge's own with a paired t, `corrected_difference`, `prediction_powered_mean`.

First with labels of movie sentences for answers about movies, then with the same labels for answers about
products, on which the judge may err otherwise: `corrected_...` assumes that it does not. The labels of
`prediction_powered_mean` are of the very answers judged, and alone they have an interval too.

    python benchmarks/judge.py --model qwen2.5-0.5b-q4.gguf --cache judgements.json
        [--sentences 100] [--answers 200] [--labels 100] [--draws 1000]

A judgement takes half a second on one core of its own; all draws together a minute.
"""

import argparse
import json
import os
import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np

from beside import SHARED, figure
from jettison.candidate import write_candidate
from jettison.errors import NotEnoughData
from jettison.evaluate.judge import LabelledAnswer, measure_judge
from jettison.evaluate.scorers import open_scorers, score_all
from jettison.files import link_or_copy, write_atomic
from jettison.model import Output
from jettison.stats.binomial import clopper_pearson, wilson
from jettison.stats.clustered import mean_difference_ci
from jettison.stats.interval import Interval
from jettison.stats.judged import (
    JudgeCounts,
    corrected_difference,
    corrected_share,
    prediction_powered_mean,
)
from jettison.task import Example

RUBRIC = "Is this sentence from a review positive? Answer with yes or no."
TEMPLATE = "{rubric}\n\n{answer}"
ASKED = Example(id="1", input="Say something good about it.")
LONGEST = 120
"""Characters of a sentence: a judgement takes as long as its text."""
SHARES = (0.8, 0.65)
"""Of right answers, of the two made models."""
SEED = 0


def sentences(domain: str, n: int) -> list[tuple[str, bool]]:
    """Text and whether it is good: half of them are, by people's mean rating."""
    path = SHARED / "data" / "sentiment_domains" / "sentiment_domains.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    found = {"positive": [], "negative": []}
    for row in rows:
        if row["domain"] == domain and row["label"] in found and len(row["text"]) <= LONGEST:
            found[row["label"]].append(row["text"])
    for texts in found.values():
        random.Random(SEED).shuffle(texts)
    return [(text, label == "positive") for label in found for text in found[label][: n // 2]]


def verdicts(model: Path, texts: Sequence[str], cache: Path) -> dict[str, float | None]:
    """The judge's verdict on each text, each asked once and kept in the cache, by model and question."""
    kept = json.loads(cache.read_text()) if cache.exists() else {}
    known = kept.setdefault(f"{model.name}, {model.stat().st_size} bytes: {RUBRIC}", {})
    new = [text for text in texts if text not in known]
    if not new:
        return dict(known)
    with tempfile.TemporaryDirectory() as folder:
        link_or_copy(model.resolve(), Path(folder) / "model.gguf")
        write_candidate(Path(folder), name=model.stem, backend="llamacpp", labels=())
        settings = {"candidate": folder, "rubric": RUBRIC, "template": TEMPLATE}
        scorer: Any = open_scorers({"judge": settings})["judge"]
        try:
            for at in range(0, len(new), 10):
                some = new[at : at + 10]
                pairs = [(ASKED, Output(label=text, confidence=1.0)) for text in some]
                known |= {t: s.value for t, s in zip(some, score_all(scorer, pairs), strict=True)}
                write_atomic(cache, json.dumps(kept))
        finally:
            scorer.close()
    return dict(known)


class Pool:
    """Judged sentences to draw answers from: verdicts of the good and of the bad ones, 0 or 1."""

    def __init__(self, rows: Sequence[tuple[str, bool]], said: Mapping[str, float | None]) -> None:
        known = [(good, float(said[text])) for text, good in rows if said[text] is not None]
        self.right, self.passed = np.array(known, float).T
        self.errors = measure_judge(
            None,
            [
                LabelledAnswer(example=ASKED, answer="", right=bool(good), passed=bool(passed))
                for good, passed in known
            ],
        )

    def draw(self, rights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Verdicts on answers that are right or wrong as asked, shape as `rights`."""
        good, bad = self.passed[self.right == 1], self.passed[self.right == 0]
        return np.where(rights == 1, rng.choice(good, rights.shape), rng.choice(bad, rights.shape))


def covered(
    labelled: Pool, judged: Pool, *, n_answers: int, n_labels: int, n_draws: int
) -> list[dict[str, Any]]:
    """Of each way: how often its interval holds the truth, how wide it is, how often it refuses."""
    rng = np.random.default_rng(SEED)
    found: dict[str, list[Interval | None]] = {}
    for _ in range(n_draws):
        said = rng.random(n_labels) < 0.5
        passed = labelled.draw(said.astype(float), rng)
        rights = (rng.random((n_answers, 2)) < SHARES).astype(float)
        verdict = judged.draw(rights, rng)
        ways = _ways(_counts(said, passed), verdict, rights, n_labels)
        for name, way in ways.items():
            found.setdefault(name, []).append(_or_none(way))
    truths = {"share": SHARES[0], "difference": SHARES[0] - SHARES[1]}
    return [_told(name, truths[name.split(",")[0]], rows) for name, rows in found.items()]


def _ways(
    counts: JudgeCounts, verdict: np.ndarray, rights: np.ndarray, n_labels: int
) -> dict[str, Callable[[], Interval]]:
    (a, b), (true_a, true_b) = verdict.T, rights.T
    n, k = len(a), n_labels
    seen, true = a - b, true_a - true_b
    half = k // 2  # a labelled pair is two labelled answers
    return {
        "share, judge alone": lambda: wilson(int(a.sum()), n),
        "share, labels alone": lambda: wilson(int(true_a[:k].sum()), k),
        "share, corrected": lambda: corrected_share(int(a.sum()), n, counts),
        "share, prediction-powered": lambda: prediction_powered_mean(true_a[:k], a[:k], a[k:]),
        "difference, judge alone": lambda: mean_difference_ci(a, b),
        "difference, labels alone": lambda: mean_difference_ci(true_a[:half], true_b[:half]),
        "difference, corrected": lambda: corrected_difference(a, b, counts),
        "difference, prediction-powered": lambda: prediction_powered_mean(
            true[:half], seen[:half], seen[half:]
        ),
    }


def _counts(right: np.ndarray, passed: np.ndarray) -> JudgeCounts:
    return JudgeCounts(
        n_right=int(right.sum()),
        n_right_passed=int(passed[right].sum()),
        n_wrong=int((~right).sum()),
        n_wrong_failed=int((1 - passed[~right]).sum()),
    )


def _or_none(way: Callable[[], Interval]) -> Interval | None:
    try:
        return way()
    except NotEnoughData:
        return None


def _told(name: str, truth: float, found: Sequence[Interval | None]) -> dict[str, Any]:
    given = [one for one in found if one is not None]
    return {
        "name": name,
        "truth": round(truth, 4),
        "hits": sum(one.low <= truth <= one.high for one in given),
        "n": len(given),
        "mean_value": round(float(np.mean([one.value for one in given])), 4) if given else None,
        "mean_width": round(float(np.mean([one.high - one.low for one in given])), 4) if given else None,
        "refused": len(found) - len(given),
    }


def main(given: argparse.Namespace) -> None:
    rows = {name: sentences(name, given.sentences) for name in ("movie_reviews", "product_reviews")}
    said = verdicts(given.model, [text for some in rows.values() for text, _ in some], given.cache)
    pools = {name: Pool(some, said) for name, some in rows.items()}
    for name, pool in pools.items():
        for what in ("sensitivity", "specificity"):
            seen = getattr(pool.errors, what)
            print(figure(f"{what} on {name}", seen.value, seen.low, seen.high, "share", "people"))
    for name, pool in pools.items():
        sizes = {"n_answers": given.answers, "n_labels": given.labels, "n_draws": given.draws}
        for one in covered(pools["movie_reviews"], pool, **sizes):
            told = {key: value for key, value in one.items() if key not in ("name", "hits", "n")}
            labels = "movie_reviews" if "corrected" in one["name"] else name
            of = "" if "alone" in one["name"] else f", labels of {labels}"
            where = f"{one['name']}, answers of {name}{of}"
            if not one["n"]:
                print(json.dumps({"name": where, **told}))
                continue
            seen = clopper_pearson(one["hits"], one["n"])
            print(figure(where, one["hits"] / one["n"], seen.low, seen.high, "coverage", "truth", **told))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--sentences", type=int, default=100, help="of each domain")
    parser.add_argument("--answers", type=int, default=200)
    parser.add_argument("--labels", type=int, default=100)
    parser.add_argument("--draws", type=int, default=1000)
    main(parser.parse_args())
