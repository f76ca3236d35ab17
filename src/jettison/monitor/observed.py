"""What an experiment's observers share: columns in, and what the statistics of its metrics take, out."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec
import numpy as np

from jettison.monitor.hashed import HashSet, hash_texts
from jettison.monitor.plan import ExperimentPlan, Metric
from jettison.monitor.record_columns import RecordColumns
from jettison.monitor.waiting import Waiting
from jettison.traffic import Feedback

LOW = np.uint64(0xFFFFFFFF)
"""The 32 bits of a hash that are kept of an output."""


@dataclass(frozen=True, kw_only=True)
class Units:
    """Keys at their first sight, in the log's order."""

    is_treatment: np.ndarray
    share: np.ndarray
    """Probability with which each was drawn for treatment."""
    is_missing: np.ndarray
    """It got no answer."""
    slice_codes: np.ndarray
    """Of each, which of `slices` are its."""
    slices: list[dict[str, str]]

    def __len__(self) -> int:
        return len(self.share)


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """What a batch brought for one metric, in the log's order; each of shape (n,)."""

    values: np.ndarray
    treated: np.ndarray
    shares: np.ndarray


@dataclass(kw_only=True)
class Observed:
    """What a batch of the log brought."""

    units: Units | None = None
    outcomes: dict[str, Outcomes] = field(default_factory=dict)
    n_pairs: int = 0
    """Of a shadow: both answers of a request are there, whether or not a metric can tell of them yet."""
    n_late: int = 0
    """Feedback whose request is unknown or no longer waited for."""


@dataclass(frozen=True, kw_only=True)
class FeedbackColumns:
    """Feedback by columns, each of shape (n,)."""

    requests: np.ndarray
    """Hashes of request ids."""
    times: np.ndarray
    scores: np.ndarray
    """NaN where none was given."""
    labels: np.ndarray
    """Hashes; 0 where none was given."""

    @classmethod
    def of(cls, table: Any) -> "FeedbackColumns":
        """Of an Arrow table with the columns of `Feedback`."""
        columns = RecordColumns(table)
        return cls(
            requests=columns.hashes("request_id"),
            times=columns.floats("time"),
            scores=columns.floats("score"),
            labels=columns.hashes("label"),
        )

    @classmethod
    def of_said(cls, said: Sequence[Feedback]) -> "FeedbackColumns":
        """Of feedback in memory."""
        import pyarrow as pa

        return cls(
            requests=hash_texts(pa.array([one.request_id for one in said], pa.string())),
            times=np.array([one.time for one in said], float),
            scores=np.array([np.nan if one.score is None else one.score for one in said], float),
            labels=hash_texts(pa.array([one.label for one in said], pa.string())),
        )

    def __len__(self) -> int:
        return len(self.requests)


class Observer(Protocol):
    """Of one kind of experiment: it remembers between batches what one batch cannot tell."""

    seen: dict[str, HashSet]
    """Units that counted, by stream."""
    fresh: dict[str, list[np.ndarray]]
    """Hashes taken into `seen`, in their order, for whoever keeps them."""
    unread: dict[str, Callable[[], Iterable[np.ndarray]]]
    """Hashes of `seen` that were kept and are read when they are first needed."""
    waiting: Waiting
    """Requests that wait for a label."""

    def columns(self) -> tuple[str, ...]:
        """Columns of a record that are read."""

    def reserve(self, n_records: int) -> None:
        """Make room for what so many records may bring."""

    def take(self, records: RecordColumns) -> Observed:
        """What the next records bring."""

    def take_feedback(self, said: FeedbackColumns) -> Observed:
        """What the next feedback brings, about records taken before."""

    def memory(self) -> dict[str, Any]:
        """What it remembers beside `seen` and `waiting`."""

    def remember(self, memory: Mapping[str, Any]) -> None:
        """Go on from what `memory` told."""


def first_seen(observer: Observer, stream: str, units: np.ndarray) -> np.ndarray:
    """Which units are new to a stream, shape (n,); from now on they are not."""
    seen = observer.seen[stream]
    if len(units) and stream in observer.unread:
        for hashes in observer.unread.pop(stream)():
            seen.add(hashes)
    is_first = seen.add(units)
    if is_first.any():
        observer.fresh[stream].append(units[is_first])
    return is_first


def metric_columns(plan: ExperimentPlan) -> tuple[str, ...]:
    """Columns of a record that the metrics of a plan are made of."""
    needed = {
        "guardrails": "guardrails",
        "escalated": "escalated",
        "errors": "error",
        "label": "output",
        "feedback": "output",
        "agreement": "output",
    }
    return tuple(
        "scores" if name.startswith("score:") else needed.get(name, f"cost.{name}")
        for name in (metric.name for metric in plan.metrics)
    )


def scores_of(metric: Metric, records: RecordColumns) -> np.ndarray:
    """What each record scores on a metric that needs no label; higher is better. NaN: not known."""
    name = metric.name
    if name == "errors":
        return records.is_null("error").astype(float)
    if name == "guardrails":
        return records.is_one_of("guardrails", None, "", "{}").astype(float)
    if name == "escalated":
        return (~records.flags("escalated")).astype(float)
    if name.startswith("score:"):
        codes, texts = records.codes("scores")
        wanted = name.removeprefix("score:")
        found = [read_map(text).get(wanted) for text in (*texts, "{}")]
        of_texts = np.array([np.nan if one is None else min(1.0, max(0.0, one)) for one in found])
        return np.asarray(of_texts[codes])
    spent = records.floats(f"cost.{name}")
    if name == "latency_s":
        return spent
    assert metric.most is not None
    return np.asarray(1.0 - np.minimum(np.maximum(spent, 0.0), metric.most) / metric.most)


def read_map(text: str) -> dict[str, Any]:
    """A map of a record, as a column holds it."""
    found: dict[str, Any] = msgspec.json.decode(text) if text else {}
    return found
