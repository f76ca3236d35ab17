"""A shadow read by columns: pairs and statistic of a loop over the records, however the log is cut."""

from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jettison.monitor import waiting
from jettison.monitor.conduct import start_experiment
from jettison.monitor.evidence import evidence_for
from jettison.monitor.experiment import Experiment
from jettison.monitor.log import News, Place, TrafficLog
from jettison.monitor.observe_shadow import PAIR_WAIT_S
from jettison.monitor.plan import ExperimentPlan, Metric
from jettison.record import Cost, Record
from jettison.testing.traffic import TrafficWriter
from jettison.traffic import Feedback

METRICS = (
    Metric(name="label"),
    Metric(name="agreement"),
    Metric(name="errors", role="guardrail"),
    Metric(name="guardrails", role="guardrail"),
    Metric(name="price_usd", role="guardrail", most=0.01),
    Metric(name="score:exact", role="guardrail"),
)
PLAN = ExperimentPlan(name="e", kind="shadow", metrics=METRICS, label_wait_s=40_000.0)


def made(n: int, seed: int = 0) -> tuple[list[Record], list[Feedback]]:
    """Answers with and without a shadow, lost ones, ids that come again, halves hours apart."""
    rng = np.random.default_rng(seed)
    records, said = [], []
    for number in range(n):
        is_lost, has_failed = bool(rng.random() < 0.1), bool(rng.random() < 0.05)
        record = Record(
            candidate="c",
            example_id=f"r{number // 2 - rng.integers(0, 40)}",
            split="live",
            output=None if is_lost or has_failed else str(rng.choice(["yes", "no"])),
            error="lost" if is_lost else "failed" if has_failed else None,
            unanswered=is_lost,
            role=rng.choice(["answer", "shadow", "audit", None], p=[0.3, 0.5, 0.1, 0.1]),
            experiment="e" if rng.random() < 0.95 else None,
            scores={"exact": rng.choice([0.0, 1.0, None])} if rng.random() < 0.8 else {},
            guardrails={"pii": "redact"} if rng.random() < 0.1 else {},
            time=None
            if number and rng.random() < 0.02
            else 60.0 * number - 600.0 * bool(rng.random() < 0.05),
            cost=Cost(price_usd=None if rng.random() < 0.3 else float(rng.random()) * 0.02),
        )
        records.append(record)
        if rng.random() < 0.5:
            said.append(
                Feedback(
                    request_id=f"r{number // 2 - rng.integers(0, 40)}",
                    time=60.0 * number + float(rng.random()) * 60_000,
                    label=str(rng.choice(["yes", "no"])) if rng.random() < 0.9 else None,
                    score=0.5,
                )
            )
    return records, said


class Loop:
    """The same experiment by a loop over records, with Python's own dictionaries and texts."""

    def __init__(self) -> None:
        self.half: dict[str, tuple[float, Record]] = {}
        self.now = -1.0
        self.waiting: dict[str, tuple[float | None, str | None, str | None]] = {}
        self.labelled: set[str] = set()
        self.evidence = {metric.name: evidence_for(metric, PLAN) for metric in METRICS}
        self.n_pairs = self.n_late = 0

    def record(self, r: Record) -> None:
        self.now = max(self.now, r.time or 0.0)
        if r.experiment != "e" or r.role not in (None, "answer", "shadow"):
            return
        then, other = self.half.pop(r.example_id, (0.0, None))
        if (
            other is None
            or self.now - then > PAIR_WAIT_S
            or (other.role == "shadow") == (r.role == "shadow")
        ):
            self.half[r.example_id] = self.now, r
            return
        main, shadow = (other, r) if r.role == "shadow" else (r, other)
        self.n_pairs += 1
        for metric in METRICS[1:]:
            after, before = score(metric.name, shadow), score(metric.name, main)
            is_lost = main.unanswered or shadow.unanswered
            if metric.name == "agreement" and not is_lost:
                is_same = shadow.output is not None and shadow.output == main.output
                self.evidence["agreement"].update([float(is_same) - 1.0], [], [])
            elif after is not None and before is not None:
                self.evidence[metric.name].update([after - before], [], [])
        if not (main.unanswered or shadow.unanswered):
            self.waiting[r.example_id] = (r.time, main.output, shadow.output)

    def feedback(self, said: Feedback) -> None:
        time, main, shadow = self.waiting.get(said.request_id, (None, None, None))
        is_known = said.request_id in self.waiting
        if not is_known or (time is not None and said.time - time > PLAN.label_wait_s):
            self.n_late += 1
        elif said.label is not None and said.request_id not in self.labelled:
            self.labelled.add(said.request_id)
            difference = float(shadow == said.label) - float(main == said.label)
            self.evidence["label"].update([difference], [], [])


