"""Runs under load on fake candidates and loopback servers: scenarios, searches, checks, what is kept."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from http_load_server import LoadServer
from jettison.candidate import Candidate, write_candidate
from jettison.cli.cost import command
from jettison.cost.calls import Calls, Wire
from jettison.cost.canary import canary_drift, run_canary
from jettison.cost.http_target import http_target
from jettison.cost.load_measure import Scenario, measure_load
from jettison.cost.load_summary import WireShares, block_ratio, tail_of
from jettison.cost.load_target import Prices
from jettison.cost.load_types import LoadReport, RatePoint, Slo, Tail
from jettison.cost.per_correct import correct_share, per_correct
from jettison.cost.slo import find_rate, read_slo
from jettison.cost.timers import TimerFloor, measure_timers
from jettison.cost.validity import check_blocks, steady_words
from jettison.decide.report_load import load_notes, load_rows, ratio_words, tail_words
from jettison.decide.report_load_page import load_page
from jettison.decision import Interval, PhaseMemory
from jettison.errors import InvalidInput, JettisonError

TEXTS = [f"text {i}" for i in range(20)]
FLOOR = TimerFloor(late_p50_s=1e-5, late_p99_s=1e-3, resolution_s=1e-7)


def fake(folder: Path, name: str, latency_s: float) -> Candidate:
    (folder / name).mkdir()
    return write_candidate(
        folder / name, name=name, backend="fake", labels=("a", "b"), settings={"latency_s": latency_s}
    )


def block(latency_s: "list[float] | np.ndarray", *, gap_s: float = 0.1, late_s: float = 0.0) -> Calls:
    n = len(latency_s)
    due = [i * gap_s for i in range(n)]
    sent = [d + late_s for d in due]
    return Calls(
        rows=[0] * n,
        due_s=due,
        sent_s=sent,
        late_s=[late_s] * n,
        done_s=[d + float(x) for d, x in zip(due, latency_s, strict=True)],
        first_s=[None] * n,
        errors=[None] * n,
        outputs=["a"] * n,
        prompt_tokens=[None] * n,
        completion_tokens=[None] * n,
        payload_bytes=[10] * n,
        wall_s=n * gap_s,
        wire=Wire(
            sent_bytes=20 * n, received_bytes=10 * n, resent_bytes=0, n_segments=2 * n, n_connections=1
        ),
    )


@pytest.mark.slow
def test_two_candidates_under_poisson_load_have_paired_ratios_and_a_noise_floor(tmp_path: Path) -> None:
    found = measure_load(
        [fake(tmp_path, "large", 0.004), fake(tmp_path, "lean", 0.0005)],
        TEXTS,
        Scenario(kind="server", rate_per_s=40, duration_s=2.4),
        openings=2,
        prices=Prices(usd_per_hour=0.36),
        judge=lambda row, said: float(row % 2),
    )
    large, lean = found.targets
    assert found.n_blocks == 6
    assert large.n_tasks == lean.n_tasks > 40
    assert large.latency_ratio == found.aa_ratio  # of the first itself: its twin
    assert lean.latency_ratio is not None
    assert lean.latency_ratio.value < 1
    assert found.n_openings == 2
    assert "2 openings in fresh processes" in lean.latency_ratio.method
    assert lean.cpu_ratio is not None
    assert lean.cpu_ratio.value == pytest.approx(0.125, rel=0.5)
    assert found.aa_ratio is not None
    assert found.aa_ratio.low <= found.aa_ratio.value <= found.aa_ratio.high
    assert large.cpu_s == pytest.approx(0.004, rel=0.5)
    assert large.latency_p50_s is not None
    assert large.latency_p50_s.value_s is not None
    assert large.latency_p50_s.value_s >= (large.service_p50_s or 0)
    # 0.36 USD an hour is 0.1 mUSD a second, paid whether or not a request is there.
    assert lean.usd_per_1000 == pytest.approx(0.1 / lean.rate_delivered_per_s)
    assert lean.correct_share is not None
    assert lean.correct_share.value == pytest.approx(0.5, abs=0.1)
    assert lean.per_correct["cpu_s"].value == pytest.approx((lean.cpu_s or 0) * 2, rel=0.6)
    assert (large.energy_tier or "").startswith("E")
    assert large.energy_idle_j is not None
    assert large.energy_j == pytest.approx((large.energy_dynamic_j or 0) + large.energy_idle_j)
    row = next(row for row in load_rows(found) if row.name == "Median latency over the first's")
    assert row.figures[0].startswith("A/A: ")
    assert row.figures[1] != "not measured"
    page = load_page(found).decode()
    assert "large" in page
    assert "<svg" in page
    assert any("A/A" in note for note in load_notes(found))


def test_the_same_seed_asks_the_same_at_the_same_moments(tmp_path: Path) -> None:
    with LoadServer() as server:
        seen = []
        for _ in range(2):
            server.bodies.clear()
            measure_load(
                [http_target(f"{server.url}/x")],
                TEXTS,
                Scenario(kind="trace", trace_s=tuple(np.arange(60) * 0.005), duration_s=9.0),
                seed=3,
            )
            seen.append(server.bodies[-120:])
    assert seen[0] == seen[1]


@pytest.mark.parametrize("kind", ["single-stream", "offline"])
def test_an_address_is_measured_without_a_queue_and_all_at_once(kind: str) -> None:
    with LoadServer(delay=lambda _: 0.01) as server:
        found = measure_load(
            [http_target(f"{server.url}/x", concurrency=8)],
            TEXTS,
            Scenario(kind=kind, duration_s=0.6),  # type: ignore[arg-type]
        )
    only = found.targets[0]
    assert only.n_failed == 0
    assert only.cpu_s is None  # the server's work is not to be seen
    assert only.energy_j is None
    assert only.wire_payload_bytes is not None
    assert only.wire_protocol_bytes is not None
    assert only.wire_protocol_bytes > 100
    if kind == "single-stream":
        assert 20 < only.rate_delivered_per_s < 105
    else:
        assert only.rate_delivered_per_s > 110  # eight at once


@pytest.mark.slow
def test_a_target_that_dies_keeps_what_was_measured_and_the_other_goes_on(tmp_path: Path) -> None:
    server = LoadServer(die_after=200)
    found = measure_load(
        [fake(tmp_path, "here", 0.001), http_target(f"{server.url}/x")],
        TEXTS,
        Scenario(kind="server", rate_per_s=100, duration_s=4.2),
        openings=1,
    )
    server.close()
    here, gone = found.targets
    assert gone.n_tasks < here.n_tasks
    assert any(mark.startswith("the target stopped answering after") for mark in gone.marks)
    assert here.n_failed == 0
    assert "which are kept" in " ".join(load_notes(found))


def test_an_address_nobody_listens_at_is_one_clear_error() -> None:
    with LoadServer() as server:
        url = server.url
    with pytest.raises(
        JettisonError, match=r"must answer to be measured, but its first answer failed: no connec"
    ):
        measure_load([http_target(f"{url}/x")], TEXTS, Scenario(kind="single-stream", duration_s=1))


@pytest.mark.parametrize(
    ("scenario", "message"),
    [
        (Scenario(kind="server"), r"server must have a rate \(--rate\) or a limit .* got neither"),
        (Scenario(kind="server", rate_per_s=1, slo=Slo(share=0.9, limit_s=1)), r"got both"),
        (Scenario(kind="trace"), r"trace must have arrivals, got none. Give --trace FILE"),
        (Scenario(kind="offline", rate_per_s=1), r"are of the server scenario, got them for offline"),
        (Scenario(kind="offline", duration_s=0), r"the duration must be in 0-86400 s"),
    ],
)
def test_a_scenario_that_lacks_something_is_refused(scenario: Scenario, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        measure_load([http_target("http://127.0.0.1:9/x")], TEXTS, scenario)


def probe_of(capacity: float, floor_s: float, *, limit_s: float) -> "tuple[list[float], object]":
    """An M/M/1 server's p95, known without doubt: log(20) / (capacity - rate), and a floor."""
    asked: list[float] = []

    def probe(rate: float) -> RatePoint:
        asked.append(rate)
        value = floor_s + (np.log(20) / (capacity - rate) if rate < capacity else 1e3)
        tail = Tail(value_s=value, low_s=value, high_s=value)
        return RatePoint(
            rate_per_s=rate, n_tasks=1000, latency_p50_s=value, tail=tail, missed_share=0.0,
            is_met=bool(value <= limit_s), is_valid=True,
        )  # fmt: skip

    return asked, probe


