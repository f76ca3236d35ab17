"""Finds subgroups where a candidate loses most, and reports only those that a second half confirms.

Subgroups are what a person can name: values of the metadata and pairs of them, expected labels, words,
short and long texts; and clusters of texts, named by their telling words. They are searched on one half
of the examples, one after the other, without those already found. The few that stand out are tested on
the other half, where Holm's correction holds the chance of any false report at `alpha`.

Source: the split into search and validation as in Chung et al. 2019 (Slice Finder) and d'Eon et al. 2022;
Holm 1979 for the list.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike
from scipy.cluster.vq import kmeans2
from scipy.sparse import csc_matrix
from scipy.sparse.linalg import svds

from jettison.errors import InvalidInput, NotEnoughData
from jettison.evaluate.features import TextFeatures
from jettison.evaluate.suites.tier import rng_of
from jettison.stats.multiplicity import holm
from jettison.stats.subgroup import subgroup_p
from jettison.task import Example

LEAST_SHARE = 0.01
LEAST_EXAMPLES = 40
"""Both halves together; fewer cannot tell."""
MOST_SHARE = 0.5
MOST_TESTED = 8
"""Subgroups that go to the second half."""
WORTH_TESTING = 0.01
"""p-value on the search half above which a subgroup is not worth a test."""
_DIMENSIONS = 24
_CLUSTERS = (8, 16, 32)
_MOST_VALUES = 200
"""Columns of more values are no metadata to slice by."""


@dataclass(frozen=True, kw_only=True)
class FoundSlice:
    """A subgroup that loses more than the rest, on examples that were not searched."""

    name: str
    """As `domain=travel`, `word "card"`, `length=long`, `cluster "book, flight, hotel"`."""
    rule: str
    """`metadata`, `label`, `word`, `length` or `cluster`."""
    where: dict[str, str]
    """The rule itself, for other examples: slice columns with their values, or `expected`, `word`,
    `most_characters`, `least_characters`. Empty for a cluster, which only these examples have."""
    members: tuple[int, ...]
    """Positions of its examples, in both halves."""
    confirmed_on: tuple[int, ...]
    """Of them, those of the second half on which the loss was tested."""
    n: int
    """Examples of the second half."""
    loss: float
    """Mean loss on the second half: incumbent's score minus candidate's."""
    rest_loss: float
    """Of all others in the second half."""
    p_value: float
    """Adjusted for all subgroups tested."""


@dataclass(frozen=True, kw_only=True)
class Discovery:
    """What a search came to."""

    found: tuple[FoundSlice, ...]
    """Confirmed, largest loss first."""
    n_searched: int
    """Subgroups looked at on the first half."""
    n_tested: int
    """Of them, those tested on the second."""
    n_search: int
    n_validate: int
    alpha: float


def discover_slices(
    examples: Sequence[Example], loss: ArrayLike, *, alpha: float = 0.05, seed: int = 0
) -> Discovery:
    """Search for subgroups where the loss is larger than elsewhere.

    Args:
        examples: With texts, slices, expected labels and groups.
        loss: Incumbent's score minus candidate's, shape (n_examples,).
        alpha: Probability that anything is reported where no subgroup loses more.
        seed: Of the halves and the clusters.

    Raises:
        InvalidInput: The shapes differ, or a loss is not finite.
        NotEnoughData: Under 80 examples.
    """
    d = np.asarray(loss, float)
    if d.shape != (len(examples),) or not np.isfinite(d).all():
        raise InvalidInput(
            f"losses must be finite, one for each of {len(examples)} examples, got {d.shape}."
        )
    if len(d) < 2 * LEAST_EXAMPLES:
        raise NotEnoughData(
            f"a search for slices needs at least {2 * LEAST_EXAMPLES} examples, got {len(d)}."
        )
    groups = [e.group or f"\0{e.id}" for e in examples]
    names = sorted(set(groups))
    side = dict(zip(names, rng_of(seed, "halves").permutation(len(names)) % 2, strict=True))
    search = np.array([side[g] == 0 for g in groups])
    rules = _rules(examples, search, seed)
    tested = _stand_out(rules, d, search, groups, seed)
    return _confirmed(tested, rules, d, search, groups, alpha, seed)


@dataclass(frozen=True)
class _Rules:
    names: list[str]
    kinds: list[str]
    where: list[dict[str, str]]
    members: csc_matrix
    """Shape (n_examples, n_rules), 0/1."""


def is_member(example: Example, where: Mapping[str, str]) -> bool:
    """Whether another example belongs to a found slice, by its rule; never for an empty rule."""
    return bool(where) and all(_fits(example, key, value) for key, value in where.items())


def _fits(example: Example, key: str, value: str) -> bool:
    match key:
        case "word":
            return value in words_of(example.input)
        case "most_characters":
            return len(example.input) <= int(value)
        case "least_characters":
            return len(example.input) >= int(value)
        case "expected":
            return example.expected == value
    return example.slices.get(key) == value


def words_of(text: str) -> set[str]:
    """The words of a text that a slice may be named by: two letters or more, without their case."""
    return set(re.findall(r"\w\w+", text.casefold()))


def _rules(examples: Sequence[Example], search: np.ndarray, seed: int) -> _Rules:
    """Every subgroup that can be named, without a look at losses."""
    found: dict[tuple[str, str], tuple[dict[str, str], np.ndarray]] = {}
    least = max(LEAST_EXAMPLES // 2, LEAST_SHARE * search.sum())
    most = MOST_SHARE * search.sum()

    def add(kind: str, name: str, where: dict[str, str], mask: np.ndarray) -> None:
        if least <= mask[search].sum() <= most:
            found[kind, name] = where, mask

    metadata = _metadata(examples)
    for (column, value), mask in metadata.items():
        add("metadata", f"{column}={value}", {column: value}, mask)
    for ((one, value), a), ((other, second), b) in combinations(metadata.items(), 2):
        if one != other and min(a.sum(), b.sum()) >= least:
            add("metadata", f"{one}={value} & {other}={second}", {one: value, other: second}, a & b)
    labels = [e.expected for e in examples]
    for label, _ in Counter(x for x in labels if x is not None).most_common(_MOST_VALUES):
        add("label", f"expected={label}", {"expected": label}, np.array([x == label for x in labels]))
    lengths = np.array([len(e.input) for e in examples])
    short, long = np.quantile(lengths[search], [0.2, 0.8])
    few, many = f"{short:.0f}", f"{long:.0f}"
    add("length", f"at most {few} characters", {"most_characters": few}, lengths <= int(few))
    add("length", f"at least {many} characters", {"least_characters": many}, lengths >= int(many))
    words = [words_of(e.input) for e in examples]
    counts = Counter(w for ws, is_in in zip(words, search, strict=True) if is_in for w in ws)
    for word, n in sorted(counts.items()):
        if least <= n <= most:
            add("word", f'word "{word}"', {"word": word}, np.array([word in ws for ws in words]))
    for name, mask in _clusters(examples, words, search, seed).items():
        add("cluster", name, {}, mask)
    masks = [mask for _, mask in found.values()]
    members = csc_matrix(np.stack(masks, axis=1) if masks else np.empty((len(examples), 0)), dtype=float)
    return _Rules(
        names=[name for _, name in found],
        kinds=[kind for kind, _ in found],
        where=[where for where, _ in found.values()],
        members=members,
    )


def _metadata(examples: Sequence[Example]) -> dict[tuple[str, str], np.ndarray]:
    columns = sorted({column for e in examples for column in e.slices})
    found = {}
    for column in columns:
        values = [e.slices.get(column) for e in examples]
        distinct = sorted({v for v in values if v is not None})
        if len(distinct) <= _MOST_VALUES:
            for value in distinct:
                found[column, value] = np.array([v == value for v in values])
    return found


def _clusters(
    examples: Sequence[Example], words: Sequence[set[str]], search: np.ndarray, seed: int
) -> dict[str, np.ndarray]:
    """Clusters of texts at several sizes, their centers fixed on the search half."""
    texts = [e.input for e in examples]
    features = TextFeatures([t for t, is_in in zip(texts, search, strict=True) if is_in])
    rows = features.of(texts)
    n_dimensions = min(_DIMENSIONS, int(search.sum()) - 1, rows.shape[1] - 1)
    _, _, basis = svds(features.rows.astype(float), k=n_dimensions, v0=np.ones(min(features.rows.shape)))
    points = np.asarray(rows @ basis.T)
    points /= np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-9)
    found: dict[str, np.ndarray] = {}
    background = Counter(w for ws in words for w in ws)
    for k in _CLUSTERS:
        if search.sum() < 4 * k:
            break
        centers, _ = kmeans2(
            points[search], k, minit="++", iter=15, seed=rng_of(seed, "kmeans", str(k)), missing="warn"
        )
        nearest = np.argmax(points @ centers.T - (centers**2).sum(axis=1) / 2, axis=1)
        for cluster in range(k):
            mask = nearest == cluster
            if mask.any():
                found[f'cluster of {k} "{telling_words(mask, words, background)}"'] = mask
    return found


def telling_words(
    mask: np.ndarray, words: Sequence[set[str]], background: Counter[str], *, most: int = 3
) -> str:
    """The words most typical of some texts, told by commas.

    Args:
        mask: Which texts, shape (n_texts,).
        words: Of each text.
        background: How many texts each word is in.
        most: Words to tell.
    """
    inside = Counter(w for ws, is_in in zip(words, mask, strict=True) if is_in for w in ws)
    n, total = mask.sum(), len(words)
    weight = {
        w: c / n * np.log((c / n) / (background[w] / total)) for w, c in inside.items() if c >= 0.1 * n
    }
    return ", ".join(sorted(weight, key=lambda w: (-weight[w], w))[:most])


def _stand_out(
    rules: _Rules, loss: np.ndarray, search: np.ndarray, groups: Sequence[str], seed: int
) -> list[int]:
    """Rules worth a test, most telling first; each is looked for without the members of those before."""
    left = search.copy()
    chosen: list[int] = []
    while rules.names and len(chosen) < MOST_TESTED:
        n, d = int(left.sum()), loss * left
        size = np.asarray(rules.members.T @ left.astype(float)).ravel()
        total = np.asarray(rules.members.T @ d).ravel()
        mean = d.sum() / max(n, 1)
        spread = float(np.sqrt(max((loss[left] ** 2).mean() - mean**2, 0.0))) if n else 0.0
        with np.errstate(divide="ignore", invalid="ignore"):
            z = (total - size * mean) / (spread * np.sqrt(size * (n - size) / max(n - 1, 1)))
        z[~np.isfinite(z) | (size < LEAST_EXAMPLES // 2)] = -np.inf
        z[chosen] = -np.inf
        best = int(np.argmax(z))
        if not np.isfinite(z[best]) or z[best] <= 0:
            break
        member = _mask(rules, best)
        if _p(loss, member, left, groups, seed) > WORTH_TESTING:
            break
        chosen.append(best)
        left &= ~member
    return chosen


def _confirmed(
    tested: Sequence[int],
    rules: _Rules,
    loss: np.ndarray,
    search: np.ndarray,
    groups: Sequence[str],
    alpha: float,
    seed: int,
) -> Discovery:
    left = ~search
    p_values, found = [], []
    for rule in tested:
        member = _mask(rules, rule)
        p_values.append(_p(loss, member, left, groups, seed))
        inside, outside = left & member, left & ~member
        found.append(
            FoundSlice(
                name=rules.names[rule],
                rule=rules.kinds[rule],
                where=rules.where[rule],
                members=tuple(np.flatnonzero(member).tolist()),
                confirmed_on=tuple(np.flatnonzero(inside).tolist()),
                n=int(inside.sum()),
                loss=float(loss[inside].mean()) if inside.any() else 0.0,
                rest_loss=float(loss[outside].mean()) if outside.any() else 0.0,
                p_value=1.0,
            )
        )
        left = left & ~member
    adjusted = holm(p_values) if p_values else np.empty(0)
    kept = [
        replace(one, p_value=float(p))
        for one, p in zip(found, adjusted, strict=True)
        if p <= alpha and one.loss > 0
    ]
    return Discovery(
        found=tuple(sorted(kept, key=lambda one: -one.loss)),
        n_searched=len(rules.names),
        n_tested=len(tested),
        n_search=int(search.sum()),
        n_validate=int((~search).sum()),
        alpha=alpha,
    )


def _mask(rules: _Rules, rule: int) -> np.ndarray:
    return np.asarray(rules.members[:, [rule]].toarray()).ravel() > 0


def _p(loss: np.ndarray, member: np.ndarray, left: np.ndarray, groups: Sequence[str], seed: int) -> float:
    """p-value on some of the examples; examples of one group are one unit, in by their majority."""
    names = np.asarray(groups)[left]
    if len(set(names.tolist())) == len(names):
        return subgroup_p(loss[left], member[left], seed=seed)
    _, group_of = np.unique(names, return_inverse=True)
    size = np.bincount(group_of)
    mean = np.bincount(group_of, weights=loss[left]) / size
    inside = np.bincount(group_of, weights=member[left].astype(float)) / size
    return subgroup_p(mean, inside > 0.5, seed=seed)
