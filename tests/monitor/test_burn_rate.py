"""Burn rates against the textbook's windows, by hand, and on a real stream with a known incident."""

import sys
from pathlib import Path

import numpy as np
import pytest

from jettison.errors import InvalidInput
from jettison.monitor.alerts import Alerts
from jettison.monitor.burn_rate import BurnRates, slo_from
from jettison.monitor.log import News, Place
from jettison.monitor.watch import Watch
from jettison.record import Cost, Record
from jettison.testing.traffic import TrafficWriter

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
from nab_slo import SHARED, Found, found_by, read_stream


def record(time, *, latency_s=0.1, error=None, role="answer", price_usd=None):
    return Record(
        candidate="a", example_id=f"r{time}", split="live", output="x", time=float(time), role=role,
        error=error, cost=Cost(latency_s=latency_s, price_usd=price_usd),
    )  # fmt: skip


def took(slo, records):
    rates = BurnRates([slo_from(slo)])
    rates.take(News(records=tuple(records), feedback=(), place=Place(), is_all=True))
    return rates


@pytest.mark.parametrize(
    ("bad_share", "severity"),
    [(0.0002, None), (0.012, "warning"), (0.0165, "critical"), (0.5, "critical")],
)
def test_an_hour_of_errors_pages_above_14_4_times_the_budget(bad_share, severity):
    # Five requests a second, five clean hours and one that is not; 99.9 % asked, so 1.44 % bad is the line.
    now, rng = 10 * 86400.0, np.random.default_rng(0)
    clean = [record(now - 6 * 3600 + i * 0.2) for i in range(5 * 18000)]
    bad = rng.random(18000) < bad_share
    hour = [record(now - 3600 + i * 0.2, error="x" if bad[i] else None) for i in range(18000)]
    (status,) = took("errors:0.999", clean + hour).status_at(now)
    assert status.severity == severity


def test_a_burst_that_is_over_does_not_page_and_one_that_goes_on_does():
    now = 86400.0
    burst = [record(now - 3000 + i, error="x" if i < 600 else None) for i in range(3000)]
    (alert,) = took("errors:0.99", burst).alerts(now)
    assert alert.severity == "warning"  # over three days it is still more than may be
    going = [record(now - 3000 + i, error="x" if i >= 2400 else None) for i in range(3000)]
    (alert,) = took("errors:0.99", going).alerts(now)
    assert alert.severity == "critical"
    assert "times as fast as it may be over 1 h" in alert.message


def test_windows_are_counted_by_hand():
    now = 7200.0
    rates = took(
        "latency_s:0.9:0.2", [record(now - i, latency_s=0.3 if i % 4 == 0 else 0.1) for i in range(240)]
    )
    window = rates.window(0, 3600, now)
    assert (window.n, window.bad) == (240, 60)
    assert window.burn_rate == pytest.approx(0.25 / 0.1)


def test_no_answer_misses_a_latency_and_an_unmeasured_one_is_unknown():
    rates = took(
        "latency_s:0.9:0.2", [record(100, latency_s=0.001, error="x"), record(101, latency_s=None)]
    )
    window = rates.window(0, 300, 120)
    assert (window.n, window.bad) == (1, 1)
    assert rates.status()[0].n_unknown == 1


def test_an_answer_that_comes_too_soon_is_as_bad_as_one_too_late():
    took_s = (0.019, 0.02, 0.1, 0.2, 0.21)
    rates = took("latency_s:0.9:0.02..0.2", [record(100 + i, latency_s=s) for i, s in enumerate(took_s)])
    window = rates.window(0, 300, 120)
    assert (window.n, window.bad) == (5, 2)
    assert rates.state()["slos"] == ["latency_s:0.9:0.02..0.2"]
    assert slo_from("latency_s:0.9:1e-3..2e-1").least == 0.001


def test_a_mean_counts_what_shadows_cost_and_a_request_once():
    rates = took("price_usd:mean:0.001", [
        record(100, price_usd=0.001), record(100, price_usd=0.003, role="shadow"),
    ])  # fmt: skip
    assert rates.window(0, 300, 120).burn_rate == pytest.approx(4.0)


def test_few_requests_never_alarm():
    assert took("errors:0.999", [record(1000 + i, error="x") for i in range(19)]).alerts(1020) == ()
    assert took("errors:0.999", [record(1000 + i, error="x") for i in range(20)]).alerts(1020)


def test_a_watcher_tells_once_and_goes_on_where_it_stopped(tmp_path):
    with TrafficWriter(tmp_path / "log") as log:
        log.write([record(1000 + i, error="x") for i in range(50)])
        told = []

        class Sink:
            def send(self, alert):
                told.append(alert)

        def watch():
            slos = [slo_from("errors:0.999"), slo_from("latency_s:0.5:1")]
            return Watch(tmp_path, audits=(), alerts=Alerts((Sink(),)), parts=(BurnRates(slos),))

        first = watch()
        first.look(1050.0)
        first.look(1051.0)
        first.save()
        log.write([record(1100 + i) for i in range(50)])
        second = watch()
        second.look(1150.0)
    assert [alert.name for alert in told] == ["slo_burn_rate"] * 2  # errors, and no answer is never in time
    (errors, _) = second.parts[0].status_at(1150.0)
    assert errors.windows[0].n == 100


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("latency_s", "must be METRIC:SHARE:LIMIT"),
        ("speed:0.9:1", "must be one of"),
        ("errors:1.5", "between 0 and 1"),
        ("errors:0.9:3", "none for errors"),
        ("latency_s:0.9", "a limit above 0"),
        ("latency_s:0.9:-1", "a limit above 0"),
        ("errors:mean", "must have a share"),
        ("latency_s:0.9:0.2..0.1", "must be LEAST..LIMIT"),
        ("latency_s:0.9:0..0.1", "must be LEAST..LIMIT"),
        ("latency_s:0.9:0.1..", "must be METRIC:SHARE:LIMIT"),
        ("latency_s:0.9:..0.1", "must be METRIC:SHARE:LIMIT"),
        ("price_usd:mean:0.1..0.2", "must be LEAST..LIMIT"),
    ],
)
def test_a_service_level_that_says_nothing_is_refused(text, rule):
    with pytest.raises(InvalidInput, match=rule):
        slo_from(text)


@pytest.mark.shared
def test_the_incidents_of_a_real_latency_stream_are_found_and_nothing_else():
    folder = SHARED / "data" / "nab_streams"
    if not folder.is_dir():
        pytest.skip("needs the NAB streams in ../shared/data")
    stream = read_stream(folder)
    # Of the first incident no point is slower than those of clean days: no upper limit on latency shows it.
    assert found_by(f"latency_s:0.99:{stream.slowest_s}", stream) == Found(incidents={1, 2}, n_outside=0)
    # One point of it is far too fast. Limits beyond which a clean point falls with 1 % in the rest of
    # the stream, by the normal law of the clean days, show all three.
    least_s, most_s = stream.normal_range_s(alpha=0.01)
    found = found_by(f"latency_s:0.995:{least_s}..{most_s}", stream)
    assert found == Found(incidents={0, 1, 2}, n_outside=0)
