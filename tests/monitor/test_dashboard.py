"""The live pages: what they say of a log, what they make of hostile texts, and how far they read."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from jettison.monitor.alerts import Alert, Alerts, FileSink
from jettison.monitor.audit import AuditPlan
from jettison.monitor.conduct import conduct, start_experiment, stop_experiment
from jettison.monitor.dashboard.board import Board, pieces
from jettison.monitor.dashboard.pages import Page, Pages, Places
from jettison.monitor.dashboard.plots import figure, line_plot, time_ticks, value_ticks
from jettison.monitor.dashboard.tally import ArmCount, Tally
from jettison.monitor.experiment import Experiment
from jettison.monitor.log import News, Place, TrafficLog
from jettison.monitor.plan import ExperimentPlan, Metric
from jettison.monitor.watch import Watch
from jettison.record import Cost, Record
from jettison.testing.traffic import Arm, TrafficWriter, simulate_cascade, simulate_shadow, simulate_split
from jettison.traffic import Feedback

PLAN = ExperimentPlan(
    name="e",
    kind="split",
    metrics=(Metric(name="label", margin=0.03), Metric(name="errors", role="guardrail", margin=0.05)),
    started=1_790_000_000.0,
)
HOSTILE = '<script>window.hacked = 1</script><img src=x onerror="window.hacked = 1">'
PATHS = ("/ui", "/ui/experiments", "/ui/safety", "/ui/drift", "/ui/failures", "/ui/releases", "/ui/alarms")


def pages_of(state: Path, *, board: Board | None = None, releases: dict[str, Path] | None = None) -> Pages:
    board = board or Board(state, release=None)
    board.refresh()
    places = Places(
        state=state, releases=releases or {}, alerts=state / "alerts.jsonl", mined=state / "mined"
    )
    return Pages(board, places)


def text_of(page: Page) -> str:
    return " ".join(page.body.decode().split())


def written(state: Path, n: int, *, start: int = 0, experiment: str = "e") -> None:
    rng = np.random.default_rng(start)
    made = simulate_split(
        rng, n, control=Arm(accuracy=0.95), treatment=Arm(accuracy=0.6), start=start,
        time=PLAN.started + start, experiment=experiment,
    )  # fmt: skip
    exchanges = list(made)
    with TrafficWriter(state / "traffic") as log:
        log.write([r for e in exchanges for r in e.records], [f for e in exchanges for f in e.feedback])


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dashboard")
    start_experiment(folder, PLAN)
    written(folder, 600)
    conduct(folder, Experiment(PLAN), TrafficLog(folder), now=PLAN.started + 70)
    sink = FileSink(folder / "alerts.jsonl")
    told = {"severity": "critical", "subject": "e", "time": PLAN.started + 70}
    sink.send(Alert(name="experiment_rolled_back", message=HOSTILE, **told))  # type: ignore[arg-type]
    (folder / "mined").mkdir()
    mode = {
        "name": HOSTILE, "title": "word \"visa\"", "n": 40, "share": 0.1, "n_bad": 12, "n_doubtful": 3,
        "reasons": {"wrong": 12}, "trend": "new", "examples": [HOSTILE, "]]>&amp;{{ 777*777 }}"],
    }  # fmt: skip
    mined = {
        "n_searched": 400, "n_bad": 20, "n_doubtful": 9, "first": 1.0, "last": 2.0, "n_outside": 4,
        "modes": [mode],
    }  # fmt: skip
    (folder / "mined" / "failures.json").write_bytes(msgspec.json.encode(mined))
    return folder


def test_the_overview_says_what_the_log_holds(state: Path) -> None:
    said = text_of(pages_of(state).page("/ui"))
    records = TrafficLog(state).read().records
    n_treatment = sum(one.arm == "treatment" for one in records)
    assert f'<td class="n">{n_treatment}</td>' in said
    assert f'<td class="n">{600 - n_treatment}</td>' in said
    assert said.count('class="plot"') == 6
    assert "600 records read" in said
    assert "experiment rolled back" in said


def test_the_quality_shown_is_the_mean_of_what_was_judged(state: Path) -> None:
    board = Board(state, release=None)
    pages_of(state, board=board)
    news = TrafficLog(state).read()
    label = {one.request_id: one.label for one in news.feedback}
    right = [one.output == label[one.example_id] for one in news.records if one.arm == "treatment"]
    last = board.quality.arms["treatment"].points()[-1]
    assert last.n == len(right)
    assert last.low < np.mean(right) < last.high
    assert last.value == pytest.approx(np.mean(right), abs=0.02)  # weighted by when each came


def test_an_experiment_reads_as_its_watcher_read_it_and_stops_where_it_ended(state: Path) -> None:
    written(state, 200, start=10_000)  # after the end: none of the experiment's business
    board = Board(state, release=None)
    said = text_of(pages_of(state, board=board).page("/ui/experiments"))
    trial = board.trials["e"]
    whole = Experiment(PLAN)
    whole.take(TrafficLog(state).read(most=600))
    assert trial.status is not None
    assert trial.status.n_units == 600
    news = TrafficLog(state).read()
    ended = PLAN.started + 70
    kept = News(
        records=tuple(one for one in news.records if (one.time or 0) <= ended),
        feedback=tuple(one for one in news.feedback if one.time <= ended),
        place=Place(),
        is_all=True,
    )
    exact = Experiment(PLAN)
    exact.take(kept)
    assert trial.status.metrics == exact.status().metrics  # to the last digit, though read in pieces
    assert "ROLLED BACK" in said
    assert said.count('class="plot"') == 2
    assert trial.path["label"][-1].n == trial.status.metrics[0].n


@pytest.mark.parametrize("path", PATHS)
def test_texts_of_traffic_are_shown_and_never_run(state: Path, path: str) -> None:
    page = pages_of(state).page(path)
    assert page.status == 200
    html = page.body.decode()
    assert "<script>window" not in html
    assert "<img" not in html
    assert "style=" not in html  # the policy of content would refuse it
    assert "603729" not in html or path != "/ui/failures"  # a template in a text stays a text
    if path == "/ui/failures":
        assert "&lt;script&gt;window.hacked" in html
        assert "{{ 777*777 }}" in html


@pytest.mark.parametrize("path", PATHS)
def test_without_a_log_every_page_says_what_is_missing(tmp_path: Path, path: str) -> None:
    page = pages_of(tmp_path).page(path)
    assert page.status == 200
    said = text_of(page)
    assert "must hold a traffic log" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("path", PATHS)
def test_an_empty_log_and_broken_files_are_said(tmp_path: Path, path: str) -> None:
    TrafficWriter(tmp_path / "traffic").close()
    (tmp_path / "alerts.jsonl").write_text("{not json\n")
    (tmp_path / "mined").mkdir()
    (tmp_path / "mined" / "failures.json").write_text("[]")
    (tmp_path / "monitor.msgpack").write_bytes(b"\xc1")
    (tmp_path / "control.json").write_text("{")
    said = text_of(pages_of(tmp_path, releases={"": tmp_path / "no"}).page(path))
    wanted = {
        "/ui": "No request has been answered",
        "/ui/experiments": "No experiment yet",
        "/ui/safety": "No answer yet in which an incident could have been seen",
        "/ui/drift": "the gateway serves no release",
        "/ui/failures": "must be what `jettison mine` wrote",
        "/ui/releases": "must be",
        "/ui/alarms": "1 lines of",
    }
    assert wanted[path] in said.replace("&#39;", "'")


def test_only_the_newest_records_are_read_and_the_rest_is_said(tmp_path: Path) -> None:
    start_experiment(tmp_path, PLAN)
    written(tmp_path, 300)
    board = Board(tmp_path, release=None, most=100)
    pages = pages_of(tmp_path, board=board)
    assert board.n_records == 100
    assert board.quality.n_unknown == 0  # nor is what was said of the older ones
    assert "no watcher saved it" in text_of(pages.page("/ui/experiments"))
    assert "older ones are in the log but not here" in text_of(pages.page("/ui"))
    written(tmp_path, 50, start=300)
    board.refresh()
    assert board.n_records == 150  # and what comes after is read once
    exact = Experiment(PLAN)
    exact.catch_up(TrafficLog(tmp_path))
    exact.save(tmp_path)
    board.refresh()
    assert board.trials["e"].status == exact.status()  # what the watcher kept, where the log is too long
    assert "those the watcher saved" in text_of(pages.page("/ui/experiments"))
    later = msgspec.structs.replace(PLAN, name="later", started=PLAN.started + 400)
    stop_experiment(tmp_path, "e", share=0.5, reason="long enough", time=later.started)
    start_experiment(tmp_path, later)
    written(tmp_path, 60, start=500, experiment="later")
    board.refresh()  # one that began within what is read is read from its beginning
    exact = Experiment(later)
    exact.catch_up(TrafficLog(tmp_path))
    assert exact.status().n_units == 60
    status = board.trials["later"].status
    assert status is not None
    assert status.metrics == exact.status().metrics


def test_memory_is_bounded_whatever_comes() -> None:
    tally = Tally(60.0, 10)
    for minute in range(50):
        tally.take(
            Record(
                candidate="c", example_id=f"{minute}-{i}", split="live", output="x", arm=f"arm{i}",
                role="answer", time=60.0 * minute + i, cost=Cost(latency_s=0.01),
            )
            for i in range(20)
        )  # fmt: skip
    assert len(tally.stretches) == 10
    assert len(tally.arms) == 9
    assert "other" in tally.arms
    late = Record(candidate="c", example_id="late", split="live", output="x", role="answer", time=1.0)
    tally.take([late])
    assert len(tally.stretches) == 10


def test_a_latency_is_told_within_its_bin() -> None:
    count = ArmCount()
    for ms in range(1, 1001):
        cost = Cost(latency_s=ms / 1000)
        count.take(Record(candidate="c", example_id=str(ms), split="live", output="x", cost=cost))
    assert count.latency_s(0.95) == pytest.approx(0.95, rel=0.03)
    assert ArmCount().latency_s(0.5) is None
    assert count.usd_each is None  # not known is not zero


def test_pieces_keep_every_row_and_its_order() -> None:
    records = tuple(
        Record(candidate="c", example_id=f"r{i}", split="live", output="x", time=float(i))
        for i in range(450)
    )
    said = tuple(Feedback(request_id=f"r{i}", time=i + 90.0, label="x") for i in range(0, 450, 7))
    cut = list(pieces(News(records=records, feedback=said, place=Place(records=450), is_all=True)))
    assert [len(one.records) for one in cut] == [200, 200, 50]
    assert tuple(r for one in cut for r in one.records) == records
    assert tuple(f for one in cut for f in one.feedback) == said
    seen: set[str] = set()
    for one in cut:
        seen |= {r.example_id for r in one.records}
        assert all(f.request_id in seen for f in one.feedback)


def test_numbers_and_axes_are_as_people_read_them() -> None:
    assert [figure(v, "share") for v in (None, 0.0, 0.123, 1.0)] == ["–", "0 %", "12.3 %", "100 %"]
    assert [figure(v, "seconds") for v in (0.0123, 2.0)] == ["12.3 ms", "2.00 s"]
    assert value_ticks(0.0, 1.0) == pytest.approx([0, 0.5, 1.0])
    assert 3 <= len(value_ticks(-0.13, 0.18)) <= 6
    assert [words for _, words in time_ticks(0.0, 3600.0)][:2] == ["00:00", "00:10"]
    assert line_plot([], said="", kind="share") == ""


def test_audits_and_shadows_are_shown_as_the_watcher_has_them(tmp_path: Path) -> None:
    plan = ExperimentPlan(
        name="s", kind="shadow", metrics=(Metric(name="label", margin=0.03), Metric(name="agreement"))
    )
    start_experiment(tmp_path, plan)
    rng = np.random.default_rng(2)
    exchanges = [
        *simulate_shadow(rng, 300, harmful=0.01, beneficial=0.01, experiment="s", time=1000.0),
        *simulate_cascade(rng, 400, threshold=0.9, audit_share=0.3, start=1000, time=2000.0),
    ]
    with TrafficWriter(tmp_path / "traffic") as log:
        log.write([r for e in exchanges for r in e.records], [f for e in exchanges for f in e.feedback])
    audit = AuditPlan(place="", threshold=0.9, epsilon=0.2)
    watch = Watch(tmp_path, audits=(audit,), alerts=Alerts(()))
    _, (cascade,) = watch.look(3000.0)
    watch.save()
    said = text_of(pages_of(tmp_path).page("/ui/experiments"))
    css = "good" if cascade.verdict == "HOLDS" else "open"
    assert f'Audits of the outermost route <span class="badge {css}' in said
    assert f"{cascade.n_audits:,} audits of {cascade.n_stood:,} answers" in said
    assert "300 pairs" in said
    assert said.count("treatment minus control</h3>") == 2
