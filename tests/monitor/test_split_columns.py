"""A split read by columns: the statistic of a loop over the records, kept and gone on with."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jettison.errors import BrokenArtifact
from jettison.monitor import kept_rows, waiting
from jettison.monitor.conduct import start_experiment
from jettison.monitor.evidence import evidence_for
from jettison.monitor.experiment import Experiment
from jettison.monitor.hashed import HashSet, hash_texts
from jettison.monitor.log import News, Place, TrafficLog
from jettison.monitor.observe_split import SplitObserver
from jettison.monitor.plan import ExperimentPlan, Metric, experiment_folder
from jettison.monitor.waiting import ROW, Waiting
from jettison.record import Cost, Record
from jettison.testing.traffic import TrafficWriter
from jettison.traffic import Feedback

METRICS = (
    Metric(name="label"),
    Metric(name="feedback", role="guardrail"),
    Metric(name="errors", role="guardrail"),
    Metric(name="guardrails", role="guardrail"),
    Metric(name="escalated", role="guardrail"),
    Metric(name="latency_s", role="guardrail", margin=0.2),
    Metric(name="price_usd", role="guardrail", most=0.01),
    Metric(name="score:exact", role="guardrail"),
)
PLAN = ExperimentPlan(name="e", kind="split", metrics=METRICS, label_wait_s=1000.0)


def made(n: int, seed: int = 0) -> list[tuple[Record, Feedback | None]]:
    """Traffic with all that is told apart: keys again, lost answers, other roles, changing shares."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(n):
        is_treatment, share = bool(rng.random() < 0.5), 0.5 if number < n // 2 else 0.25
        is_lost, has_failed = bool(rng.random() < 0.05), bool(rng.random() < 0.05)
        record = Record(
            candidate="c",
            example_id=f"r{number}",
            split="live",
            output=None if is_lost or has_failed else str(rng.choice(["yes", "no"])),
            error="lost" if is_lost else "failed" if has_failed else None,
            unanswered=is_lost,
            arm=None if rng.random() < 0.05 else "treatment" if is_treatment else "control",
            role=rng.choice(["answer", "lean", None], p=[0.7, 0.1, 0.2]),
            experiment="e" if rng.random() < 0.9 else None,
            propensity=None if rng.random() < 0.02 else share if is_treatment else 1 - share,
            key=None if rng.random() < 0.5 else f"k{rng.integers(0, n)}",
            slices={"language": str(rng.choice(["de", "en"]))} if rng.random() < 0.8 else {},
            scores={"exact": rng.choice([0.0, 1.0, None])} if rng.random() < 0.8 else {},
            guardrails={"pii": "redact"} if rng.random() < 0.1 else {},
            escalated=bool(rng.random() < 0.2),
            time=None if rng.random() < 0.02 else 10.0 * number,
            cost=Cost(
                latency_s=float(rng.random()),
                price_usd=None if rng.random() < 0.3 else float(rng.random()) * 0.02,
            ),
        )
        said = None
        if rng.random() < 0.6:
            late_s = 5000.0 if rng.random() < 0.1 else float(rng.random()) * 900
            said = Feedback(
                request_id=f"r{number}" if rng.random() < 0.95 else "nobody's",
                time=10.0 * number + late_s,
                label=str(rng.choice(["yes", "no"])) if rng.random() < 0.8 else None,
                score=float(rng.random() * 1.2) if rng.random() < 0.5 else None,
            )
        found.append((record, said))
    return found


