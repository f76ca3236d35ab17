"""Experiments on a log: verdicts, late labels, restarts, broken assignments, ramps and rollbacks."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from jettison.cli.main import jettison
from jettison.errors import InvalidInput, UnknownName
from jettison.monitor.conduct import conduct, share_now, start_experiment, stop_experiment
from jettison.monitor.evidence import evidence_for
from jettison.monitor.experiment import Experiment, judge
from jettison.monitor.log import News, Place, TrafficLog
from jettison.monitor.observe_shadow import ShadowObserver
from jettison.monitor.plan import ExperimentPlan, Metric, RampStep, read_outcome, read_plan
from jettison.monitor.steer import read_control, steer
from jettison.testing.traffic import Arm, Exchange, TrafficWriter, simulate_shadow, simulate_split

GOOD, BAD, BROKEN = Arm(accuracy=0.95), Arm(accuracy=0.80), Arm(accuracy=0.2)


def plan(kind: str = "split", **changes: object) -> ExperimentPlan:
    made = ExperimentPlan(name="e", kind=kind, metrics=(Metric(name="label", margin=0.01),))  # type: ignore[arg-type]
    return msgspec.structs.replace(made, **changes)


def write(folder: Path, exchanges: Iterable[Exchange]) -> None:
    with TrafficWriter(folder / "traffic") as writer:
        for one in exchanges:
            writer.write(one.records, one.feedback)


def news(exchanges: Iterable[Exchange]) -> News:
    made = list(exchanges)
    return News(
        records=tuple(r for e in made for r in e.records),
        feedback=tuple(f for e in made for f in e.feedback),
        place=Place(),
        is_all=True,
    )


def test_a_clear_loss_is_rolled_back_and_the_gateway_is_told(tmp_path: Path) -> None:
    start_experiment(tmp_path, plan())
    assert share_now(tmp_path, plan()) == 0.5
    rng = np.random.default_rng(0)
    write(tmp_path, simulate_split(rng, 3000, control=GOOD, treatment=BAD))
    status, done = conduct(tmp_path, Experiment(plan()), TrafficLog(tmp_path), now=10.0)
    assert status.verdict == "ROLL BACK"
    assert done is not None
    assert "label (primary) lost more than its margin of 0.01" in done
    control = json.loads((tmp_path / "control.json").read_text())
    assert control["routes"] == {"": {"treatment_share": 0.0}}
    outcome = read_outcome(tmp_path, "e")
    assert outcome is not None
    assert (outcome.verdict, outcome.share, outcome.time) == ("ROLLED BACK", 0.0, 10.0)
    # Once ended, it is left alone, whatever a person sets after.
    steer(tmp_path, "", treatment_share=0.1, reason="by hand")
    _, done = conduct(tmp_path, Experiment(plan()), TrafficLog(tmp_path), now=11.0)
    assert done is None
    assert share_now(tmp_path, plan()) == 0.1


def test_a_process_that_dies_before_it_acts_is_followed_by_one_that_does(tmp_path: Path) -> None:
    start_experiment(tmp_path, plan())
    write(tmp_path, simulate_split(np.random.default_rng(0), 3000, control=GOOD, treatment=BAD))
    first = Experiment(plan())
    first.catch_up(TrafficLog(tmp_path))
    first.save(tmp_path)  # and killed here, with the verdict reached and nothing written
    assert share_now(tmp_path, plan()) == 0.5
    status, _ = conduct(tmp_path, Experiment.open(tmp_path, plan()), TrafficLog(tmp_path), now=1.0)
    assert status == first.status()
    assert share_now(tmp_path, plan()) == 0.0


@pytest.mark.parametrize("kind", ["split", "shadow"])
def test_a_restart_gives_the_same_statistic_to_the_last_digit(tmp_path: Path, kind: str) -> None:
    metrics = (Metric(name="label"), Metric(name="errors", role="guardrail"))
    if kind == "split":
        metrics += (Metric(name="latency_s", role="guardrail", margin=0.2),)
    made = plan(kind, metrics=metrics)
    start_experiment(tmp_path, made)
    rng = np.random.default_rng(1)
    if kind == "split":
        exchanges = simulate_split(rng, 400, control=GOOD, treatment=GOOD, labelled_share=0.7)
    else:
        exchanges = simulate_shadow(rng, 400, harmful=0.02, beneficial=0.02)
    log: TrafficLog | None = None
    with TrafficWriter(tmp_path / "traffic") as writer:
        for number, one in enumerate(exchanges):
            writer.write(one.records, one.feedback)
            if number == 0:
                log = TrafficLog(tmp_path)
            if number % 37 == 0:
                piecewise = Experiment.open(tmp_path, made)
                assert log is not None
                piecewise.catch_up(log)
                piecewise.save(tmp_path)
            if number == 200:
                writer.roll()
        assert log is not None
        piecewise = Experiment.open(tmp_path, made)
        piecewise.catch_up(log)
        whole = Experiment(made)
        whole.catch_up(log)
    assert piecewise.status() == whole.status()
    assert whole.status().n_units == 400


def test_shadow_pairs_that_agree_are_shown_to_be_not_worse() -> None:
    running = Experiment(plan("shadow", metrics=(Metric(name="label", margin=0.03),)))
    running.take(news(simulate_shadow(np.random.default_rng(0), 1500, harmful=0.002, beneficial=0.002)))
    status = running.status()
    assert status.verdict == "SHOWN"
    (finding,) = status.metrics
    assert finding.low is not None
    assert finding.high is not None
    assert -0.03 <= finding.low < 0 < finding.high < 0.05


def renamed(exchanges: Iterable[Exchange], tag: str) -> list[Exchange]:
    """The same requests under other names, so that they can follow others in one log."""
    changed = msgspec.structs.replace
    return [
        Exchange(
            records=tuple(
                changed(r, example_id=tag + r.example_id, key=None if r.key is None else tag + r.key)
                for r in one.records
            ),
            feedback=tuple(changed(f, request_id=tag + f.request_id) for f in one.feedback),
        )
        for one in exchanges
    ]


@pytest.mark.parametrize("kind", ["split", "shadow"])
def test_what_was_shown_and_breaks_later_is_rolled_back(kind: str) -> None:
    running = Experiment(plan(kind, metrics=(Metric(name="label", margin=0.05),)))
    rng = np.random.default_rng(3)

    def traffic(n: int, *, is_broken: bool) -> list[Exchange]:
        if kind == "split":
            return list(simulate_split(rng, n, control=GOOD, treatment=BROKEN if is_broken else GOOD))
        return list(simulate_shadow(rng, n, harmful=0.75 if is_broken else 0.005, beneficial=0.005))

    running.take(news(traffic(1500, is_broken=False)))
    assert running.status().verdict == "SHOWN"
    running.take(news(renamed(traffic(800, is_broken=True), "later-")))
    status = running.status()
    assert status.verdict == "ROLL BACK"
    (finding,) = status.metrics
    if (
        kind == "split"
    ):  # what is shown follows the loss, though the bounds of all looks do not meet any more
        assert finding.low is not None
        assert finding.high is not None
        assert finding.value is not None
        assert finding.low <= finding.value <= finding.high < -0.05


@pytest.mark.parametrize("kind", ["split", "shadow"])
def test_a_small_loss_after_a_long_good_time_is_rolled_back_and_said_to_be_late(kind: str) -> None:
    """The bounds over everything still hold: what is shown goes on to say so."""
    made = plan(kind, metrics=(Metric(name="errors", margin=0.03),))
    evidence = evidence_for(made.metrics[0], made)
    rng = np.random.default_rng(0)
    for n, loss in ((50_000, 0.0), (15_000, 0.08)):
        arm = rng.random(n) < 0.5
        outcome = (rng.random(n) < 0.95 - loss * arm).astype(float)
        difference = rng.choice([-1.0, 0.0, 1.0], p=[0.02 + loss, 0.96 - loss, 0.02], size=n)
        evidence.update(*((outcome, arm, np.full(n, 0.5)) if kind == "split" else (difference, (), ())))
        if not loss:
            assert evidence.finding().verdict == "holds"
    finding = evidence.finding()
    assert finding.verdict == "broken"
    assert finding.late_since is not None
    assert abs(finding.late_since - 50_000) < 3_000
    verdict, reason = judge((finding,), None)
    assert verdict == "ROLL BACK"
    assert "errors (primary) has lost more than its margin of 0.03 since about observation" in reason


def latencies(rng: np.random.Generator, n: int, *, factor: float) -> tuple[np.ndarray, ...]:
    """Seconds, arm and share of requests through hours that are slower and faster for all."""
    arm = rng.random(n) < 0.5
    hour = 1 + 0.8 * np.sin(np.arange(n) / 2000)
    return (
        0.02 * np.exp(0.5 * rng.standard_normal(n)) * hour * np.where(arm, factor, 1),
        arm,
        np.full(n, 0.5),
    )


def test_a_latency_that_grows_after_a_long_good_time_is_rolled_back() -> None:
    metric = Metric(name="latency_s", role="guardrail", margin=0.2)
    made, rng = plan(metrics=(metric,)), np.random.default_rng(0)
    evidence, pieces = evidence_for(metric, made), evidence_for(metric, made)
    for n, factor in ((50_000, 1.0), (5_000, 1.6)):
        traffic = latencies(rng, n, factor=factor)
        evidence.update(*traffic)
        for cut in np.array_split(np.arange(n), 70):
            pieces.update(*(column[cut] for column in traffic))
            pieces = evidence_for(metric, made, json.loads(json.dumps(pieces.state())))
        assert pieces.finding() == evidence.finding()  # however it is cut and kept
        if factor == 1.0:
            assert evidence.finding().verdict == "holds"
    finding = evidence.finding()
    assert finding.verdict == "broken"
    assert finding.high is not None
    assert finding.high > -0.2  # by the bounds over everything it is open
    assert finding.late_since is not None
    assert abs(finding.late_since - 50_000) < 1_000


def test_the_status_in_a_pipe_is_not_cut_short(tmp_path: Path) -> None:
    start_experiment(
        tmp_path, plan(metrics=(Metric(name="label"), Metric(name="errors", role="guardrail")))
    )
    write(tmp_path, simulate_split(np.random.default_rng(0), 60, control=GOOD, treatment=GOOD))
    done = CliRunner().invoke(jettison, ["experiment", "status", "e", "--state", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "guardrail" in done.output
    assert "…" not in done.output


def test_a_pair_counts_once_whenever_its_label_comes() -> None:
    made = plan("shadow", metrics=(Metric(name="label"), Metric(name="agreement")))
    whole = news(simulate_shadow(np.random.default_rng(0), 100, harmful=0.1, beneficial=0.1))
    running = Experiment(made)
    running.take(replace(whole, feedback=()))
    running.take(replace(whole, records=()))  # days later
    assert running.status().n_units == 100
    at_once = Experiment(made)
    at_once.take(whole)
    assert running.status() == at_once.status()


def test_each_metric_of_a_shadow_is_a_paired_difference() -> None:
    metrics = tuple(Metric(name=name) for name in ("agreement", "errors", "label"))
    running = Experiment(plan("shadow", metrics=metrics))
    running.take(news(simulate_shadow(np.random.default_rng(0), 200, harmful=0.5, beneficial=0.0)))
    agreement, errors, label = running.status().metrics
    assert agreement.value == label.value  # each harmful flip is one disagreement
    assert errors.value == 0.0


def test_a_shadow_that_fails_counts_as_an_error_and_as_nothing_else() -> None:
    metrics = tuple(Metric(name=name) for name in ("agreement", "errors", "latency_s", "label"))
    running = Experiment(plan("shadow", metrics=metrics))
    pairs = list(simulate_shadow(np.random.default_rng(0), 100, harmful=0.0, beneficial=0.0))
    lost = {"output": None, "error": "upstream_unreachable", "unanswered": True}
    failing = [
        Exchange(
            records=tuple(
                msgspec.structs.replace(r, **lost) if r.role == "shadow" and number < 30 else r
                for r in one.records
            ),
            feedback=one.feedback,
        )
        for number, one in enumerate(pairs)
    ]
    running.take(news(failing))
    found = {finding.metric: finding for finding in running.status().metrics}
    assert (found["errors"].n, found["errors"].value) == (100, pytest.approx(-0.3))
    assert (found["agreement"].n, found["label"].n) == (70, 70)


def test_a_failure_in_one_arm_scores_on_errors_alone() -> None:
    metrics = (Metric(name="errors"), Metric(name="escalated"))
    running = Experiment(plan(metrics=metrics))
    (one,) = simulate_split(np.random.default_rng(0), 1, control=GOOD, treatment=GOOD)
    lost = msgspec.structs.replace(one.records[0], output=None, error="engine_died", unanswered=True)
    running.take(News(records=(lost,), feedback=(), place=Place(), is_all=True))
    assert {f.metric: f.n for f in running.status().metrics} == {"errors": 1, "escalated": 0}


def test_late_labels_count_when_they_come_and_unknown_ones_are_told() -> None:
    exchanges = list(simulate_split(np.random.default_rng(0), 50, control=GOOD, treatment=GOOD))
    records = [msgspec.structs.replace(one, feedback=()) for one in map(_as_struct, exchanges)]
    running = Experiment(plan())
    running.take(news(Exchange(records=r.records, feedback=()) for r in records))
    assert running.status().metrics[0].n == 0
    late = tuple(f for one in exchanges for f in one.feedback)
    stranger = msgspec.structs.replace(late[0], request_id="never-asked")
    running.take(News(records=(), feedback=(*late, stranger), place=Place(), is_all=True))
    assert running.status().metrics[0].n == 50
    assert running.status().n_late == 1


class _Pair(msgspec.Struct):
    records: tuple
    feedback: tuple


def _as_struct(one: Exchange) -> _Pair:
    return _Pair(records=one.records, feedback=one.feedback)


def test_a_key_counts_once_however_often_it_asks() -> None:
    (first,) = simulate_split(np.random.default_rng(0), 1, control=GOOD, treatment=GOOD)
    again = tuple(msgspec.structs.replace(first.records[0], example_id=f"again{i}") for i in range(9))
    running = Experiment(plan(metrics=(Metric(name="errors"),)))
    running.take(News(records=(*first.records, *again), feedback=(), place=Place(), is_all=True))
    assert running.status().n_units == 1
    assert running.status().metrics[0].n == 1


def test_a_broken_assignment_voids_the_result() -> None:
    rng = np.random.default_rng(0)
    running = Experiment(plan())
    running.take(news(simulate_split(rng, 3000, control=GOOD, treatment=GOOD, drawn_share=0.4)))
    status = running.status()
    assert status.verdict == "VOID"
    assert "the arms do not get their shares" in status.reason


def test_answers_missing_from_one_arm_void_the_result() -> None:
    rng = np.random.default_rng(0)
    failing = Arm(accuracy=0.95, error_share=0.2)
    running = Experiment(plan())
    running.take(news(simulate_split(rng, 4000, control=GOOD, treatment=failing, labelled_share=0.0)))
    ratio = running.status().ratio
    assert ratio is not None
    assert ratio.is_broken
    assert ratio.worst == "missing"


def test_a_slower_tail_breaks_the_latency_guardrail_and_an_equal_one_holds() -> None:
    metrics = (Metric(name="errors"), Metric(name="latency_s", role="guardrail", margin=0.2))
    for factor, verdict in ((1.6, "broken"), (1.0, "holds")):
        running = Experiment(plan(metrics=metrics))
        slow = Arm(latency_s=0.02 * factor)
        running.take(news(simulate_split(np.random.default_rng(0), 20_000, control=Arm(), treatment=slow)))
        assert running.status().metrics[1].verdict == verdict


def test_a_ramp_goes_by_schedule_and_never_back(tmp_path: Path) -> None:
    steps = (
        RampStep(share=0.01),
        RampStep(share=0.1, after_s=60, min_units=100),
        RampStep(share=0.5, after_s=120),
    )
    made = plan(ramp=steps, started=1000.0)
    start_experiment(tmp_path, made)
    write(tmp_path, simulate_split(np.random.default_rng(0), 20, control=GOOD, treatment=GOOD, share=0.01))
    running, log = Experiment(made), TrafficLog(tmp_path)
    shares = []
    for now in (1001.0, 1061.0, 1121.0):
        conduct(tmp_path, running, log, now=now)
        shares.append(share_now(tmp_path, made))
    assert shares == [0.01, 0.01, 0.5]  # too few keys for the second step; the third asks for none
    steer(tmp_path, "", treatment_share=0.7, reason="by hand")
    conduct(tmp_path, running, log, now=1200.0)
    assert share_now(tmp_path, made) == 0.7


def test_a_promotion_gives_treatment_everything(tmp_path: Path) -> None:
    made = plan(promote=True, metrics=(Metric(name="label", margin=0.1),))
    start_experiment(tmp_path, made)
    write(tmp_path, simulate_split(np.random.default_rng(0), 4000, control=GOOD, treatment=GOOD))
    _, done = conduct(tmp_path, Experiment(made), TrafficLog(tmp_path), now=1.0)
    assert done is not None
    assert done.startswith("PROMOTED")
    assert share_now(tmp_path, made) == 1.0


def test_what_was_said_of_other_routes_stays(tmp_path: Path) -> None:
    steer(tmp_path, "control/lean", threshold=0.93, reason="audits")
    start_experiment(tmp_path, plan())
    stop_experiment(tmp_path, "e", share=0.0, reason="enough", time=5.0)
    control = read_control(tmp_path)
    assert control.routes["control/lean"].threshold == 0.93
    assert control.routes[""].treatment_share == 0.0
    assert control.experiment == "e"


def test_bad_plans_are_refused(tmp_path: Path) -> None:
    bad = {
        "margin": (plan(metrics=(Metric(name="label", margin=1.0),)), "margin of label must be in"),
        "kind": (plan(metrics=(Metric(name="agreement"),)), "agreement needs a shadow, got a split"),
        "role": (plan(metrics=(Metric(name="label", role="guardrail"),)), "at least one primary"),
        "ramp": (plan(ramp=(RampStep(share=0.5), RampStep(share=0.1))), "a ramp must rise"),
        "all": (plan(ramp=(RampStep(share=1.0),)), "must stay under 1"),
        "twice": (plan(metrics=(Metric(name="label"), Metric(name="label"))), "must stand once"),
        "most": (plan(metrics=(Metric(name="price_usd"),)), "needs `most`"),
        "name": (plan(name="../x"), "an experiment's name must be"),
    }
    for made, message in bad.values():
        with pytest.raises(InvalidInput, match=message):
            start_experiment(tmp_path, made)
    with pytest.raises(UnknownName, match="a metric must be one of"):
        start_experiment(tmp_path, plan(metrics=(Metric(name="clicks"),)))
    start_experiment(tmp_path, plan())
    with pytest.raises(InvalidInput, match="must be new"):
        start_experiment(tmp_path, plan())
    with pytest.raises(UnknownName, match=r"must be one of \['e'\]"):
        read_plan(tmp_path, "f")


def test_one_experiment_runs_at_a_time_and_one_that_ended_is_left_alone(tmp_path: Path) -> None:
    """A record belongs to one experiment: a second one would take the first one's traffic away."""
    start_experiment(tmp_path, plan())
    second = plan(name="second")
    with pytest.raises(InvalidInput, match=r"only one experiment .* got 'e' running. End it with"):
        start_experiment(tmp_path, second)
    stop_experiment(tmp_path, "e", share=0.0, reason="by hand", time=1.0)
    start_experiment(tmp_path, second)
    with pytest.raises(InvalidInput, match="'e' must be running, got one that ended: STOPPED"):
        stop_experiment(tmp_path, "e", share=0.0, reason="again", time=2.0)
    assert share_now(tmp_path, second) == 0.5


