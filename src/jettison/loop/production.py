"""From benchmark to production: what two models will score on traffic that nobody has labelled."""

import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from scipy.sparse.linalg import svds

from jettison.errors import InvalidInput, NotEnoughData
from jettison.evaluate.features import TextFeatures, nearness
from jettison.files import decode_json, value_sha256, write_atomic
from jettison.model import log_odds
from jettison.record import Record
from jettison.stats.group_jackknife import bounds_of
from jettison.stats.shift import LEAST_LABELLED, ShiftedMean, shifted_mean
from jettison.stats.stratified import LEAST_PER_STRATUM, stratified_mean
from jettison.task import Example

SUPPORT_QUANTILE = 0.005
"""Traffic farther from the benchmark than all but so many of its own examples is outside its support."""
FAR_SHARE = 0.2
"""Traffic outside the support from which on the words begin with it."""
LITTLE_ALIKE = 0.1
"""Share of the benchmark that the weights leave, under which the words say so first."""
_LIKE_THIS = 10_000
"""Times the traffic at hand: so much more of it is to come."""
_DIMENSIONS = 12
_MOST_REFERENCES = 4000


class Predicted(msgspec.Struct, frozen=True, kw_only=True):
    """One score on the traffic inside the benchmark's support."""

    of: str
    """`a`, `b`, or `b - a`."""
    benchmark: float
    value: float
    low: float
    high: float
    effective_n: float
    """Benchmark groups that the weights leave; examples, where each stands alone."""
    by_prediction: float
    by_weights: float


class ProductionGap(msgspec.Struct, frozen=True, kw_only=True):
    """A prediction under covariate shift: right where equal inputs are answered equally well in both."""

    a: str
    b: str
    scorer: str
    n_benchmark: int
    n_traffic: int
    outside_share: float
    """Share of the traffic unlike anything in the benchmark, in 0-1: nothing is predicted for it."""
    predicted: tuple[Predicted, ...]
    traffic_digest: str
    time: float
    outside: tuple[str, ...] = ()
    """Ids of that traffic: labels of it say nothing of what was predicted."""
    n_groups: int | None = None
    """Groups of the benchmark's examples, where some hold several."""

    @property
    def words(self) -> str:
        """What it cannot tell, in a sentence."""
        effective = min(one.effective_n for one in self.predicted)
        n, things = self.n_benchmark, "benchmark examples"
        if self.n_groups is not None:
            n, things = self.n_groups, "groups of benchmark examples"
        parts = [
            f"Nothing is predicted for {100 * self.outside_share:.1f} % of the traffic, which is unlike "
            "the benchmark. The rest holds where inputs alike are answered alike: a change in what is "
            "right cannot be seen without labels."
        ]
        if self.outside_share > FAR_SHARE:
            parts.insert(
                0, "So much of the traffic is unlike the benchmark that this says little of it all."
            )
        if effective < LITTLE_ALIKE * n or (self.n_groups is None and effective < LEAST_LABELLED):
            parts.insert(
                0,
                f"The weights leave {effective:.0f} of {n:,} {things}: few of "
                "them are like the traffic, and nearly all of the figure hangs on those few. Label some "
                "traffic (jettison label) before you rest anything on it.",
            )
        return " ".join(parts)


class Realised(msgspec.Struct, frozen=True, kw_only=True):
    """What labels of the same traffic came to, later."""

    traffic_digest: str
    of: str
    value: float
    low: float
    high: float
    n_labels: int
    predicted: float
    predicted_low: float
    predicted_high: float
    inside: bool
    """Whether the prediction's interval and this one overlap: of few labels nearly all do."""
    time: float