class Loop:
    """The same experiment by a loop over records, with Python's own sets and dictionaries."""

    def __init__(self, plan: ExperimentPlan) -> None:
        self.plan, self.waiting, self.n_late = plan, {}, 0
        self.seen: dict[str, set[str]] = {"": set(), "label": set(), "feedback": set()}
        self.evidence = {metric.name: evidence_for(metric, plan) for metric in plan.metrics}
        self.n = {name: [0, 0] for name in ("all", "missing", "language=de", "language=en")}

    def first(self, stream: str, unit: str) -> bool:
        is_first = unit not in self.seen[stream]
        self.seen[stream].add(unit)
        return is_first

    def record(self, r: Record) -> None:
        if r.experiment != "e" or r.role not in (None, "answer") or r.arm is None or r.propensity is None:
            return
        treated = r.arm == "treatment"
        share = r.propensity if treated else 1 - r.propensity
        unit = r.key or f"request:{r.example_id}"
        if self.first("", unit):
            missing = r.output is None or r.unanswered
            names = ["all"] + ["missing"] * missing + [f"{k}={v}" for k, v in r.slices.items()]
            for name in names:
                self.n[name][treated] += 1
            for metric in self.plan.metrics:
                if metric.name not in ("label", "feedback"):
                    outcome = score_of(metric, r)
                    if outcome is not None:
                        self.evidence[metric.name].update([outcome], [treated], [share])
        if not r.unanswered:
            self.waiting[r.example_id] = (r, treated, share, unit)

    def feedback(self, said: Feedback) -> None:
        r, treated, share, unit = self.waiting.get(said.request_id, (None, False, 0.0, ""))
        if r is None or (r.time is not None and said.time - r.time > self.plan.label_wait_s):
            self.n_late += 1
            return
        if said.label is not None and self.first("label", unit):
            self.evidence["label"].update([float(said.label == r.output)], [treated], [share])
        if said.score is not None and self.first("feedback", unit):
            self.evidence["feedback"].update([min(1.0, said.score)], [treated], [share])


def score_of(metric: Metric, record: Record) -> float | None:
    """What one record scores on a metric that needs no label; None: not known."""
    name = metric.name
    if name == "errors":
        return float(record.error is None)
    if record.unanswered:
        return None
    if name == "guardrails":
        return float(not record.guardrails)
    if name == "escalated":
        return float(not record.escalated)
    if name.startswith("score:"):
        score = record.scores.get(name.removeprefix("score:"))
        return None if score is None else min(1.0, max(0.0, score))
    spent: float | None = getattr(record.cost, name)
    if name == "latency_s" or spent is None:
        return spent
    assert metric.most is not None
    return 1.0 - min(max(spent, 0.0), metric.most) / metric.most


Traffic = Sequence[tuple[Record, Feedback | None]]


def write(folder: Path, traffic: Traffic, rolls: Iterable[int] = ()) -> None:
    with TrafficWriter(folder / "traffic") as writer:
        start = 0
        for end in (*rolls, len(traffic)):
            part = traffic[start:end]
            writer.write([record for record, _ in part], [said for _, said in part if said])
            if end in tuple(rolls):
                writer.roll()
            start = end


def test_the_statistics_are_those_of_a_loop_over_the_records(tmp_path: Path) -> None:
    traffic = made(900)
    write(tmp_path, traffic, rolls=(300, 650))
    running = Experiment(PLAN)
    running.catch_up(TrafficLog(tmp_path))
    loop = Loop(PLAN)
    for record, _ in traffic:
        loop.record(record)
    for _, said in traffic:
        if said is not None:
            loop.feedback(said)
    status = running.status()
    assert status.metrics == tuple(one.finding() for one in loop.evidence.values())  # to the last digit
    assert (status.n_units, status.n_late) == (len(loop.seen[""]), loop.n_late)
    assert min(one.n for one in status.metrics) > 100
    assert status.ratio is not None
    assert [status.ratio.control, status.ratio.treatment] == loop.n["all"]
    for name, (control, treatment) in loop.n.items():
        by_share = running._ratio._counts[name].values()
        assert [sum(c) for c in zip(*by_share, strict=True)] == [control, treatment]


