"""Failures of live traffic: found, named, proposed, and required of the next candidate."""

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

from jettison.cli.main import jettison
from jettison.errors import InvalidInput, NotEnoughData
from jettison.loop.accept import accept, read_proposals
from jettison.loop.config import read_config
from jettison.loop.mine import mine, read_requests, told, write_found
from jettison.monitor.failures import requests_of
from jettison.record import Record
from jettison.task.read import read_task
from jettison.testing.traffic import TrafficWriter
from jettison.traffic import Feedback
from task_writing import write_jsonl

WORDS = [
    "please",
    "my",
    "account",
    "order",
    "refund",
    "item",
    "help",
    "question",
    "delivery",
    "today",
    "soon",
]
TOPICS = {
    "billing": ("card", "payment"),
    "shipping": ("parcel", "courier"),
    "visa": ("passport", "embassy"),
}


def asked(rng: np.random.Generator, topic: str) -> str:
    return " ".join([*rng.choice(WORDS, 5), str(rng.choice(TOPICS[topic])), *rng.choice(WORDS, 3)])


def traffic(folder: Path, n: int = 1200, *, visa_from: float | None = 0.5, seed: int = 0) -> Path:
    """A cascade's log: in the later part a fifth is of a new topic, which the lean model gets wrong."""
    rng = np.random.default_rng(seed)
    with TrafficWriter(folder / "log") as log:
        rows, told = [], []
        for i in range(n):
            is_new = visa_from is not None and i >= visa_from * n and rng.random() < 0.2
            topic = "visa" if is_new else str(rng.choice(["billing", "shipping"]))
            right = "billing" if topic == "visa" else topic
            lean_right = rng.random() < (0.3 if is_new else 0.98)
            lean = right if lean_right else ("shipping" if right == "billing" else "billing")
            escalated = rng.random() < (0.6 if is_new else 0.1)
            text = asked(rng, topic) + (" mail me at jane.doe@example.com" if i % 50 == 0 else "")
            common = {"example_id": f"r{i}", "split": "live", "time": 1000.0 + i, "input": text}
            records = [
                Record(
                    candidate="lean", output=lean, confidence=0.6, arm="lean",
                    role="lean" if escalated else "answer", **common,
                )
            ]  # fmt: skip
            if escalated or rng.random() < 0.05:
                records.append(
                    Record(
                        candidate="large", output=right, arm="fallback", escalated=escalated,
                        role="answer" if escalated else "audit", **common,
                    )
                )  # fmt: skip
            if rng.random() < 0.3:
                told.append(Feedback(request_id=f"r{i}", time=2000.0 + i, label=right))
            rows += records
        log.write(rows, told)
    return folder


def task_at(folder: Path, seed: int = 1):
    rng = np.random.default_rng(seed)
    rows = []
    for split, n in (("train", 80), ("dev", 40), ("test", 60)):
        for i in range(n):
            topic = ("billing", "shipping")[i % 2]
            rows.append({"text": asked(rng, topic) + f" {split}{i}", "label": topic, "split": split})
    write_jsonl(folder / "data.jsonl", rows)
    (folder / "task.toml").write_text(
        'format = 1\nname = "desk"\nkind = "classify"\n[data]\npath = "data.jsonl"\n'
        '[data.columns]\nsplit = "split"\n'
    )
    return read_task(folder / "task.toml")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mined")
    task = task_at(folder)
    requests = read_requests(traffic(folder / "state"))
    mined = mine(requests, task)
    write_found(folder / "mined", mined)
    return folder, task, mined


def test_the_new_topic_is_named_with_its_trend_and_what_the_incumbent_does(found):
    _, _, one = found
    worst = one.mined.modes[0]
    assert {"passport", "embassy"} & set(worst.keywords)
    assert worst.trend == "new"
    assert worst.share_before < 0.05 < worst.share_after
    assert worst.severity > worst.rest_severity + 0.2
    assert worst.incumbent_right is not None
    assert worst.incumbent_right.low > 0.5
    assert worst.lean_agrees is not None
    assert worst.lean_agrees.high < 0.6
    assert {"escalated", "disagreement"} <= set(worst.reasons)


def test_what_is_shown_holds_no_address_of_a_person(found):
    folder, _, one = found
    assert all("jane.doe" not in text for mode in one.mined.modes for text in mode.examples)
    assert "jane.doe" not in (folder / "mined" / "proposed.jsonl").read_text()
    assert "passport" in told(one.mined) or "embassy" in told(one.mined)


@pytest.mark.slow
def test_where_failures_are_spread_evenly_nothing_is_named(tmp_path):
    silent = 0
    for seed in range(4):
        requests = read_requests(traffic(tmp_path / str(seed), 600, visa_from=None, seed=seed))
        silent += not mine(requests, seed=seed).mined.modes
    assert silent >= 3