@pytest.mark.parametrize("first", [3.0, 50.0, 90.0])
def test_the_highest_rate_is_found_within_a_tenth_from_wherever_the_search_starts(first: float) -> None:
    # p95 = log(20) / (100 - rate) <= 0.1 s at 100 - 29.96 = 70.04 per second.
    asked, probe = probe_of(100, 0.0, limit_s=0.1)
    found = find_rate(probe, first_per_s=first, slo=Slo(share=0.95, limit_s=0.1))  # type: ignore[arg-type]
    assert found.rate_per_s is not None
    assert 70.04 / 1.1 <= found.rate_per_s <= 70.04
    assert [point.rate_per_s for point in found.curve] == sorted(asked)
    assert "p95 <= 100 ms held at" in found.reason


def test_a_limit_below_the_service_time_is_met_by_no_rate_and_says_so() -> None:
    _, probe = probe_of(100, 0.2, limit_s=0.1)
    found = find_rate(probe, first_per_s=50, slo=Slo(share=0.95, limit_s=0.1))  # type: ignore[arg-type]
    assert found.rate_per_s is None
    assert found.reason.startswith(
        "no rate was shown to meet p95 <= 100 ms: even at 3.12 per second, the perc"
    )


def test_an_slo_is_written_as_people_write_it() -> None:
    assert read_slo("p95=20ms") == Slo(share=0.95, limit_s=0.02)
    assert read_slo("p99.9<=1.5s") == Slo(share=0.999, limit_s=1.5)
    for wrong in ("95=20ms", "p95=20", "p0=1s", "p95=0ms"):
        with pytest.raises(InvalidInput, match=r"an SLO must be"):
            read_slo(wrong)