def test_the_sample_ratio_is_the_product_over_keys_one_by_one(tmp_path: Path) -> None:
    write(tmp_path, made(400), rolls=(200,))
    running = Experiment(PLAN)
    running.catch_up(TrafficLog(tmp_path))
    seen, counts, log_e, most = set(), {}, 0.0, 0.0
    for r, _ in made(400):
        if r.experiment != "e" or r.role == "lean" or r.arm is None or r.propensity is None:
            continue
        unit = r.key or f"request:{r.example_id}"
        if unit in seen:
            continue
        seen.add(unit)
        side = int(r.arm == "treatment")
        here = counts.setdefault(r.propensity if side else 1 - r.propensity, [0, 0])
        log_e += math.log((1e4 * r.propensity + here[side]) / (1e4 + sum(here)) / r.propensity)
        here[side] += 1
        most = max(most, log_e)
    assert running._ratio._most["all"] == pytest.approx(most, rel=1e-12)


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rolls=st.lists(st.integers(1, 60), max_size=3),
    stops=st.lists(st.integers(1, 60), max_size=3),
    chunk=st.sampled_from([7, 1 << 20]),
)
def test_cut_anywhere_and_kept_between_the_status_is_the_same_to_the_last_digit(
    tmp_path_factory: pytest.TempPathFactory, rolls: list[int], stops: list[int], chunk: int
) -> None:
    folder, traffic = tmp_path_factory.mktemp("state"), made(60)
    start_experiment(folder, PLAN)
    with pytest.MonkeyPatch.context() as patch, TrafficWriter(folder / "traffic") as writer:
        patch.setattr(waiting, "CHUNK", chunk)
        patch.setattr("jettison.monitor.kept_observer.CHUNK", chunk)
        patch.setattr("jettison.monitor.kept_observer.HASHES", chunk)
        for number, (record, said) in enumerate(traffic, 1):
            writer.write([record], [said] if said else [])
            if number in rolls:
                writer.roll()
            if number in stops:
                piecewise = Experiment.open(folder, PLAN)
                piecewise.catch_up(TrafficLog(folder), state=folder)  # writes while it reads
                piecewise.save(folder)
        piecewise = Experiment.open(folder, PLAN)
        piecewise.catch_up(TrafficLog(folder))
        whole = Experiment(PLAN)
        whole.catch_up(TrafficLog(folder))
    one_by_one = Experiment(PLAN)
    for record, _ in traffic:
        one_by_one.take(News(records=(record,), feedback=(), place=Place(), is_all=False))
    said = tuple(f for _, f in traffic if f is not None)
    one_by_one.take(News(records=(), feedback=said, place=Place(), is_all=True))
    assert piecewise.status() == whole.status() == one_by_one.status()


def test_segments_of_another_writer_may_give_empty_columns_no_type(tmp_path: Path) -> None:
    start_experiment(tmp_path, PLAN)
    segments = tmp_path / "traffic" / "segments"
    write(tmp_path, made(60), rolls=[30, 60])
    wanted = Experiment(PLAN)
    wanted.catch_up(TrafficLog(tmp_path))
    first, _ = sorted(segments.glob("feedback-*.parquet"))
    said = pq.read_table(first)
    assert said["score"].null_count < len(said)
    nothing = said.set_column(
        said.schema.get_field_index("score"), "score", pa.nulls(len(said), pa.float64())
    )
    untyped = said.set_column(said.schema.get_field_index("score"), "score", pa.nulls(len(said)))
    found = []
    for table in (nothing, untyped, said.drop_columns(["score"])):
        pq.write_table(table, first)
        found.append(Experiment(PLAN))
        found[-1].catch_up(TrafficLog(tmp_path))
    assert found[0].status() == found[1].status() == found[2].status() != wanted.status()