def test_a_folder_without_a_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="must hold a traffic log"):
        TrafficLog(tmp_path)


def test_rows_in_the_live_file_and_in_a_segment_are_read_once(tmp_path: Path) -> None:
    exchanges = list(simulate_split(np.random.default_rng(0), 30, control=GOOD, treatment=GOOD))
    with TrafficWriter(tmp_path) as writer:
        for one in exchanges[:20]:
            writer.write(one.records, one.feedback)
        kept = writer._connection.execute("SELECT seq, time, request_id, body FROM records").fetchall()
        writer.roll()
        writer._connection.executemany("INSERT INTO records VALUES (?, ?, ?, ?)", kept[10:])  # both places
        for one in exchanges[20:]:
            writer.write(one.records, one.feedback)
        found = TrafficLog(tmp_path).read()
        assert [r.example_id for r in found.records] == [f"r{i}" for i in range(30)]
        assert found.records == tuple(r for one in exchanges for r in one.records)
        assert len(found.feedback) == 30
        part = TrafficLog(tmp_path).read(most=7)
        assert (len(part.records), part.feedback, part.is_all) == (7, (), False)
        rest = TrafficLog(tmp_path).read(part.place)
        assert len(rest.records) == 23


def test_answers_without_a_shadow_are_forgotten_after_an_hour() -> None:
    """Most requests have none: remembered for ever, they would be the whole traffic."""
    running = Experiment(plan("shadow", metrics=(Metric(name="errors"),)))
    pairs = list(simulate_shadow(np.random.default_rng(0), 50, harmful=0, beneficial=0))
    alone = [
        msgspec.structs.replace(one.records[0], example_id=f"a{k}", time=100.0 * k)
        for k, one in enumerate(pairs * 2)
    ]
    running.take(News(records=tuple(alone), feedback=(), place=Place(), is_all=True))
    assert isinstance(running._observer, ShadowObserver)
    assert len(running._observer.half) == 37  # 9,900 - 3,600 s and later
    late = msgspec.structs.replace(pairs[0].records[1], example_id="a99", time=9900.0 + 3601)
    running.take(News(records=(late,), feedback=(), place=Place(), is_all=True))
    assert running.status().n_units == 0  # its other half came too long before