def test_a_client_that_sends_late_makes_no_claim() -> None:
    rng = np.random.default_rng(0)
    clean = [block(rng.uniform(0.009, 0.011, 200)) for _ in range(6)]
    late = [block(rng.uniform(0.009, 0.011, 200), late_s=0.008) for _ in range(6)]
    some = [block(rng.uniform(0.009, 0.011, 200), late_s=0.002) for _ in range(6)]

    def check(blocks: list[Calls]) -> "tuple[bool, tuple[str, ...]]":
        found = check_blocks(blocks, floor=FLOOR, is_poisson=False, is_open=True, runs_here=False)
        return found.is_claim, found.marks

    assert check(clean) == (True, ())
    assert check(late)[0] is False
    assert "no claim: the client itself sent requests late" in check(late)[1][0]
    assert check(some)[0] is True
    assert "the client itself sent requests late" in check(some)[1][0]


def test_a_client_that_stretches_the_schedule_or_sends_at_even_gaps_is_told() -> None:
    calls = block(np.full(400, 0.01), gap_s=0.01)
    stretched = Calls(**{**{f: getattr(calls, f) for f in Calls.__struct_fields__},
                         "sent_s": [1.2 * d for d in calls.due_s]})  # fmt: skip
    found = check_blocks([stretched], floor=FLOOR, is_poisson=True, is_open=True, runs_here=False)
    assert found.is_claim is False
    assert any("delivered 83% of the rate" in mark for mark in found.marks)
    assert found.gaps_ks_p is not None
    assert found.gaps_ks_p < 1e-6
    assert any("not Poisson's" in mark for mark in found.marks)


def test_a_level_that_changes_once_is_found_and_noise_is_not() -> None:
    rng = np.random.default_rng(1)
    noise = rng.normal(1.0, 0.1, 30)
    assert steady_words([*noise[:18], *(1.5 * noise[18:])]).startswith("not steady: from block 19 of 30")
    alarms = sum(steady_words(list(rng.normal(1.0, 0.3, 30))) != "" for _ in range(100))
    assert alarms <= 6
    assert steady_words([1.0, 9.0]) == ""


