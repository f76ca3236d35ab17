"""Safety incidents: counted among the answers in which they could be seen, bounded exactly, told once."""

import json
import math
from pathlib import Path

import msgspec
import numpy as np
import pytest
from scipy import stats

from jettison.cli.main import main
from jettison.errors import InvalidInput, NotEnoughData
from jettison.incident import INCIDENTS_FILE, IncidentCount, Incidents
from jettison.monitor.alerts import Alerts, FileSink
from jettison.monitor.dashboard.board import Board
from jettison.monitor.dashboard.pages import Pages, Places
from jettison.monitor.dashboard.safety import rare
from jettison.monitor.incidents import IncidentLimit, IncidentWatch, limit_from
from jettison.monitor.log import News, Place
from jettison.monitor.watch import Watch
from jettison.record import Record
from jettison.stats.rare_events import rate_above_log_e, rate_upper_bound
from jettison.testing.traffic import TrafficWriter
from jettison.traffic import Feedback


def answer(number: int, arm: str | None = None, **did: str) -> Record:
    blocked = "block" in did.values()
    return Record(
        candidate="c", example_id=f"r{number}", split="live", role="answer",
        output=None if blocked else "x", error="content_filter" if blocked else None,
        arm=arm, time=float(number), output_guardrails=did,
    )  # fmt: skip


def said(number: int, incident: str, source: str = "user") -> Feedback:
    return Feedback(request_id=f"r{number}", time=1e4 + number, incident=incident, source=source)


def news(records: list[Record], feedback: list[Feedback] = []) -> News:  # noqa: B006 - never changed
    return News(records=tuple(records), feedback=tuple(feedback), place=Place(), is_all=True)


def counts(watch: IncidentWatch) -> dict[tuple[str, str, str], IncidentCount]:
    return {(one.source, one.kind, one.arm): one for one in watch.status()}


def test_none_in_n_is_bounded_by_the_rule_of_three_exactly() -> None:
    # 1 - 0.05^(1/n): of 1,000 that is 0.00299, where 3/n says 0.003.
    assert rate_upper_bound(0, 1000) == pytest.approx(1 - 0.05 ** (1 / 1000), rel=1e-9)
    assert rate_upper_bound(0, 1000) < 3 / 1000
    assert rate_upper_bound(3, 3) == 1.0
    for hits, n in ((1, 50), (7, 300)):  # the bound is where so few hits have 5 %
        assert stats.binom.cdf(hits, n, rate_upper_bound(hits, n)) == pytest.approx(0.05)
    with pytest.raises(NotEnoughData, match="at least 1 trial"):
        rate_upper_bound(0, 0)


def test_evidence_is_a_mixture_of_likelihood_ratios_by_hand() -> None:
    # Limit 0.5: the rates above it are 0.75 (half way up), 0.625 (1.25 times) and 0.75 (1.5 times).
    expected = np.mean([(p / 0.5) ** 3 * ((1 - p) / 0.5) for p in (0.75, 0.625, 0.75)])
    assert rate_above_log_e(3, 4, limit=0.5) == pytest.approx(math.log(expected))
    assert rate_above_log_e(0, 1000, limit=0.01) < 0
    with pytest.raises(InvalidInput, match="limit of a rate"):
        rate_above_log_e(0, 1, limit=0.0)


def test_each_kind_is_counted_among_the_answers_in_which_it_could_be_seen() -> None:
    watch = IncidentWatch()
    records = [answer(k, pii="pass", secrets="pass") for k in range(8)]
    records += [answer(8, pii="redact", secrets="pass"), answer(9, pii="block"), answer(10)]
    watch.take(news(records, [said(3, "privacy"), said(3, "privacy"), said(4, "harm"), said(4, "privacy")]))
    found = counts(watch)
    shown = {key: (one.n_incidents, one.n) for key, one in found.items()}
    assert shown == {
        ("guardrail", "any", ""): (2, 10),
        ("guardrail", "pii", ""): (2, 10),
        ("guardrail", "secrets", ""): (0, 9),  # where pii blocked, it was not asked
        ("reported", "any", ""): (2, 11),  # an answer counts once, whoever repeats it
        ("reported", "harm", ""): (1, 11),
        ("reported", "privacy", ""): (2, 11),
    }
    secrets = found["guardrail", "secrets", ""]
    assert secrets.rate == 0.0
    assert secrets.high == pytest.approx(1 - 0.05 ** (1 / 9))
    assert secrets.high_always is not None
    assert secrets.high_always > secrets.high  # to hold at all looks costs something