def kept(folder: Path, n: int) -> Experiment:
    write(folder, made(n), rolls=(n // 2,))
    start_experiment(folder, PLAN)
    running = Experiment(PLAN)
    running.catch_up(TrafficLog(folder))
    running.save(folder)
    return running


def test_another_log_in_its_place_is_read_from_its_beginning(tmp_path: Path) -> None:
    kept(tmp_path, 60)
    for path in (tmp_path / "traffic" / "segments").iterdir():
        path.unlink()
    (tmp_path / "traffic" / "live.sqlite").unlink()
    write(
        tmp_path, [(msgspec.structs.replace(r, example_id=f"x{r.example_id}"), None) for r, _ in made(80)]
    )
    running = Experiment.open(tmp_path, PLAN)
    running.catch_up(TrafficLog(tmp_path))
    whole = Experiment(PLAN)
    whole.catch_up(TrafficLog(tmp_path))
    assert running.status() == whole.status()
    running.save(tmp_path)  # takes the place of what was kept of the old one, though that went as far
    assert Experiment.open(tmp_path, PLAN).status() == whole.status()


def test_another_plan_begins_anew_and_so_does_what_an_earlier_version_kept(tmp_path: Path) -> None:
    kept(tmp_path, 60)
    changed = msgspec.structs.replace(PLAN, alpha=0.05)
    assert Experiment.open(tmp_path, changed).place == Place()
    path = experiment_folder(tmp_path, "e") / "evidence.msgpack"
    path.write_bytes(msgspec.msgpack.encode({"place": [5, 5], "observer": {}}))
    assert Experiment.open(tmp_path, PLAN).place == Place()


def test_who_is_behind_does_not_undo_what_was_kept(tmp_path: Path) -> None:
    write(tmp_path, made(60), rolls=(60,))
    start_experiment(tmp_path, PLAN)
    behind = Experiment(PLAN)
    behind.catch_up(TrafficLog(tmp_path))
    with TrafficWriter(tmp_path / "traffic") as writer:
        writer.write([msgspec.structs.replace(r, example_id=f"y{r.example_id}") for r, _ in made(30)])
    ahead = Experiment(PLAN)
    ahead.catch_up(TrafficLog(tmp_path))
    ahead.save(tmp_path)
    behind.save(tmp_path)
    assert Experiment.open(tmp_path, PLAN).place == ahead.place
    assert Experiment.open(tmp_path, PLAN).status() == ahead.status()


def test_rows_that_are_gone_are_told_with_the_way_out(tmp_path: Path) -> None:
    kept(tmp_path, 60)
    for path in experiment_folder(tmp_path, "e").glob("*.rows"):
        path.unlink()
    with pytest.raises(BrokenArtifact, match=r"must hold \d+ rows, got no file. Delete evidence.msgpack"):
        Experiment.open(tmp_path, PLAN)


def test_what_cannot_be_written_while_reading_is_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, made(60), rolls=(20, 40))
    start_experiment(tmp_path, PLAN)
    monkeypatch.setattr("jettison.monitor.kept_observer.HASHES", 4)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "experiments").write_text("a file where a folder is needed")
    running = Experiment(PLAN)
    running.catch_up(TrafficLog(tmp_path), state=elsewhere)
    running.save(tmp_path)
    again = Experiment.open(tmp_path, PLAN)
    again.catch_up(TrafficLog(tmp_path))
    assert again.status() == running.status()
    # The keys are all there: none of them counts a second time.
    again.take(News(records=tuple(r for r, _ in made(60)), feedback=(), place=Place(), is_all=False))
    assert again.status().n_units == running.status().n_units > 8


def test_full_files_of_rows_are_written_once(tmp_path: Path) -> None:
    rows = kept_rows.KeptRows(tmp_path, "units", np.dtype("<u8"), chunk=4)
    rows.append(np.arange(6, dtype=np.uint64))
    before = rows.path(0).stat().st_ino
    rows.append(np.arange(6, 13, dtype=np.uint64))
    assert np.concatenate(list(rows.read())).tolist() == list(range(13))
    assert rows.path(0).stat().st_ino == before
    assert len(list(tmp_path.glob("units-*.rows"))) == 4


@given(st.lists(st.lists(st.integers(1, 40), max_size=30), max_size=6), st.booleans())
@settings(deadline=None, max_examples=40)
def test_a_hash_set_says_what_a_set_says(batches: list[list[int]], collide: bool) -> None:
    """Also where all hashes want the same place of the table."""
    scale = 1 if collide else 0x9E3779B97F4A7C15
    ours, plain = HashSet(), set()
    for batch in batches:
        hashes = [one * scale % 2**64 for one in batch]
        expected = []
        for one in hashes:
            expected.append(one not in plain)
            plain.add(one)
        assert ours.add(np.array(hashes, np.uint64)).tolist() == expected
    assert ours.n == len(plain)


