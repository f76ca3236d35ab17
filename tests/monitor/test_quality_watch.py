"""Quality without labels: one interval by the best judge there is, and the watch on what it rests on."""

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from jettison.cli.main import main
from jettison.errors import InvalidInput
from jettison.monitor.alerts import Alerts, FileSink
from jettison.monitor.dashboard.board import Board
from jettison.monitor.dashboard.pages import Pages, Places
from jettison.monitor.log import News, Place
from jettison.monitor.quality_watch import QualityWatch, quality_words
from jettison.monitor.watch import Watch
from jettison.record import Record
from jettison.testing.traffic import TrafficWriter
from jettison.traffic import Feedback


def traffic(
    n: int,
    *,
    seed: int = 0,
    off: float = 0.0,
    audits: float = 0.0,
    labels: float = 0.0,
    source: str = "user",
) -> tuple[list[Record], list[Feedback], float]:
    """Answers right as often as their confidence says, or by `off` less often; and how many are."""
    rng = np.random.default_rng(seed)
    records, said, right = [], [], 0
    for number in range(n):
        confidence = float(rng.beta(8, 2))
        is_right = bool(rng.random() < confidence - off)
        right += is_right
        name = f"{seed}-{number}"
        shared: Any = {"candidate": "c", "example_id": name, "split": "live", "time": 1.0 * number}
        lean = Record(output="a" if is_right else "b", confidence=confidence, role="answer", **shared)
        big = Record(output="a", role="audit", propensity=audits, **shared)
        both = [lean, big] if rng.random() < audits else [lean]
        records += both[::-1] if rng.random() < 0.1 else both  # whichever is logged first
        if rng.random() < labels:
            said.append(Feedback(request_id=name, time=number + 5.0, label="a", source=source))
    return records, said, right / n


def news(records: list[Record], said: list[Feedback]) -> News:
    return News(records=tuple(records), feedback=tuple(said), place=Place(), is_all=True)


def test_audits_with_known_probability_correct_what_confidence_says() -> None:
    records, said, truth = traffic(4000, off=0.1, audits=0.2)
    records.append(msgspec.structs.replace(records[0], example_id="big", confidence=None, escalated=True))
    watch = QualityWatch()
    watch.take(news(records, said))
    (one,) = watch.status()
    found = one.estimate
    assert (one.judge, one.n_unsure, found.n_answers) == ("fallback", 1, 4000)
    assert found.low is not None
    assert found.high is not None
    assert found.by_confidence is not None
    assert found.low < truth < found.high < found.by_confidence  # confidence alone promises too much
    assert "drawn with known probability" in found.assumption
    assert "the fallback's answer is taken for the truth" in found.assumption
    assert found.is_calibrated is False
    assert one.is_overconfident


def test_the_best_judge_corrects_and_the_others_are_counted() -> None:
    watch = QualityWatch()
    records, said, _ = traffic(600, audits=0.3, labels=0.2)
    watch.take(news(records, said))
    assert watch.status()[0].judge == "fallback"
    more, told, _ = traffic(200, seed=1, labels=0.5, source="audit")
    watch.take(news(more, told))
    (one,) = watch.status()
    assert one.judge == "audit label"
    assert one.n_judged["audit label"] == len(told)
    assert 0 < one.n_judged["label"] <= len(said)
    assert "labels by audits are right" in one.estimate.assumption


def test_without_labels_there_is_a_figure_and_no_interval() -> None:
    watch = QualityWatch()
    watch.take(news(*traffic(100)[:2]))
    (one,) = watch.status()
    assert (one.judge, one.estimate.low, one.gap, one.is_overconfident) == (None, None, None, False)
    assert "by confidence alone. It rests on calibration alone" in quality_words(one)
    assert watch.alerts(0.0) == ()


def test_calibration_that_goes_after_a_long_good_time_is_told_once(tmp_path: Path) -> None:
    good, said, _ = traffic(3000, labels=1.0)
    bad, later, _ = traffic(2500, seed=1, off=0.2, labels=1.0)
    with TrafficWriter(tmp_path / "traffic") as log:
        log.write(good, said)
        sink = FileSink(tmp_path / "a.jsonl")
        watch = Watch(tmp_path, audits=(), alerts=Alerts((sink,)), parts=(QualityWatch(),))
        watch.look(1.0)
        assert not (tmp_path / "a.jsonl").exists()
        watch.save()
        log.write(bad, later)
        again = Watch(tmp_path, audits=(), alerts=Alerts((sink,)), parts=(QualityWatch(),))
        again.look(2.0)
        again.look(3.0)
    (line,) = (tmp_path / "a.jsonl").read_text().splitlines()
    told = json.loads(line)
    assert told["name"] == "calibration_broken"
    assert "right less often than their confidence says, surely by more than 0.02" in told["message"]
    assert abs(told["evidence"]["since"] - 3000) < 500
    whole = QualityWatch()
    whole.take(news([*good, *bad], [*said, *later]))
    assert whole.status() == again.parts[0].status()  # to the last digit, though read in pieces


def test_the_command_says_it_and_the_page_shows_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records, said, _ = traffic(400, labels=0.3)
    with TrafficWriter(tmp_path / "traffic") as log:
        log.write(records, said)
    with pytest.raises(SystemExit):
        main(["monitor", str(tmp_path), "--once", "--quality"])
    assert "quality: calibration not disproved. " in capsys.readouterr().out
    board = Board(tmp_path, release=None)
    board.refresh()
    places = Places(state=tmp_path, releases={}, alerts=tmp_path / "alerts.jsonl", mined=tmp_path / "mined")
    page = " ".join(Pages(board, places).page("/ui/safety").body.decode().split())
    assert 'no arm <span class="badge open">not disproved</span>' in page
    assert "of the newest 400 answers with a confidence are right" in page
    assert "who gives labels is no other than who does not" in page.replace("&#39;", "'")


def test_another_margin_begins_anew_and_an_impossible_one_is_refused() -> None:
    watch = QualityWatch()
    watch.take(news(*traffic(50)[:2]))
    other = QualityWatch(margin=0.05)
    assert not other.restore(watch.state())
    assert other.status() == ()
    with pytest.raises(InvalidInput, match="margin of the watch on calibration"):
        QualityWatch(margin=1.0)