def test_audits_that_found_nothing_are_the_number_that_a_find_is_of() -> None:
    watch = IncidentWatch()
    records = [answer(k, arm="treatment" if k % 2 else "control") for k in range(40)]
    audits = [said(k, "none", "audit") for k in range(10)]
    audits += [said(11, "privacy", "audit"), said(12, "none", "user")]  # a user's `none` is no audit
    watch.take(news(records, [*audits, said(999, "harm")]))
    found = counts(watch)
    assert (found["audit", "any", ""].n_incidents, found["audit", "any", ""].n) == (1, 11)
    assert (found["audit", "privacy", "treatment"].n_incidents, found["audit", "any", "treatment"].n) == (
        1,
        6,
    )
    assert found["audit", "any", "control"].n_incidents == 0
    lost = found[
        "reported", "harm", "unknown"
    ]  # of an answer that is not known any more: not lost, no rate
    assert (lost.n_incidents, lost.rate, lost.high) == (1, None, None)


def test_without_a_guardrail_nothing_is_said_of_its_rate() -> None:
    watch = IncidentWatch((IncidentLimit(source="guardrail", kind="pii", rate=0.01),))
    watch.take(news([answer(k) for k in range(100)]))
    one = counts(watch)["guardrail", "pii", ""]
    assert (one.n, one.rate, one.high, one.is_above) == (0, None, None, False)


def test_a_rate_surely_above_its_limit_is_told_once_with_its_evidence(tmp_path: Path) -> None:
    limits = (limit_from("guardrail:pii:0.01"), limit_from("reported:0.5"))
    with TrafficWriter(tmp_path / "traffic") as log:
        log.write([answer(k, pii="redact" if k % 10 == 0 else "pass") for k in range(300)])
        watch = Watch(
            tmp_path,
            audits=(),
            alerts=Alerts((FileSink(tmp_path / "a.jsonl"),)),
            parts=(IncidentWatch(limits),),
        )
        watch.look(1.0)
        watch.look(2.0)
        watch.save()
        again = IncidentWatch(limits)
        Watch(tmp_path, audits=(), alerts=Alerts(()), parts=(again,)).look(3.0)
    (line,) = (tmp_path / "a.jsonl").read_text().splitlines()
    told = json.loads(line)
    assert (told["name"], told["subject"], told["severity"]) == (
        "incident_rate",
        "guardrail pii",
        "critical",
    )
    assert "surely come at a rate above 0.01: 30 of 300 answers (0.1;" in told["message"]
    assert told["evidence"]["n_incidents"] == 30
    assert again.status() == watch.parts[0].status()  # after a restart no record is counted twice
    kept = msgspec.json.decode((tmp_path / INCIDENTS_FILE).read_bytes(), type=Incidents)
    assert kept.counts == again.status()
    assert [one.is_above for one in kept.counts if one.limit is not None] == [True, False]


def test_what_cannot_be_told_apart_any_more_is_counted_together() -> None:
    watch = IncidentWatch()
    watch.take(news([answer(k, arm=f"arm{k}", **{f"g{k}": "flag"}) for k in range(60)]))
    found = counts(watch)
    assert (
        sum(
            one.n_incidents for (s, k, a), one in found.items() if not a and k == "any" and s == "guardrail"
        )
        == 60
    )
    assert len({arm for _, _, arm in found}) == 10  # all together, eight, and the others
    assert found["guardrail", "other", ""].n == 60 - 24


def test_the_command_counts_and_the_page_shows_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with TrafficWriter(tmp_path / "traffic") as log:
        log.write([answer(k, pii="pass") for k in range(1000)], [said(1, "privacy")])
    with pytest.raises(SystemExit):
        main(["monitor", str(tmp_path), "--once", "--incident", "reported:0.0005"])
    text = capsys.readouterr().out
    assert "incidents guardrail pii: 0. Among 1,000 answers the rate is at most 0.003" in text
    assert "incidents reported any: 1. Among 1,000 answers" in text
    board = Board(tmp_path, release=None)
    board.refresh()
    places = Places(state=tmp_path, releases={}, alerts=tmp_path / "alerts.jsonl", mined=tmp_path / "mined")
    page = " ".join(Pages(board, places).page("/ui/safety").body.decode().split())
    assert "As the watcher counts them over the whole log" in page
    assert '<td class="n">1,000</td><td class="n">0</td><td>0.3 % <small>(0 to ' in page
    assert "not shown to be above" in page
    (tmp_path / INCIDENTS_FILE).write_text("{")
    page = Pages(board, places).page("/ui/safety").body.decode()
    assert "must be a valid Incidents file" in page
    assert "counted in the records read here" in page.lower()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pii:0.1", "source of --incident must be one of"),
        ("reported", "must be SOURCE"),
        ("audit:2", "rate of --incident must be in"),
    ],
)
def test_a_limit_that_cannot_be_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        limit_from(text)


@pytest.mark.parametrize(
    ("share", "shown"),
    [(None, "–"), (0.0, "0"), (3e-9, "under 0.0001 %"), (0.00123, "0.12 %"), (0.1, "10 %"), (1.0, "100 %")],
)
def test_shares_are_written_for_people(share, shown):
    assert rare(share) == shown
