"""What changed, ranked on all inputs and slice by slice: in one look, in the watcher and on its page."""

import json
import re
from pathlib import Path

import msgspec
import numpy as np
import pytest

from jettison.cli.drift import _show
from jettison.evaluate.profile import reference_sketch
from jettison.monitor.dashboard.board import Board
from jettison.monitor.dashboard.pages import Pages, Places
from jettison.monitor.drift import judge_drift
from jettison.monitor.drift_changes import Change, NewestTexts, changes_of, ranking_words, surest
from jettison.monitor.drift_part import DriftPart
from jettison.monitor.drift_stream import DriftWatch
from jettison.monitor.drift_window import Window
from jettison.monitor.log import News, Place
from jettison.record import Record
from jettison.release.describe import describe_texts
from jettison.release.sketch import Sketch, TextScorer
from jettison.testing.traffic import TrafficWriter

WORDS = {
    "web": ["card", "loan", "account", "money", "transfer", "limit", "branch", "rate"],
    "shop": ["shoes", "delivery", "return", "size", "order", "parcel", "refund", "colour"],
}
NEW = ["guitar", "planet", "ocean", "music", "recipe", "garden", "river", "storm"]


def records(seed: int, n: int, *, new_on: str | None = None, loud_on: str | None = None) -> list[Record]:
    """Requests from two places, each with words of its own; one place may ask of new things, or shout."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(n):
        place = "web" if rng.random() < 0.5 else "shop"
        words = rng.choice(NEW if place == new_on and rng.random() < 0.5 else WORDS[place], 6)
        text = " ".join(words)
        made.append(
            Record(
                candidate="c", example_id=str(number), split="live", role="answer", output="a",
                slices={"place": place}, input=text.upper() if place == loud_on else text,
                time=float(number),
            )
        )  # fmt: skip
    return made


@pytest.fixture(scope="module")
def sketch() -> Sketch:
    known = records(0, 800)
    return reference_sketch(known, [str(r.input) for r in known])


def news(some: list[Record]) -> News:
    return News(records=tuple(some), feedback=(), place=Place(), is_all=True)


def window_of(sketch: Sketch, some: list[Record]) -> Window:
    window = Window(sketch)
    window.take(some[:150])
    window.take(some[150:])
    return window


def test_a_release_keeps_the_mean_of_each_slice_and_an_older_one_has_none(sketch: Sketch) -> None:
    assert set(sketch.slice_features) == {"place=web", "place=shop"}
    assert sum(one.n for one in sketch.slice_features.values()) == sketch.n
    assert sketch.features is not None
    whole = sum(one.n * one.mean_array for one in sketch.slice_features.values()) / sketch.n
    np.testing.assert_allclose(whole, sketch.features.mean_array, atol=1e-5)
    old = msgspec.to_builtins(sketch)
    del old["slice_features"]
    assert msgspec.convert(old, Sketch).slice_features == {}


def test_a_look_says_on_which_slice_the_inputs_changed_and_by_what(sketch: Sketch) -> None:
    found = judge_drift(window_of(sketch, records(1, 600, loud_on="shop")))
    told = {one.slice: one for one in found.tests if one.name == "classifier"}
    assert {name: one.has_drifted for name, one in told.items()} == {
        "all": True, "place=web": False, "place=shop": True,
    }  # fmt: skip
    assert told["place=shop"].changed[0][0] == "capitals"
    assert told["place=shop"].moved > told["all"].moved > 0.3
    assert sum(part for _, part in told["all"].changed) == pytest.approx(1)
    moved = judge_drift(window_of(sketch, records(2, 600, new_on="web")))
    assert {one.slice for one in moved.tests if one.name == "classifier" and one.has_drifted} == {
        "all", "place=web",
    }  # fmt: skip


def test_a_slice_that_comes_more_often_is_drift_of_all_and_not_of_the_slice(sketch: Sketch) -> None:
    some = [one for one in records(3, 2000) if one.slices["place"] == "web" or int(one.example_id) % 4 == 0]
    found = judge_drift(window_of(sketch, some))
    assert {one.slice for one in found.tests if one.name == "classifier" and one.has_drifted} == {"all"}


def test_what_moved_less_than_is_asked_is_no_drift(sketch: Sketch) -> None:
    window = window_of(sketch, records(2, 600, new_on="web"))
    assert judge_drift(window).verdict == "DRIFT"
    assert judge_drift(window, least_moved=0.999).verdict == "NONE"
    with pytest.raises(ValueError, match=r"the least that must have moved must be in \[0, 1\), got 1"):
        judge_drift(window, least_moved=1)


def test_the_newest_texts_are_kept_however_they_come(sketch: Sketch) -> None:
    some = records(1, 500, loud_on="shop")
    described = describe_texts(
        [str(one.input) for one in some], TextScorer(sketch.word_counts, sketch.gram_counts)
    )
    slices = [one.slices for one in some]
    cut, last = NewestTexts(sketch, most=300), NewestTexts(sketch, most=300)
    for start in range(0, 500, 70):
        cut.take(described.features[start : start + 70], slices[start : start + 70])
    last.take(described.features[200:], slices[200:])
    assert cut.changes() == last.changes()
    assert [one.n for one in cut.changes() if one.slice == "all"] == [300]
    assert changes_of(sketch, described.features[:59], {}) == ()


def test_only_what_surely_changed_is_told_the_plainest_first() -> None:
    one = Change(slice="all", n=100, p_value=0.01, auc=0.6, changed=(("words", 0.99), ("length", 0.01)))
    two = msgspec.structs.replace(one, slice="a=b", p_value=0.001, auc=0.8)
    three = msgspec.structs.replace(one, slice="a=c", p_value=0.04)
    four = msgspec.structs.replace(one, slice="a=d", p_value=0.03)
    assert [some.slice for some in surest([one, two, three, four])] == ["a=b", "all"]
    assert ranking_words(one.changed) == "words 99%"


def test_the_watcher_says_what_changed_once_a_stream_has_alarmed(sketch: Sketch) -> None:
    part = DriftPart(DriftWatch(sketch))
    part.take(news(records(4, 300)))
    assert (part.alerts(0.0), len(part.lines())) == ((), 1)
    part.take(news(records(5, 700, loud_on="shop")))
    (alert,) = part.alerts(0.0)
    changed = {one["slice"]: one["changed"][0][0] for one in alert.evidence["changes"]}
    assert changed == {"place=shop": "capitals", "all": "capitals"}
    assert any(line.startswith("what changed on place=shop: capitals") for line in part.lines())
    json.dumps(alert.evidence)


def test_the_page_shows_what_changed_once_a_stream_has_alarmed(sketch: Sketch, tmp_path: Path) -> None:
    TrafficWriter(tmp_path / "traffic").close()
    board = Board(tmp_path, release=None)
    board.drift = DriftWatch(sketch)
    places = Places(state=tmp_path, releases={}, alerts=tmp_path / "alerts.jsonl", mined=tmp_path / "mined")
    board.drift.take(news(records(4, 200)))
    assert "What changed" not in Pages(board, places).page("/ui/drift").body.decode()
    board.drift.take(news(records(5, 600, loud_on="shop")))
    said = " ".join(Pages(board, places).page("/ui/drift").body.decode().split())
    assert "<h2>What changed</h2>" in said
    assert "<th>place=shop</th>" in said
    assert "<th>place=web</th>" not in said
    assert re.search(r"<td>capitals \d+ %", said)


def test_labels_and_slices_that_look_like_markup_are_shown_as_they_are(
    sketch: Sketch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = judge_drift(window_of(sketch, records(2, 200, new_on="web")))
    told = msgspec.structs.replace(
        found.tests[0], slice="[/red]", has_drifted=True, changed=(("words", 1.0),)
    )
    _show(msgspec.structs.replace(found, reason="label: [/a] went up", tests=(told,)))
    said = capsys.readouterr().out
    assert "label: [/a] went up" in said
    assert "what changed on [/red]: words 100%" in said