def test_the_canary_tells_a_machine_that_slows_down() -> None:
    rng = np.random.default_rng(0)
    calm = rng.normal(1.0, 0.01, 40)
    assert canary_drift(list(calm)) is None
    drift = canary_drift([*calm[:20], *(1.1 * calm[20:])])
    assert drift == pytest.approx(0.1, abs=0.02)
    assert canary_drift([1.0, 2.0]) is None
    assert 0 < run_canary(repeats=1) < 0.5
    assert measure_timers().late_p50_s > 0


def test_a_cost_per_correct_answer_is_the_cost_over_the_share() -> None:
    found = per_correct([2.0], [1.0, 1.0, 0.0, 0.0] * 25)
    assert found is not None
    assert found.value == pytest.approx(4.0)
    # A known cost over Wilson's bounds of 50 of 100, 0.40383 and 0.59617.
    assert (found.low, found.high) == pytest.approx((2 / 0.59617, 2 / 0.40383), rel=1e-4)
    # All of few answers right is no certainty: 20 of 20 may be 83.9 % (Wilson).
    sure = per_correct([2.0], [1.0] * 20)
    assert sure is not None
    assert (sure.low, sure.high) == pytest.approx((2.0, 2 / 0.83887), rel=1e-4)
    assert per_correct([2.0], [0.0, 0.0]) is None
    assert per_correct([], [1.0]) is None
    assert correct_share([]) is None
    share = correct_share([1.0] * 8 + [0.0] * 2)
    assert share is not None
    assert (round(share.low, 3), round(share.high, 3)) == (0.490, 0.943)  # Wilson, 8 of 10


def test_the_interval_of_a_cost_per_correct_answer_covers_it_as_often_as_it_says() -> None:
    from scipy.stats import binomtest

    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(400):
        found = per_correct(list(rng.gamma(20, 0.1, 30)), list(rng.binomial(1, 0.7, 200).astype(float)))
        assert found is not None
        hits += found.low <= 2.0 / 0.7 <= found.high
    assert binomtest(hits, 400, 0.95).pvalue > 1e-4


def test_bytes_are_payload_protocol_and_modelled_headers_apart() -> None:
    shares = WireShares([block(np.full(10, 0.1)), block(np.full(30, 0.1))])
    # Streams 30 bytes a request, of which 10 are bodies; two packets of 40 bytes of headers each.
    assert (shares.payload_bytes, shares.protocol_bytes, shares.packet_bytes) == (10, 20, 80)
    assert shares.resent_bytes == 0


def test_ratios_of_blocks_pair_them_and_refuse_those_among_the_failed() -> None:
    rng = np.random.default_rng(0)
    base = [[block(np.full(60, level))] for level in rng.uniform(0.1, 1.0, 10)]
    half = [[block(b.latency_s / 2)] for (b,) in base]
    found = block_ratio(half, base, 0.95, is_open=True)
    assert found is not None
    assert (found.low, found.high) == (pytest.approx(0.5), pytest.approx(0.5))
    assert "10 openings" in found.method
    once = block_ratio([[part for (part,) in half]], [[part for (part,) in base]], 0.95, is_open=True)
    assert once is not None
    assert once.value == pytest.approx(0.5)
    assert "one process each" in once.method
    assert block_ratio([[block(np.full(60, np.inf))]] * 10, base, 0.5, is_open=True) is None
    assert block_ratio([[block(np.full(20, 0.1))]] * 10, base, 0.95, is_open=True) is None
    # Three blocks of twenty make one opening of sixty, which is enough for a 95th percentile.
    few = [[block(np.full(20, level))] * 3 for level in rng.uniform(0.1, 1.0, 4)]
    assert block_ratio(few, few, 0.95, is_open=True) is not None


