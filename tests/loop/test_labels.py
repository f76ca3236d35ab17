"""Labels chosen, written, answered on the page or in the file, and read back; predictions beside them."""

import http.client
import threading
import urllib.parse

import numpy as np
import pytest

from jettison.cli.main import main
from jettison.errors import InvalidInput, NotEnoughData
from jettison.loop.label_page import LabelServer
from jettison.loop.labels import choose_labels, estimate_from_labels, read_labelled, write_to_label
from jettison.loop.production import keep_prediction, predict_production, read_predictions_kept, realise
from jettison.record import Record
from jettison.task import Example
from jettison.task.read import read_task
from planted import requests
from task_writing import write_task

LABELS = ("buy", "sell")


def records(examples, rights, confidence=None, split="unlabelled"):
    return [
        Record(
            candidate="c",
            example_id=e.id,
            split=split,
            output=e.expected if ok else "other",
            expected=e.expected,
            confidence=0.5 if confidence is None else float(confidence[i]),
            scores={"label": float(ok)},
        )
        for i, (e, ok) in enumerate(zip(examples, rights, strict=True))
    ]


def traffic(n, seed=0):
    rng = np.random.default_rng(seed)
    return [Example(id=f"t{i}", input=f"text {i}", expected=LABELS[int(rng.integers(2))]) for i in range(n)]


def binary(examples, rights):
    """Answers of a model: the right label, or the other one."""
    return [
        Record(
            candidate="c",
            example_id=e.id,
            split="u",
            output=e.expected if ok else LABELS[1 - LABELS.index(e.expected)],
            confidence=0.9,
        )
        for e, ok in zip(examples, rights, strict=True)
    ]


def test_labels_that_come_back_give_both_scores_and_the_difference(tmp_path):
    task = read_task(write_task(tmp_path))
    examples = traffic(4000)
    rng = np.random.default_rng(1)
    one, other = rng.random(4000) < 0.9, rng.random(4000) < 0.85
    rows = choose_labels(examples, binary(examples, one), binary(examples, other), budget=400)
    assert len(rows) == 400
    assert sum(row.a != row.b for row in rows) > 200  # 22 % of the inputs, most of the labels
    known = {e.id: e.expected for e in examples}
    path = tmp_path / "labels.jsonl"
    write_to_label(path, rows)
    assert read_labelled(path) == rows
    import msgspec

    answered = [msgspec.structs.replace(row, label=known[row.id]) for row in rows]
    a, b, difference = estimate_from_labels(task, answered)
    assert a.low <= one.mean() <= a.high
    assert b.low <= other.mean() <= b.high
    assert difference.low <= other.mean() - one.mean() <= difference.high
    # 400 labels drawn evenly would give a half-width of about 4.6 points.
    assert (difference.high - difference.low) / 2 < 0.03
    with pytest.raises(InvalidInput, match="one of the task's, got 'hold'"):
        estimate_from_labels(task, [msgspec.structs.replace(answered[0], label="hold")])
    with pytest.raises(NotEnoughData, match="each stratum needs 2 labels"):
        estimate_from_labels(task, [*answered[:3], *rows[3:]])


def test_a_file_that_is_not_ours_is_refused(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"id": "1"}\n')
    with pytest.raises(InvalidInput, match=r"x.jsonl:1: .*Fill in `label`"):
        read_labelled(path)


