"""A traffic log without a gateway: `TrafficWriter` writes one, `simulate_*` make it up."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
import numpy as np

from jettison.record import Cost, Record
from jettison.serve.roll import roll
from jettison.traffic import LIVE_FILE, SCHEMA, SEGMENTS, Feedback


class TrafficWriter:
    """Appends to a traffic log as the gateway does: SQLite in WAL mode, rolled into Parquet on demand."""

    def __init__(self, folder: Path) -> None:
        (folder / SEGMENTS).mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._connection = sqlite3.connect(folder / LIVE_FILE)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.executescript(SCHEMA)

    def write(self, records: Iterable[Record] = (), feedback: Iterable[Feedback] = ()) -> None:
        """Append and commit."""
        rows = [(r.time or 0.0, r.example_id, msgspec.json.encode(r)) for r in records]
        said = [(f.time, f.request_id, msgspec.json.encode(f)) for f in feedback]
        with self._connection:
            self._connection.executemany(
                "INSERT INTO records (time, request_id, body) VALUES (?, ?, ?)", rows
            )
            self._connection.executemany(
                "INSERT INTO feedback (time, request_id, body) VALUES (?, ?, ?)", said
            )

    def roll(self) -> None:
        """Move what the live file holds into segments, which the gateway's own roll writes."""
        for table, last in roll(self.folder).items():
            with self._connection:
                self._connection.execute(f"DELETE FROM {table} WHERE seq <= ?", (last,))

    def close(self) -> None:
        """Close the live file."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True, kw_only=True)
class Arm:
    """How one side of the made-up traffic answers."""

    accuracy: float = 0.9
    latency_s: float = 0.02
    """Median; the tail is log-normal."""
    error_share: float = 0.0
    escalated_share: float = 0.0
    price_usd: float | None = 1e-4


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """Everything one made-up request leaves in the log."""

    records: tuple[Record, ...]
    feedback: tuple[Feedback, ...]


def simulate_split(
    rng: np.random.Generator,
    n: int,
    *,
    control: Arm,
    treatment: Arm,
    share: float = 0.5,
    drawn_share: float | None = None,
    experiment: str = "e",
    labelled_share: float = 1.0,
    start: int = 0,
    time: float = 0.0,
    gap_s: float = 0.1,
) -> Iterator[Exchange]:
    """Requests of a randomised experiment, each by a new key, with the right label said at once.

    Args:
        rng: Source of all chance.
        n: Requests.
        control: How the one arm answers.
        treatment: How the other does.
        share: Of treatment, as the log says.
        drawn_share: Of treatment in truth, where the assignment is broken.
        experiment: Name on the records.
        labelled_share: Share of requests for which feedback comes.
        start: Number of the first request.
        time: Of the first request.
        gap_s: Between requests.
    """
    real = share if drawn_share is None else drawn_share
    for number in range(start, start + n):
        is_treatment = bool(rng.random() < real)
        arm, moment = treatment if is_treatment else control, time + gap_s * (number - start)
        record = _answered(rng, f"r{number}", arm, moment)
        record = msgspec.structs.replace(
            record,
            arm="treatment" if is_treatment else "control",
            route="treatment" if is_treatment else "control",
            propensity=share if is_treatment else 1 - share,
            experiment=experiment,
            key=f"k{number}",
        )
        said = rng.random() < labelled_share
        yield Exchange(records=(record,), feedback=_told(record, moment) if said else ())


def simulate_shadow(
    rng: np.random.Generator,
    n: int,
    *,
    harmful: float,
    beneficial: float,
    accuracy: float = 0.9,
    experiment: str = "e",
    start: int = 0,
    time: float = 0.0,
) -> Iterator[Exchange]:
    """Requests whose shadow gets some answers wrong that the main route got right, and the reverse."""
    for number in range(start, start + n):
        change = rng.choice(3, p=(harmful, beneficial, 1 - harmful - beneficial))
        right = bool(rng.random() < accuracy) if change == 2 else change == 0
        main = _record(f"r{number}", "right" if right else "wrong", time + number, Arm(), rng)
        other = right if change == 2 else not right
        shadow = _record(f"r{number}", "right" if other else "wrong", time + number, Arm(), rng)
        records = (
            msgspec.structs.replace(main, arm="main", route="main", experiment=experiment),
            msgspec.structs.replace(
                shadow,
                arm="shadow",
                route="shadow",
                role="shadow",
                propensity=1.0,
                experiment=experiment,
                candidate="lean",
            ),
        )
        yield Exchange(records=records, feedback=_told(main, time + number))


def simulate_cascade(
    rng: np.random.Generator,
    n: int,
    *,
    threshold: float = 0.8,
    audit_share: float = 0.02,
    harm: float = 0.02,
    overconfidence: float = 0.0,
    start: int = 0,
    time: float = 0.0,
    texts: Sequence[str] | None = None,
) -> Iterator[Exchange]:
    """Requests to a cascade; a share of the lean answers that stood is audited by the fallback.

    Args:
        rng: Source of all chance.
        n: Requests.
        threshold: Least confidence at which the lean answer stands.
        audit_share: Probability with which such an answer is audited.
        harm: Mean probability that a lean answer that stood is wrong.
        overconfidence: Added to that probability: what the confidence does not know.
        start: Number of the first request.
        time: Of the first request.
        texts: Inputs to take in turn; None logs none.
    """
    for number in range(start, start + n):
        confidence = float(rng.beta(8, 1.2))
        stands = confidence >= threshold
        wrong_share = min(1.0, harm * 2 * (1 - confidence) / (1 - threshold) + overconfidence)
        right = bool(rng.random() >= (wrong_share if stands else 0.4))
        text = None if texts is None else texts[number % len(texts)]
        lean = msgspec.structs.replace(
            _record(f"r{number}", "right" if right else "wrong", time + number, Arm(), rng),
            confidence=confidence,
            route="lean",
            arm="lean",
            candidate="lean",
            input=text,
            role="answer" if stands else "lean",
        )
        big = msgspec.structs.replace(
            _record(f"r{number}", "right", time + number, Arm(latency_s=0.4, price_usd=2e-3), rng),
            route="fallback",
            arm="fallback",
            candidate="large",
            input=text,
        )
        records: tuple[Record, ...] = (lean,)
        if not stands:
            records = (lean, msgspec.structs.replace(big, escalated=True, role="answer"))
        elif rng.random() < audit_share:
            records = (lean, msgspec.structs.replace(big, role="audit", propensity=audit_share))
        yield Exchange(records=records, feedback=())


def _answered(rng: np.random.Generator, name: str, arm: Arm, time: float) -> Record:
    right = bool(rng.random() < arm.accuracy)
    record = _record(name, "right" if right else "wrong", time, arm, rng)
    if rng.random() < arm.error_share:
        return msgspec.structs.replace(record, output=None, error="upstream: 503", status=502)
    return record


def _record(name: str, output: str, time: float, arm: Arm, rng: np.random.Generator) -> Record:
    return Record(
        candidate="large",
        example_id=name,
        split="live",
        output=output,
        confidence=float(rng.beta(8, 1.2)),
        time=time,
        role="answer",
        status=200,
        escalated=bool(arm.escalated_share and rng.random() < arm.escalated_share),
        cost=Cost(latency_s=arm.latency_s * float(np.exp(0.4 * rng.normal())), price_usd=arm.price_usd),
    )


def _told(record: Record, time: float) -> tuple[Feedback, ...]:
    return (Feedback(request_id=record.example_id, time=time + 1.0, label="right"),)
