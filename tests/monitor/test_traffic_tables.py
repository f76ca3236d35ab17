"""Tables over the traffic log: each record once, wherever it lies, and the sums a plain loop finds."""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jettison.cli.traffic import command
from jettison.errors import BrokenArtifact, MissingExtra
from jettison.monitor import tally_log as module
from jettison.monitor.pieces import open_moment, pieces_of
from jettison.monitor.tally import Cell, Tally
from jettison.monitor.tally_log import tally_log
from jettison.monitor.traffic_tables import cost_rows, drift_rows
from jettison.record import Cost, Record
from jettison.release.sketch import Sketch, binned
from jettison.stats.log_histogram import LogHistogram
from jettison.testing.traffic import TrafficWriter

DAY = 86400.0


def made(n: int, seed: int = 0, *, shift_from: int | None = None) -> list[Record]:
    """Two arms over days of 200 records; treatment escalates, and from one day on answers otherwise."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(n):
        day, is_treatment = number // 200, bool(rng.random() < 0.5)
        moved = shift_from is not None and day >= shift_from and is_treatment
        is_lost = bool(rng.random() < 0.05)
        output = str(rng.choice(["yes", "no"], p=[0.9, 0.1] if moved else [0.5, 0.5]))
        role = "lean" if is_treatment and rng.random() < 0.2 else "answer"
        found.append(
            Record(
                candidate="lean" if is_treatment else "large",
                example_id=f"r{number}",
                split="live",
                output=None if is_lost else output,
                confidence=float(rng.beta(2, 5) if moved else rng.beta(8, 2)) if is_treatment else None,
                error="upstream_timeout" if is_lost else None,
                unanswered=is_lost,
                escalated=bool(role == "answer" and is_treatment and rng.random() < 0.3),
                guardrails={"pii": "redact"} if rng.random() < 0.1 else {},
                arm="treatment" if is_treatment else "control",
                role=role,
                route="treatment/lean" if is_treatment else "control",
                time=None if rng.random() < 0.02 else 20_000 * DAY + day * DAY + 100.0 * (number % 200),
                input="x" * int(rng.integers(5, 50)),
                cost=Cost(
                    latency_s=float(np.exp(rng.normal(-3, 0.5))),
                    price_usd=None if is_treatment else float(rng.random()) * 1e-3,
                    cpu_s=float(rng.random()) if is_treatment else None,
                    energy_j=float(rng.random()) if is_treatment else None,
                    energy_tier="E2" if is_treatment else None,
                    completion_tokens=int(rng.integers(1, 50)),
                ),
            )
        )
    return found


def write(folder: Path, records: Sequence[Record], rolls: Sequence[int] = ()) -> None:
    with TrafficWriter(folder) as writer:
        start = 0
        for end in [*sorted(set(rolls)), len(records)]:
            writer.write(records[start:end])
            if end in rolls:
                writer.roll()
            start = end


def plain(records: Sequence[Record]) -> dict[Cell, list[Record]]:
    """The same groups by a loop over records."""
    cells = defaultdict(list)
    for r in records:
        day = None if r.time is None else int(r.time // DAY)
        is_lean = not (r.route or "").endswith("fallback")
        cells[Cell(day, r.arm or "", r.role or "answer", is_lean)].append(r)
    return cells


def check(tally: Tally, records: Sequence[Record]) -> None:
    expected = plain(records)
    assert set(tally.cells) == set(expected)
    for cell, some in expected.items():
        counts = tally.cells[cell]
        answered = [r for r in some if r.error is None]
        assert counts.n == len(some)
        assert counts.flags["errors"] == len(some) - len(answered)
        assert counts.flags["unanswered"] == sum(r.unanswered for r in some)
        assert counts.flags["escalated"] == sum(r.escalated for r in some)
        assert counts.flags["guarded"] == sum(bool(r.guardrails) for r in some)
        assert counts.labels == Counter(r.output for r in answered)
        for name in ("cpu_s", "price_usd", "energy_j", "completion_tokens"):
            known = [getattr(r.cost, name) for r in some if getattr(r.cost, name) is not None]
            assert counts.n_known[name] == len(known)
            assert counts.pico[name] == sum(round(value * 10**12) for value in known)
        values = [r.confidence for r in answered if r.confidence is not None]
        by_bin = binned("confidence", values) if values else (0,)
        assert tuple(counts.scores.get("confidence", [0])) == by_bin
        lengths = [len(r.input or "") for r in answered]
        if lengths:
            assert tuple(counts.scores["length"]) == binned("length", lengths)
        histogram = LogHistogram()
        histogram.update([r.cost.latency_s or 0.0 for r in answered])
        assert counts.latency.counts.tolist() == histogram.counts.tolist()


def test_the_tally_is_what_a_loop_over_the_records_finds(tmp_path: Path) -> None:
    records = made(1000)
    write(tmp_path, records, rolls=(300, 700))
    tally = tally_log(tmp_path)
    check(tally, records)
    # The same to the last digit with everything still in the live file.
    write(tmp_path / "live", records)
    other = tally_log(tmp_path / "live")
    assert {c: (x.pico, x.n) for c, x in tally.cells.items()} == {
        c: (x.pico, x.n) for c, x in other.cells.items()
    }


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    n=st.integers(1, 60),
    rolls=st.lists(st.integers(1, 60), max_size=4),
    undeleted=st.integers(0, 20),
    leftover=st.booleans(),
)
def test_no_record_is_lost_or_counted_twice(
    tmp_path_factory: pytest.TempPathFactory, n: int, rolls: list[int], undeleted: int, leftover: bool
) -> None:
    """Rows rolled and not yet deleted from the live file, and segments that overlap, count once."""
    folder = tmp_path_factory.mktemp("log")
    records = made(n)
    write(folder, records, rolls=[r for r in rolls if r <= n])
    files = sorted((folder / "segments").glob("records-*.parquet"))
    with TrafficWriter(folder) as writer:  # as it is between the roll and the delete
        last = max((int(path.stem.rsplit("-", 1)[1]) for path in files), default=0)
        for seq in range(max(1, last - undeleted + 1), last + 1):
            body = msgspec.json.encode(records[seq - 1])
            writer._connection.execute(
                "INSERT INTO records (seq, time, request_id, body) VALUES (?, 0, 'r', ?)", (seq, body)
            )
        writer._connection.commit()
    if leftover and files:  # as two rolls leave it, the first of which was cut short
        first, end = (int(part) for part in files[-1].stem.split("-")[1:])
        if end > first:
            part = pq.read_table(files[-1]).slice(0, end - first)
            pq.write_table(part, folder / "segments" / f"records-{first:012d}-{end - 1:012d}.parquet")
    with open_moment(folder, "records") as moment:
        seen = [seq for batch in moment.live() for seq, _ in batch]
        for piece in moment.pieces:
            after, before = piece.after or 0, piece.before or 10**9
            seen += [s for s in pq.read_table(piece.path)["seq"].to_pylist() if after < s < before]
    assert sorted(seen) == list(range(1, n + 1))
    if rolls:
        assert sum(counts.n for counts in tally_log(folder).cells.values()) == n


def test_cost_rows_say_what_a_request_took_and_how_much_is_known(tmp_path: Path) -> None:
    records = made(1000)
    write(tmp_path, records, rolls=(600,))
    rows = {(row.day, row.arm): row for row in cost_rows(tally_log(tmp_path))}
    row = rows["all", "treatment"]
    mine = [r for r in records if r.arm == "treatment"]
    answers = [r for r in mine if r.role == "answer"]
    assert (row.n_requests, row.n_calls) == (len(answers), len(mine))
    assert row.amounts["price_usd"] is None  # not measured is not zero
    spent = row.amounts["cpu_s"]
    assert spent is not None
    assert spent.total == pytest.approx(sum(r.cost.cpu_s or 0 for r in mine))
    assert spent.per_request == pytest.approx(spent.total / len(answers))
    assert (spent.known_share, row.energy_tiers) == (1.0, ("E2",))
    assert row.escalated is not None
    assert row.escalated.value == sum(r.escalated for r in answers) / len(answers)
    assert row.escalated.low < row.escalated.value < row.escalated.high
    p95 = row.latency_s[1]
    true = np.quantile([r.cost.latency_s for r in answers if r.error is None], 0.95)
    assert p95.value_s == pytest.approx(true, rel=0.05)
    assert p95.low_s < true
    assert ("2024-10-04", "control") in rows  # day 20,000
    assert ("unknown", "control") in rows  # records without a time


def test_drift_rows_find_the_day_and_arm_that_moved(tmp_path: Path) -> None:
    write(tmp_path, made(1600, shift_from=5), rolls=(1600,))
    found = drift_rows(tally_log(tmp_path), None)
    moved = {(row.day, row.arm, row.name) for row in found if row.has_drifted}
    days = ("2024-10-09", "2024-10-10", "2024-10-11")
    assert moved == {(day, "treatment", name) for day in days for name in ("confidence", "label")}
    assert {row.against for row in found} == {"first day"}


def test_a_release_s_answers_are_compared_with_its_profile(tmp_path: Path) -> None:
    """What the profile has is held against it; labels are counted apart that it knows."""
    records = made(1200, shift_from=3)
    write(tmp_path, records, rolls=(800,))
    before = [
        r for r in records if r.arm == "treatment" and r.error is None and (r.time or 0) < 20_003 * DAY
    ]
    sketch = Sketch(
        n=len(before),
        word_counts=b"",
        gram_counts=b"",
        scores={"confidence": binned("confidence", [r.confidence for r in before])},
        categories={"label": dict(Counter(str(r.output) for r in before))},
        slices={},
        features=None,
    )
    tally = tally_log(tmp_path, candidates=["lean"], labels=["yes", "no"])
    rows = drift_rows(tally, sketch)
    against = {(row.name, row.against) for row in rows}
    assert {("confidence", "release"), ("label", "release"), ("latency_s", "first day")} <= against
    moved = {(row.day, row.name) for row in rows if row.has_drifted}
    assert moved == {(f"2024-10-{day:02}", name) for day in (7, 8, 9) for name in ("confidence", "label")}
    assert {row.arm for row in rows if row.name == "label"} == {"treatment"}  # control is not the release
    assert sum(row.day == "2024-10-04" and row.name == "label" for row in rows) == 1  # the first day too


def test_a_segment_of_an_older_log_lacks_columns_and_still_counts(tmp_path: Path) -> None:
    write(tmp_path, made(50), rolls=(50,))
    (path,) = (tmp_path / "segments").glob("records-*.parquet")
    pq.write_table(pq.read_table(path).drop_columns(["escalated", "cost.cpu_s"]), path)
    counts = tally_log(tmp_path).cells
    assert sum(c.n for c in counts.values()) == 50
    assert all(c.amount("cpu_s") is None for c in counts.values())


def test_a_log_without_records_gives_empty_tables(tmp_path: Path) -> None:
    write(tmp_path, [])
    tally = tally_log(tmp_path)
    assert (cost_rows(tally), drift_rows(tally, None)) == ((), ())


def test_a_broken_segment_is_told_in_one_line(tmp_path: Path) -> None:
    write(tmp_path, made(20), rolls=(20,))
    (path,) = (tmp_path / "segments").glob("records-*.parquet")
    path.write_bytes(b"not parquet")
    with pytest.raises(BrokenArtifact, match=r"the segments in .* must be readable, got"):
        tally_log(tmp_path)


def test_free_text_answers_are_not_counted_one_by_one(tmp_path: Path) -> None:
    records = [msgspec.structs.replace(r, output=f"text {k}") for k, r in enumerate(made(600))]
    write(tmp_path, records, rolls=(600,))
    assert all(not counts.labels for counts in tally_log(tmp_path).cells.values())
    some = tally_log(tmp_path, labels=["text 3"])
    total = sum((counts.labels for counts in some.cells.values()), Counter[str]())
    assert total["text 3"] == 1
    assert set(total) == {"text 3", "any other"}


def test_without_duckdb_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, made(5))
    monkeypatch.setitem(__import__("sys").modules, "duckdb", None)
    with pytest.raises(MissingExtra, match=r"`duckdb` is not installed; it comes with .*jettison\[live\]"):
        tally_log(tmp_path)


def test_segments_dropped_while_they_are_read_are_looked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, made(60), rolls=(20, 40, 60))
    asked = module._segments_sql

    def drop_then_ask(connection: object, pieces: tuple[object, ...]) -> str:
        oldest = pieces_of(tmp_path, "records")[0].path
        found = asked(connection, pieces)  # type: ignore[arg-type]
        if len(pieces) == 3:
            oldest.unlink()
        return found

    monkeypatch.setattr(module, "_segments_sql", drop_then_ask)
    assert sum(counts.n for counts in tally_log(tmp_path).cells.values()) == 40


def test_the_command_prints_tables_and_json(tmp_path: Path) -> None:
    write(tmp_path / "traffic", made(1600, shift_from=5), rolls=(1000,))
    shown = CliRunner().invoke(command, [str(tmp_path), "--days", "2"], catch_exceptions=False)
    assert "confidence" in shown.output
    assert "7 earlier days are in the sums and not shown" in shown.output
    page = tmp_path / "traffic.md"
    asked = [str(tmp_path), "--json", "--markdown", str(page)]
    told = CliRunner().invoke(command, asked, catch_exceptions=False)
    rows = [line for line in page.read_text().splitlines() if line.startswith("| ")]
    assert all(line.count("|") in (8, 9, 10) for line in rows)
    assert sum("| treatment | confidence | first day |" in line for line in rows) == 3
    found = json.loads(told.output)
    assert sum(row["n_calls"] for row in found["costs"] if row["day"] == "all") == 1600
    assert any(row["has_drifted"] for row in found["drift"])