def test_a_hash_set_grows() -> None:
    ours, hashes = HashSet(), np.random.default_rng(0).integers(1, 2**63, 20_000, dtype=np.uint64)
    for part in np.array_split(hashes, 7):
        ours.add(part)
    assert ours.n == len(set(hashes.tolist()))
    assert not ours.add(hashes).any()
    ours.reserve(10**6)  # nothing is lost where it comes too late
    assert not ours.add(hashes).any()
    wide = HashSet()
    wide.reserve(10_000)
    assert wide.add(hashes).sum() == ours.n


def murmur(text: bytes) -> int:
    """MurmurHash64A with seed 0, word by word, as published."""
    m, mask, h = 0xC6A4A7935BD1E995, 2**64 - 1, len(text) * 0xC6A4A7935BD1E995 % 2**64
    whole = len(text) // 8 * 8
    for start in range(0, whole, 8):
        k = int.from_bytes(text[start : start + 8], "little") * m & mask
        k = (k ^ (k >> 47)) * m & mask
        h = (h ^ k) * m & mask
    if whole < len(text):
        h = (h ^ int.from_bytes(text[whole:], "little")) * m & mask
    h = (h ^ (h >> 47)) * m & mask
    return h ^ (h >> 47)


@given(st.lists(st.one_of(st.none(), st.text(max_size=40)), max_size=20))
@settings(deadline=None, max_examples=40)
def test_texts_hash_as_murmur_says_whatever_stands_beside(texts: list[str | None]) -> None:
    expected = [0 if t is None else murmur(t.encode("utf-8", "surrogatepass")) or 1 for t in texts]
    array = pa.array(["x", *texts], pa.string())
    assert hash_texts(array.slice(1)).tolist() == expected


def test_long_texts_are_told_apart() -> None:
    texts = pa.array(["a" * 5000, "a" * 4999 + "b", "a" * 128, "a" * 129])
    assert len(set(hash_texts(texts).tolist())) == 4
    assert hash_texts(texts.slice(1, 1))[0] == hash_texts(texts)[1]


def test_of_two_rows_of_a_request_the_newer_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "CHUNK", 4)
    kept, rows = Waiting(), np.zeros(10, ROW)
    rows["request"], rows["time"] = [1, 2, 3, 1, 5, 6, 2, 8, 9, 9], np.arange(10)
    for part in np.array_split(rows, 3):
        kept.add(part)
    found = kept.find(np.array([9, 1, 4, 2, 9], np.uint64))
    assert found.is_there.tolist() == [True, True, False, True, True]
    assert found.rows["time"][found.is_there].tolist() == [9, 3, 6, 9]
    kept.forget(4.0)  # the first four are older, and no full chunk after them is
    assert list(kept.chunks) == [1, 2]
    assert not kept.find(np.array([3], np.uint64)).is_there[0]


def test_a_label_that_came_in_time_counts_however_late_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forty answers over 4,000 s, labels 500 s after each, a wait of 1,000 s; all read at once."""
    monkeypatch.setattr(waiting, "CHUNK", 4)
    answers = [
        Record(
            candidate="c",
            example_id=f"r{number}",
            split="live",
            output="yes",
            arm="treatment",
            experiment="e",
            propensity=0.5,
            time=100.0 * number,
        )
        for number in range(40)
    ]
    said = [Feedback(request_id=r.example_id, time=(r.time or 0.0) + 500, label="yes") for r in answers]
    with TrafficWriter(tmp_path / "traffic") as writer:
        writer.write(answers, said)
    running = Experiment(PLAN)
    running.catch_up(TrafficLog(tmp_path))
    status = running.status()
    assert (status.metrics[0].n, status.n_late) == (40, 0)
    assert isinstance(running._observer, SplitObserver)
    # Then what is older than the wait is dropped, four at a time: 3,900 - 1,000 s is number 29.
    assert min(running._observer.waiting.chunks) == 7
    late = Feedback(request_id="r0", time=5000.0, label="yes")
    running.take(News(records=(), feedback=(late,), place=running.place, is_all=True))
    assert running.status().n_late == 1