def predict_production(
    a: tuple[str, Sequence[Record], Sequence[Record] | None],
    b: tuple[str, Sequence[Record], Sequence[Record] | None],
    benchmark: Sequence[Example],
    traffic: Sequence[Example],
    *,
    scorer: str,
    seed: int = 0,
) -> ProductionGap:
    """Predict each model's score on traffic, and the difference.

    Args:
        a: Name, records on the benchmark, and records on the traffic (for their confidences) or None.
        b: The same of the other model.
        benchmark: Examples with right answers.
        traffic: Inputs alone.
        scorer: What is predicted.
        seed: Of the folds.

    Raises:
        NotEnoughData: Fewer than 50 benchmark examples or inputs of traffic inside their support, or than
            10 groups of benchmark examples.
    """
    scores = [_scores(records, scorer) for _, records, _ in (a, b)]
    judged = [e for e in benchmark if all(e.id in one for one in scores)]
    check_enough(len(judged), len(traffic))
    inside = _inside(judged, traffic, seed)
    kept = [e for e, is_in in zip(traffic, inside, strict=True) if is_in]
    if len(kept) < LEAST_LABELLED:
        raise NotEnoughData(
            f"a prediction needs at least {LEAST_LABELLED} inputs of traffic like the benchmark's, "
            f"got {len(kept)} of {len(traffic)}."
        )
    x, z = _features(judged, kept, [a, b], seed)
    groups, other_groups = _groups(judged), _groups(kept)
    one, other = (np.array([s[e.id] for e in judged]) for s in scores)
    found = {
        name: shifted_mean(y, x, z, groups=groups, other_groups=other_groups, bounds=bounds, seed=seed)
        for name, y, bounds in (
            ("a", one, bounds_of(one)),
            ("b", other, bounds_of(other)),
            ("b - a", other - one, bounds_of(one, other)),
        )
    }
    return ProductionGap(
        a=a[0],
        b=b[0],
        scorer=scorer,
        n_benchmark=len(judged),
        n_traffic=len(traffic),
        outside_share=1 - len(kept) / len(traffic),
        predicted=tuple(_predicted(name, mean) for name, mean in found.items()),
        traffic_digest=_digest(traffic),
        time=time.time(),
        outside=tuple(e.id for e, is_in in zip(traffic, inside, strict=True) if not is_in),
        n_groups=len(set(groups)) if len(set(groups)) < len(groups) else None,
    )


def check_enough(n_benchmark: int, n_traffic: int) -> None:
    """Refuse what cannot be predicted before a model is asked.

    Raises:
        InvalidInput: The task has no traffic.
        NotEnoughData: Fewer than 50 benchmark examples or inputs of traffic.
    """
    if not n_traffic:
        raise InvalidInput(
            "the task must have unlabelled traffic, got none. Name its file: "
            '`unlabelled = "traffic.jsonl"` under [data].'
        )
    if min(n_benchmark, n_traffic) < LEAST_LABELLED:
        raise NotEnoughData(
            f"a prediction needs at least {LEAST_LABELLED} judged examples and inputs of traffic, "
            f"got {n_benchmark} and {n_traffic}."
        )


def keep_prediction(path: Path, gap: ProductionGap) -> None:
    """Append a prediction to the store, so that what came of it can be set beside it."""
    _append(path, gap)


def realise(
    path: Path,
    labelled: Sequence[tuple[float, float]],
    propensities: Sequence[float],
    *,
    traffic: Sequence[Example],
    ids: Sequence[str] | None = None,
) -> tuple[Realised, ...]:
    """Set labels of the traffic beside the last prediction of it, and append what they say.

    Args:
        path: The store.
        labelled: Scores of a and b on each labelled input.
        propensities: With which probability each was drawn (`jettison label` writes it).
        traffic: The same that was predicted.
        ids: Of the labelled inputs; those that nothing was predicted for are left out. None takes all.

    Raises:
        InvalidInput: The store has no prediction of this traffic.
        NotEnoughData: Fewer than two labels of traffic that was predicted, or of inputs with one chance.
    """
    digest = _digest(traffic)
    gaps = [g for g in read_predictions_kept(path) if g.traffic_digest == digest]
    if not gaps:
        raise InvalidInput(f"{path} must hold a prediction of this traffic, got none. Predict it first.")
    outside = set(gaps[-1].outside)
    kept = [i for i in range(len(labelled)) if ids is None or ids[i] not in outside]
    if len(kept) < 2:
        raise NotEnoughData(f"2 labels of traffic that was predicted are needed, got {len(kept)}.")
    a, b = np.asarray(labelled, float).reshape(-1, 2)[kept].T
    # Inputs with one chance to be drawn are one stratum, and stand for so many. What was predicted is of
    # traffic like this and not of these very inputs, so that labelling all of them leaves a doubt.
    stratum, sizes = _strata(np.asarray(propensities, float)[kept])
    found = []
    for name, y in (("a", a), ("b", b), ("b - a", b - a)):
        mean = stratified_mean(y, stratum, sizes)
        predicted = next(p for p in gaps[-1].predicted if p.of == name)
        found.append(
            Realised(
                traffic_digest=digest,
                of=name,
                value=float(mean.value),
                low=float(max(mean.low, -1.0 if name == "b - a" else 0.0)),
                high=float(min(mean.high, 1.0)),
                n_labels=len(y),
                predicted=predicted.value,
                predicted_low=predicted.low,
                predicted_high=predicted.high,
                inside=bool(mean.low <= predicted.high and predicted.low <= mean.high),
                time=time.time(),
            )
        )
    for one in found:
        _append(path, one)
    return tuple(found)


