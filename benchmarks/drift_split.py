"""Are CLINC150's val and test queries of one kind? Judged by two reference methods that are not ours.

    python benchmarks/drift_split.py [--texts 2000] [--permutations 999]

A classifier two-sample test on words and pairs of words (TF-IDF, ridge) whose folds never cut a group of
near-duplicates, and maximum mean discrepancy on the same vectors, each with a permutation null that moves
whole groups. Beside them random halves of the pool, drawn by group and text by text, which must not differ,
and what `jettison drift` says of the same texts. Prints one JSON object a figure.
"""

import argparse
import json
from collections.abc import Sequence

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.stats import rankdata
from sklearn.feature_extraction.text import TfidfVectorizer

from beside import SHARED, figure
from jettison.evaluate.profile import reference_sketch
from jettison.monitor.drift import judge_drift
from jettison.monitor.drift_window import Window
from jettison.record import Record

NEAR = 0.6
"""Of the words of two queries of one intent that both have: from there on they are one group."""
FOLDS, RIDGE = 5, 1.0


def main() -> None:
    """Compare the two splits, and halves of both together."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--texts", type=int, default=2000, help="of each side")
    parser.add_argument("--permutations", type=int, default=999)
    given = parser.parse_args()
    lines = (SHARED / "data" / "clinc150" / "clinc150.jsonl").read_text().splitlines()
    rows = [
        row for row in map(json.loads, lines) if row["label"] != "oos" and row["split"] in ("val", "test")
    ]
    rng = np.random.default_rng(0)
    groups = near_duplicates(rows)
    is_test = np.array([row["split"] == "test" for row in rows])
    names, group_of = np.unique(groups, return_inverse=True)
    by_group, by_text = (rng.random(len(names)) < 0.5)[group_of], rng.random(len(rows)) < 0.5
    sides = {"val against test": is_test, "halves by group": by_group, "halves by text": by_text}
    for name, side in sides.items():
        chosen = np.concatenate(
            [rng.choice(np.flatnonzero(side == one), given.texts, replace=False) for one in (False, True)]
        )
        texts = [rows[place]["text"] for place in chosen]
        tell(name, texts, side[chosen], group_of[chosen], n_permutations=given.permutations, rng=rng)


def near_duplicates(rows: Sequence[dict]) -> np.ndarray:
    """Group of each query, shape (n,): chains of near-duplicates within an intent."""
    words = [frozenset(row["text"].split()) for row in rows]
    parent = list(range(len(rows)))

    def root(place: int) -> int:
        while parent[place] != place:
            place = parent[place]
        return place

    members: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        for other in members.setdefault(row["label"], []):
            if len(words[place] & words[other]) >= NEAR * len(words[place] | words[other]):
                parent[root(place)] = root(other)
        members[row["label"]].append(place)
    return np.array([root(place) for place in range(len(rows))])


def tell(
    name: str, texts: list[str], side: np.ndarray, groups: np.ndarray, *, n_permutations: int,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    """Print the figures of one comparison."""
    vectors = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True).fit_transform(texts)
    kernel = (vectors @ vectors.T).toarray()
    sides = np.column_stack([side, *(permuted(side, groups, rng) for _ in range(n_permutations))]).astype(
        float
    )
    facts = {"what": name, "texts": len(texts), "groups": len(np.unique(groups))}
    for method, values in (
        ("auc_of_words", areas(held_out(kernel, sides, groups, rng), sides)),
        ("mmd_of_words", discrepancies(np.exp(kernel - 1), sides)),
    ):
        null = values[1:]
        p = (1 + int((null >= values[0]).sum())) / (1 + n_permutations)
        low, high = np.quantile(null, [0.025, 0.975])
        against = "low to high: 95 % of permutations"
        print(figure(method, values[0], low, high, "", against, **facts, p_value=round(p, 4)), flush=True)
    before, after = ([t for t, s in zip(texts, side, strict=True) if s == one] for one in (False, True))
    window = Window(reference_sketch([record(t) for t in before], before))
    window.take([record(text) for text in after])
    for test in judge_drift(window).tests:
        if test.name in ("classifier", "words"):
            told = {"name": f"jettison_{test.name}_p", "value": test.p_value, "moved": test.moved}
            print(
                json.dumps(told | {"low": None, "high": None, "unit": "", "against": "none"} | facts),
                flush=True,
            )


def permuted(side: np.ndarray, groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Sides moved about between groups of one size, whole."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    found = side.copy()
    by_size: dict[int, list[np.ndarray]] = {}
    for members in np.split(order, starts[1:]):
        by_size.setdefault(len(members), []).append(members)
    for some in by_size.values():
        places = np.array(some)
        found[places] = side[places[rng.permutation(len(places))]]
    return found


def held_out(
    kernel: np.ndarray, sides: np.ndarray, groups: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Scores by kernel ridge of queries whose group was not learned on, a column for each way to side."""
    names, place = np.unique(groups, return_inverse=True)
    fold = rng.integers(0, FOLDS, len(names))[place]
    scores = np.empty_like(sides)
    for one in range(FOLDS):
        known, asked = np.flatnonzero(fold != one), np.flatnonzero(fold == one)
        means = sides[known].mean(axis=0)
        factor = cho_factor(kernel[np.ix_(known, known)] + RIDGE * np.eye(len(known)))
        scores[asked] = kernel[np.ix_(asked, known)] @ cho_solve(factor, sides[known] - means)
    return scores


def areas(scores: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """Area under the ROC of each column."""
    ranks = rankdata(scores, axis=0)
    n = sides.sum(axis=0)
    return np.asarray(((ranks * sides).sum(axis=0) - n * (n + 1) / 2) / (n * (len(sides) - n)))


def discrepancies(kernel: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """Squared MMD of each column."""
    weights = sides / sides.sum(axis=0) - (1 - sides) / (1 - sides).sum(axis=0)
    return np.asarray((weights * (kernel @ weights)).sum(axis=0))


def record(text: str) -> Record:
    """A text without an answer."""
    return Record(candidate="none", example_id="-", split="live", output="-", input=text)


if __name__ == "__main__":
    main()