def test_words_never_hide_that_something_is_not_known() -> None:
    assert tail_words(None) == "not measured"
    assert tail_words(Tail(value_s=None, low_s=1.0, high_s=None)) == "among the failed"
    assert tail_words(Tail(value_s=1.0, low_s=0.5, high_s=None)) == "≥ 500 ms, not certifiable"
    assert tail_words(tail_of(np.arange(10.0), 0.5)) == "4 s (no interval)"
    assert ratio_words(Interval(value=0.98, low=0.9, high=1.1)).endswith("no difference shown")


def run(*arguments: str) -> "tuple[int, str]":
    found = CliRunner().invoke(command, arguments, catch_exceptions=False, standalone_mode=False)
    return found.return_value, found.stdout


def test_the_command_measures_an_address_and_writes_json_and_page(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("one\ntwo\nthree\n")
    with LoadServer() as server:
        code, text = run(
            f"{server.url}/x", "--input", str(tmp_path / "texts.txt"), "--scenario", "server",
            "--rate", "60", "--duration", "1.8", "--output", str(tmp_path / "out"),
        )  # fmt: skip
    assert code == 0
    assert "server: open loop, Poisson arrivals at 60 per s" in text
    told = json.loads((tmp_path / "out" / "cost.json").read_text())
    assert told["targets"][0]["rate_asked_per_s"] == 60
    assert "Costs" in (tmp_path / "out" / "cost.html").read_text()
    plain = {"name", "kind", "failures", "marks", "curve", "is_claim", "per_correct", "memory", "moved"}
    units = ("_s", "_j", "_bytes", "_usd", "_share", "_tokens", "_ratio", "_g", "_p", "_1000",
             "_tier", "_factor", "_boundary", "_source", "_reason")  # fmt: skip
    # `memory` is a record of its own: of an address it is null, so its fields are taken from the type.
    for name in (*told["targets"][0], *PhaseMemory.__struct_fields__):
        assert name in plain or name.startswith("n_") or name.endswith(units), name


def test_a_limit_no_rate_can_meet_is_an_answer_and_exit_code_1(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("one\ntwo\n")
    with LoadServer(delay=lambda _: 0.02) as server:
        code, text = run(
            f"{server.url}/x", "--input", str(tmp_path / "texts.txt"), "--scenario", "server",
            "--slo", "p50=5ms", "--duration", "1", "--json",
        )  # fmt: skip
    told = json.loads(text)
    assert code == 1
    assert told["rate_per_s"] is None
    assert told["targets"][0]["slo_rate_per_s"] is None
    assert told["targets"][0]["slo_reason"].startswith("no rate was shown to meet p50 <= 5 ms")
    assert told["targets"][0]["curve"][0]["is_met"] is False


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--duration", "5"], r"--duration must come with a --scenario or an address"),
        (["--scenario", "trace", "--rate", "5"], r"--rate must come without --scenario trace"),
        (
            ["--scenario", "offline", "--trace", "x"],
            r"--trace must come with --scenario trace, got offline",
        ),
        (["--scenario", "server", "--slo", "fast"], r"an SLO must be written as p95=20ms, got 'fast'"),
    ],
)
def test_options_that_would_go_unheard_are_refused(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    fake(tmp_path, "one", 0.001)
    (tmp_path / "texts.txt").write_text("one\n")
    with pytest.raises(InvalidInput, match=message):
        run(str(tmp_path / "one"), "--input", str(tmp_path / "texts.txt"), *arguments)


def test_a_report_survives_json(tmp_path: Path) -> None:
    import msgspec

    found = measure_load(
        [fake(tmp_path, "one", 0.001)], TEXTS, Scenario(kind="offline", duration_s=0.3), openings=1,
        prices=Prices(usd_per_hour=0.36, own_rate_per_s=1.0),
    )  # fmt: skip
    # 0.36 USD an hour at one task a second, however many it could do.
    assert found.targets[0].own_rate_usd_per_1000 == pytest.approx(0.1)
    assert msgspec.json.decode(msgspec.json.encode(found), type=LoadReport) == found
    rows = {row.name: row.figures for row in load_rows(found)}
    assert next(iter(rows)) == "Claim"
    # Alone, it is compared with its twin.
    assert rows["Median latency over the first's"][0].startswith("A/A: ")