def _strata(chances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Stratum of each label, and how many inputs each stratum stands for.

    A label that is alone with its chance, since the others of its stratum are not what was predicted, tells
    no spread: it joins the labels whose chance is nearest.
    """
    known, stratum = np.unique(chances, return_inverse=True)
    sizes = _LIKE_THIS * np.bincount(stratum) / known
    while len(sizes) > 1 and (counts := np.bincount(stratum)).min() < LEAST_PER_STRATUM:
        alone = int(counts.argmin())
        near = min((i for i in (alone - 1, alone + 1) if 0 <= i < len(sizes)), key=lambda i: abs(
            np.log(known[i] / known[alone])
        ))  # fmt: skip
        sizes[near] += sizes[alone]
        stratum = np.where(stratum == alone, near, stratum)
        stratum = np.where(stratum > alone, stratum - 1, stratum)
        known, sizes = np.delete(known, alone), np.delete(sizes, alone)
    return stratum, np.round(sizes).astype(int)


def read_predictions_kept(path: Path) -> tuple[ProductionGap, ...]:
    """Predictions in a store, oldest first; what came of them is passed over."""
    lines = path.read_bytes().splitlines() if path.is_file() else []
    found = []
    for line in lines:
        try:
            found.append(decode_json(line, ProductionGap))
        except msgspec.DecodeError:
            continue
    return tuple(found)


def _append(path: Path, line: ProductionGap | Realised) -> None:
    before = path.read_bytes() if path.is_file() else b""
    write_atomic(path, before + msgspec.json.encode(line) + b"\n")


def _scores(records: Sequence[Record], scorer: str) -> dict[str, float]:
    return {
        r.example_id: s for r in records if (s := r.scores.get(scorer)) is not None and not r.unanswered
    }


def _inside(judged: Sequence[Example], traffic: Sequence[Example], seed: int) -> np.ndarray:
    """Whether each input of traffic is as near to the benchmark as nearly all of its own examples are."""
    texts = [e.input for e in judged]
    if len(texts) > _MOST_REFERENCES:
        chosen = np.random.default_rng(seed).choice(len(texts), _MOST_REFERENCES, replace=False)
        texts = [texts[i] for i in chosen.tolist()]
    features = TextFeatures(texts)
    own = nearness(features.rows, features.rows, skip_best=True)
    near = nearness(features.of([e.input for e in traffic]), features.rows)
    return np.asarray(near >= np.quantile(own, SUPPORT_QUANTILE))


def _features(
    judged: Sequence[Example],
    traffic: Sequence[Example],
    sides: Sequence[tuple[str, Sequence[Record], Sequence[Record] | None]],
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """What scores are predicted from: directions of the texts, length, confidences where known."""
    texts = [e.input for e in (*judged, *traffic)]
    rows = TextFeatures(texts).rows
    k = min(_DIMENSIONS, len(texts) - 1)
    start = np.random.default_rng(seed).normal(size=min(rows.shape))
    _, _, basis = svds(rows.astype(float), k=k, v0=start)
    columns = [np.asarray(rows @ basis.T), np.log1p([[len(t)] for t in texts])]
    for _, records, live in sides:
        if live is None:
            continue
        sure = {r.example_id: r.confidence for r in (*records, *live)}
        found = [sure.get(e.id) for e in (*judged, *traffic)]
        if all(c is not None for c in found):
            columns.append(np.array([[log_odds(c)] for c in found if c is not None]))
    whole = np.column_stack(columns)
    return whole[: len(judged)], whole[len(judged) :]


def _groups(examples: Sequence[Example]) -> list[str]:
    """Group of each example; one without is a group of its own."""
    return [e.group or f"\0{e.id}" for e in examples]


def _predicted(name: str, mean: ShiftedMean) -> Predicted:
    return Predicted(
        of=name,
        benchmark=mean.labelled_mean,
        value=mean.interval.value,
        low=mean.interval.low,
        high=mean.interval.high,
        effective_n=mean.effective_n,
        by_prediction=mean.by_prediction,
        by_weights=mean.by_weights.value,
    )


def _digest(traffic: Sequence[Example]) -> str:
    return value_sha256([[e.id, e.input] for e in traffic])