def test_rows_of_a_mode_are_drawn_whatever_was_answered_and_never_a_known_text(found, tmp_path):
    _, task, one = found
    worst = one.mined.modes[0].name
    rows = [p for p in one.proposals if p.mode == worst]
    assert any(p.reasons for p in rows)
    assert any(not p.reasons for p in rows)
    assert {p.label_from for p in rows} <= {"feedback", "incumbent", None}
    requests = [msgspec_replace(r, text=task.train[i % 80].input) for i, r in enumerate(read_like(one))]
    assert not mine(requests, task).proposals


def msgspec_replace(request, **changes):
    from dataclasses import replace

    return replace(request, **changes)


def read_like(one):
    """Requests of the texts that were proposed, as if asked again."""
    common = {"candidate": "lean", "split": "live"}
    records = [
        Record(
            example_id=p.id, output=p.output, input=p.text, time=float(i), flagged=bool(p.reasons), **common
        )
        for i, p in enumerate(one.proposals)
    ]
    return requests_of(records, ())


def test_accepted_rows_become_a_required_slice_of_the_next_run(found):
    folder, task, one = found
    path = folder / "mined" / "proposed.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    worst = one.mined.modes[0].name
    for row in rows:
        row["accept"] = row["mode"] == worst and row["label"] is not None
    write_jsonl(folder / "gone-through.jsonl", rows)
    (folder / "jettison.toml").write_text(
        'format = 1\ntask = "task.toml"\nincumbent = "models/large"\nbudget = "5m"\n'
        '[[gates]]\ntype = "not_worse"\nmargin = 0.02\n'
    )
    task.read_test(purpose="a decision")
    written = accept(
        read_proposals(folder / "gone-through.jsonl"), task, folder / "next",
        config=folder / "jettison.toml", margin=0.1,
    )  # fmt: skip
    again = read_task(folder / "next" / "task.toml")
    assert f"failure={worst}" in again.required_slices
    assert again.slice_counts[f"failure={worst}"] == written.rows[worst]["test"]
    assert again.n_test == task.n_test + written.rows[worst]["test"]
    assert [e.id for e in again.train[:80]] == [e.id for e in task.train]
    assert again.read_test(purpose="another").n_reads == 2
    config = read_config(folder / "next" / "jettison.toml")
    assert [gate.margin for gate in config.gates] == [0.02, 0.1]
    assert config.gates[1].slices == (f"failure={worst}",)
    assert config.budget == "5m"


def test_traffic_alone_becomes_unlabelled_examples_without_addresses(found):
    folder, task, _ = found
    requests = read_requests(folder / "state")
    written = accept((), task, folder / "round", traffic=requests)
    again = read_task(folder / "round" / "task.toml")
    assert len(again.unlabelled) == written.n_unlabelled > 1000
    assert again.n_test == task.n_test
    assert "jane.doe" not in (folder / "round" / "examples.jsonl").read_text()


def test_what_cannot_be_accepted_is_one_clear_error(found):
    _, task, one = found
    first = one.proposals[0]
    with pytest.raises(InvalidInput, match="at least one row must have `accept` true"):
        accept(one.proposals, task, task.folder / "never")
    with pytest.raises(InvalidInput, match="must have a label, got null at " + first.id):
        accept([msgspec.structs.replace(first, accept=True, label=None)], task, task.folder / "never")
    with pytest.raises(InvalidInput, match="one of the task's, got 'spam'"):
        accept([msgspec.structs.replace(first, accept=True, label="spam")], task, task.folder / "never")
    assert not (task.folder / "never").exists()


def test_too_few_requests_or_no_texts_say_so(tmp_path):
    with pytest.raises(NotEnoughData, match="80 requests with their texts, got 0"):
        mine(requests_of([Record(candidate="a", example_id="1", split="live", output="x")], ()))
    for line in (b'{"mode": 1}\n', '{"id": "ménage"}\n'.encode("latin-1")):
        (tmp_path / "p.jsonl").write_bytes(line)
        with pytest.raises(InvalidInput, match=r"p\.jsonl:1 must be a line of proposed\.jsonl"):
            read_proposals(tmp_path / "p.jsonl")


def test_free_texts_are_not_held_to_be_wrong_for_being_different():
    long = "a long answer in many words, said in one way of the many ways there are to say it all"
    records = [
        Record(candidate="l", example_id="1", split="live", output=long, input="why?", role="answer"),
        Record(candidate="b", example_id="1", split="live", output=long + "!", input="why?", role="audit"),
    ]
    (one,) = requests_of(records, ())
    assert one.severity == 0


def test_the_command_writes_and_accepts(found, tmp_path, monkeypatch, capsys):
    folder, _, _ = found
    jettison.main(
        [
            "mine",
            str(folder / "state"),
            "--task",
            str(folder / "task.toml"),
            "--output",
            str(tmp_path / "m"),
        ],
        standalone_mode=False,
    )
    said = capsys.readouterr().out
    assert "passport" in said or "embassy" in said
    assert {p.name for p in (tmp_path / "m").iterdir()} == {
        "failures.json",
        "failures.md",
        "proposed.jsonl",
    }
    with pytest.raises(InvalidInput, match="--accept must come with --task"):
        jettison.main(["mine", "--accept", "x"], standalone_mode=False)