class TestPage:
    @pytest.fixture
    def server(self, tmp_path):
        examples = traffic(6)
        rows = choose_labels(
            [*examples[:-1], Example(id="t5", input="<script>alert(1)</script>", expected="buy")],
            binary(examples, [True] * 6),
            binary(examples, [True] * 6),
            budget=6,
        )
        path = tmp_path / "labels.jsonl"
        write_to_label(path, rows)
        server = LabelServer(path, LABELS)
        thread = threading.Thread(target=server.serve)
        thread.start()
        yield server, path
        server.close()
        thread.join()

    def ask(self, server, method, path, form=None, host=None):
        port = int(server.address.split(":")[2].split("/")[0])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        if host:
            headers["Host"] = host
        body = None if form is None else urllib.parse.urlencode(form)
        connection.request(method, path, body, headers)
        reply = connection.getresponse()
        text = reply.read().decode()
        connection.close()
        return reply.status, text

    def test_it_shows_one_text_after_the_other_and_keeps_each_answer_at_once(self, server):
        server, path = server
        token = "/" + server.address.rsplit("/", 1)[1]
        for left in range(6, 0, -1):
            status, text = self.ask(server, "GET", token)
            assert status == 200
            assert f"{left} of 6 left" in text
            assert "<script>" not in text
            example = text.split('name="id" value="')[1].split('"')[0]
            assert self.ask(server, "POST", token, {"id": example, "label": "sell"})[0] == 303
            assert sum(row.label == "sell" for row in read_labelled(path)) == 7 - left
        assert "Done" in self.ask(server, "GET", token)[1]

    def test_nobody_without_the_token_or_from_another_host_gets_in(self, server):
        server, path = server
        token = "/" + server.address.rsplit("/", 1)[1]
        assert self.ask(server, "GET", "/")[0] == 404
        assert self.ask(server, "GET", token, host="evil.example")[0] == 404
        assert self.ask(server, "POST", "/x", {"id": "t0", "label": "buy"})[0] == 404
        assert self.ask(server, "POST", token, {"id": "t0", "label": "hold"})[0] == 400
        assert all(row.label is None for row in read_labelled(path))

    def test_an_input_put_off_comes_last(self, server):
        server, _ = server
        token = "/" + server.address.rsplit("/", 1)[1]
        first = self.ask(server, "GET", token)[1].split('name="id" value="')[1].split('"')[0]
        assert self.ask(server, "POST", token, {"id": first, "skip": "1"})[0] == 303
        assert f'value="{first}"' not in self.ask(server, "GET", token)[1]


def test_the_gap_to_production_is_predicted_and_set_beside_what_came(tmp_path):
    everything = requests(3000, seed=4)
    rng = np.random.default_rng(0)
    # Traffic has four times as much of the domains on which B loses.
    hard = np.array([int(e.slices["domain"][1:]) >= 9 for e in everything])
    is_bench = np.arange(3000) < 1000
    is_traffic = ~is_bench & (hard | (rng.random(3000) < 0.25))
    bench = [e for e, keep in zip(everything, is_bench, strict=True) if keep]
    live = [e for e, keep in zip(everything, is_traffic, strict=True) if keep]
    strange = [Example(id=f"s{i}", input=f"Ω{i} ∂∂ß¥ µµ{i}Δ") for i in range(100)]
    chance = {e.id: (0.95, 0.75 if h else 0.95) for e, h in zip(everything, hard, strict=True)}
    sides = []
    for side in (0, 1):
        rights = [rng.random() < chance[e.id][side] for e in bench]
        sides.append(("ab"[side], records(bench, rights, split="dev"), None))
    found = predict_production(*sides, bench, [*live, *strange], scorer="label")
    truth = float(np.mean([chance[e.id][1] - chance[e.id][0] for e in live]))
    difference = next(p for p in found.predicted if p.of == "b - a")
    assert difference.low <= truth <= difference.high
    assert abs(difference.value - truth) < abs(difference.benchmark - truth)
    assert found.outside_share == pytest.approx(100 / (len(live) + 100), abs=0.02)
    assert "cannot be seen without labels" in found.words

    store = tmp_path / "production.jsonl"
    keep_prediction(store, found)
    assert read_predictions_kept(store) == (found,)
    labelled = [
        (float(rng.random() < chance[e.id][0]), float(rng.random() < chance[e.id][1])) for e in live
    ]
    came = realise(store, labelled, [1.0] * len(live), traffic=[*live, *strange])
    assert all(one.inside for one in came)
    with pytest.raises(InvalidInput, match="must hold a prediction of this traffic"):
        realise(store, labelled, [1.0] * len(live), traffic=live)


def test_the_command_chooses_and_reads_back(tmp_path, capsys):
    from jettison.candidate import write_candidate

    texts = [{"text": f"please {LABELS[i % 2]} {i * 7919}"} for i in range(60)]
    path = write_task(tmp_path, unlabelled=texts)
    for name, accuracy in (("a", 1.0), ("b", 0.5)):
        (tmp_path / name).mkdir()
        write_candidate(
            tmp_path / name, name=name, backend="fake", labels=LABELS, settings={"accuracy": accuracy}
        )
    out = tmp_path / "to.jsonl"
    with pytest.raises(SystemExit) as end:
        main(f"label {path} {tmp_path}/a {tmp_path}/b --budget 30 --output {out}".split())
    assert end.value.code == 0
    rows = read_labelled(out)
    assert len(rows) == 30
    out.write_text(out.read_text().replace('"label":null', '"label":"buy"'))
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main(f"label {path} --read {out}".split())
    assert end.value.code == 0
    assert "30 labels for 60 inputs" in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        main(f"label {path} {tmp_path}/a".split())
    assert end.value.code == 2