def score(name: str, r: Record) -> float | None:
    if name == "errors":
        return float(r.error is None)
    if r.unanswered or name == "agreement":
        return None
    if name == "guardrails":
        return float(not r.guardrails)
    if name == "price_usd":
        return None if r.cost.price_usd is None else 1.0 - min(r.cost.price_usd, 0.01) / 0.01
    return r.scores.get("exact")


def test_the_statistics_are_those_of_a_loop_over_the_records(tmp_path: Path) -> None:
    records, said = made(1500)
    with TrafficWriter(tmp_path / "traffic") as writer:
        for start in (0, 400, 1100):
            writer.write(records[start : {0: 400, 400: 1100}.get(start, 1500)])
            if start < 1100:
                writer.roll()
        writer.write((), said)
    running, loop = Experiment(PLAN), Loop()
    running.catch_up(TrafficLog(tmp_path))
    for record in records:
        loop.record(record)
    for one in said:
        loop.feedback(one)
    status = running.status()
    assert status.metrics == tuple(one.finding() for one in loop.evidence.values())  # to the last digit
    assert (status.n_units, status.n_late) == (loop.n_pairs, loop.n_late)
    assert min(one.n for one in status.metrics) > 50
    assert status.n_late > 20


@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rolls=st.lists(st.integers(1, 50), max_size=2),
    stops=st.lists(st.integers(1, 50), max_size=2),
    chunk=st.sampled_from([7, 1 << 20]),
)
def test_cut_anywhere_and_kept_between_the_status_is_the_same_to_the_last_digit(
    tmp_path_factory: pytest.TempPathFactory, rolls: list[int], stops: list[int], chunk: int
) -> None:
    folder, (records, said) = tmp_path_factory.mktemp("state"), made(50)
    start_experiment(folder, PLAN)
    with pytest.MonkeyPatch.context() as patch, TrafficWriter(folder / "traffic") as writer:
        patch.setattr(waiting, "CHUNK", chunk)
        patch.setattr("jettison.monitor.kept_observer.CHUNK", chunk)
        patch.setattr("jettison.monitor.kept_observer.HASHES", chunk)
        for number, record in enumerate(records, 1):
            writer.write([record])
            if number in rolls:
                writer.roll()
            if number in stops:
                piecewise = Experiment.open(folder, PLAN)
                piecewise.catch_up(TrafficLog(folder), state=folder)
                piecewise.save(folder)
        writer.write((), said)
        piecewise = Experiment.open(folder, PLAN)
        piecewise.catch_up(TrafficLog(folder), state=folder)
        whole = Experiment(PLAN)
        whole.catch_up(TrafficLog(folder))
    one_by_one = Experiment(PLAN)
    for record in records:
        one_by_one.take(News(records=(record,), feedback=(), place=Place(), is_all=False))
    one_by_one.take(News(records=(), feedback=tuple(said), place=Place(), is_all=True))
    assert piecewise.status() == whole.status() == one_by_one.status()
    assert whole.status().n_units >= 5


def test_segments_that_differ_are_read_together(tmp_path: Path) -> None:
    """As other writers leave them: other texts, a column without a type, one that is not there."""
    records, _ = made(90)
    with TrafficWriter(tmp_path / "traffic") as writer:
        for start in (0, 30, 60):
            writer.write([msgspec.structs.replace(r, scores={}) for r in records[start : start + 30]])
            writer.roll()
    wanted = Experiment(PLAN)
    wanted.catch_up(TrafficLog(tmp_path))
    _, second, third = sorted((tmp_path / "traffic" / "segments").glob("records-*.parquet"))
    table = pq.read_table(second)
    place = table.schema.get_field_index("scores")
    pq.write_table(table.set_column(place, "scores", pa.nulls(len(table))), second)
    pq.write_table(pq.read_table(third).drop_columns(["scores", "arm"]), third)
    found = Experiment(PLAN)
    found.catch_up(TrafficLog(tmp_path))
    assert found.status() == wanted.status()
    assert found.status().n_units > 10
