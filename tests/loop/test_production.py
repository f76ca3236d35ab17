"""The gap to production: predicted, kept, and set beside what labels of the same traffic say."""

import re

import msgspec
import numpy as np
import pytest

from jettison.candidate import write_candidate
from jettison.cli.main import main
from jettison.errors import InvalidInput, NotEnoughData
from jettison.loop.labels import ToLabel, write_to_label
from jettison.loop.production import (
    Predicted,
    ProductionGap,
    _digest,
    _strata,
    keep_prediction,
    predict_production,
    read_predictions_kept,
    realise,
)
from jettison.record import Record
from jettison.task import Example
from jettison.task.read import read_task
from planted import requests
from task_writing import hash_word, write_jsonl, write_task
from task_writing import rows as task_rows

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


def test_a_label_alone_with_its_chance_does_not_stop_what_came_of_a_prediction():
    # Of a stratum of 6 inputs 2 were drawn (chance 1/3), and one of them lies outside what was predicted.
    stratum, sizes = _strata(np.array([0.05, 0.05, 0.05, 1 / 3, 0.5, 0.5]))
    assert stratum.tolist() == [0, 0, 0, 1, 1, 1]  # 1/3 is nearer to 0.5 than to 0.05
    assert (sizes / 10_000).tolist() == pytest.approx([60, 7])  # 3 / 0.05 and 3 + 2 / 0.5
    assert _strata(np.array([0.2]))[0].tolist() == [0]


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


def test_a_prediction_knows_no_more_than_groups_that_are_right_together_tell():
    everything = requests(1400, seed=5)
    bench = [
        msgspec.structs.replace(e, group=f"g{i // 10}") if i < 400 else e for i, e in enumerate(everything)
    ]
    grouped, alone, live = bench[:400], everything[:400], bench[400:]
    rng = np.random.default_rng(1)
    rights = [np.repeat(rng.random(40) < share, 10) for share in (0.9, 0.8)]
    found = {}
    for name, examples in (("grouped", grouped), ("alone", alone)):
        a, b = ((m, records(examples, r, split="dev"), None) for m, r in zip("ab", rights, strict=True))
        found[name] = predict_production(a, b, examples, live, scorer="label").predicted[-1]
    widths = {name: one.high - one.low for name, one in found.items()}
    assert found["grouped"].effective_n <= 40 < found["alone"].effective_n
    assert widths["grouped"] > 2 * widths["alone"]
    few = [msgspec.structs.replace(e, group=f"g{i % 9}") for i, e in enumerate(alone)]
    with pytest.raises(NotEnoughData, match="at least 10 groups of labelled inputs, got 9"):
        predict_production(a, b, few, live, scorer="label")


def _gap_of(live, outside=()):
    """A prediction of this traffic that says next to nothing."""
    predicted = tuple(
        Predicted(
            of=of, benchmark=0.9, value=0.5, low=-1.0, high=1.0, effective_n=50, by_prediction=0.5,
            by_weights=0.5,
        )
        for of in ("a", "b", "b - a")
    )  # fmt: skip
    return ProductionGap(
        a="a", b="b", scorer="label", n_benchmark=100, n_traffic=len(live), outside_share=0.5,
        predicted=predicted, traffic_digest=_digest(live), time=0.0, outside=tuple(outside),
    )  # fmt: skip


def test_labels_of_traffic_that_nothing_was_predicted_for_say_nothing_of_the_prediction(tmp_path):
    live = [Example(id=f"t{i}", input=f"text {i}") for i in range(100)]
    gap = _gap_of(live, outside=[e.id for e in live[:50]])
    keep_prediction(tmp_path / "store.jsonl", gap)
    scores = [(float(i >= 50), float(i >= 50)) for i in range(100)]
    ids = [e.id for e in live]
    came = realise(tmp_path / "store.jsonl", scores, [1.0] * 100, traffic=live, ids=ids)
    assert (came[0].value, came[0].n_labels) == (1.0, 50)
    # Half drawn, all right: not taken for surer than 50 labels are, and never above 1.
    half = realise(tmp_path / "store.jsonl", scores[50:], [0.5] * 50, traffic=live, ids=ids[50:])
    assert 0.95 < half[0].low < 0.99
    assert half[0].high == 1.0
    with pytest.raises(NotEnoughData, match="2 labels of traffic that was predicted are needed, got 0"):
        realise(tmp_path / "store.jsonl", scores[:50], [1.0] * 50, traffic=live, ids=ids[:50])


def test_the_command_sets_what_was_predicted_beside_what_came(tmp_path, capsys):
    path = write_task(tmp_path, unlabelled=[{"text": f"please buy {i * 7919}"} for i in range(60)])
    live = read_task(path).unlabelled
    drawn = {"stratum": 0, "stratum_name": "all", "stratum_size": 60, "propensity": 0.5}
    labels = tmp_path / "labels.jsonl"
    write_to_label(
        labels, [ToLabel(id=e.id, text=e.input, label="buy", a="buy", b="sell", **drawn) for e in live[:30]]
    )
    store = tmp_path / "production.jsonl"
    keep_prediction(store, _gap_of(live))
    with pytest.raises(SystemExit) as end:
        main(f"label {path} --read {labels} --store {store}".split())
    assert end.value.code == 0
    said = next(line for line in capsys.readouterr().out.splitlines() if "predicted b - a" in line)
    assert re.search(
        r"predicted b - a: -?[\d.]+ points \(.*\), came to -[\d.]+ .*: agrees, as far as 30 labels tell$",
        said,
    )
    assert len(store.read_text().splitlines()) == 4


def fake_model(folder, name):
    (folder / name).mkdir()
    write_candidate(folder / name, name=name, backend="fake", labels=LABELS)
    return folder / name


def with_traffic(folder, n):
    path = write_task(folder)
    lines = "".join(f'{{"text": "sell or buy {i} {hash_word(i)}"}}\n' for i in range(n))
    (folder / "traffic.jsonl").write_text(lines)
    path.write_text(path.read_text().replace("[data]", '[data]\nunlabelled = "traffic.jsonl"', 1))
    return path


def refused(capsys, command):
    with pytest.raises(SystemExit) as end:
        main(command.split())
    assert end.value.code == 2
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(("n", "said"), [(0, "got none. Name its file"), (30, "got 60 and 30")])
def test_a_gap_that_cannot_be_predicted_is_refused_before_a_model_is_asked(
    tmp_path, capsys, monkeypatch, n, said
):
    path = with_traffic(tmp_path, n) if n else write_task(tmp_path)
    write_jsonl(tmp_path / "dev.jsonl", task_rows(30, split="dev"))
    monkeypatch.setattr("jettison.evaluate.run.evaluate", None)  # whoever asks a model fails
    a, b = fake_model(tmp_path, "a"), fake_model(tmp_path, "b")
    assert said in refused(capsys, f"suites gap {a} {b} --task {path}")


def test_what_reads_dev_or_traffic_alone_needs_no_test_examples(tmp_path, capsys):
    traffic = [{"text": row["text"]} for row in task_rows(40, split="traffic")]
    train, dev = task_rows(), task_rows(40, split="dev")
    path = write_task(
        tmp_path, data='train = "train.jsonl"\ndev = "dev.jsonl"\nunlabelled = "traffic.jsonl"'
    )
    for name, rows in (("train", train), ("dev", dev), ("traffic", traffic)):
        write_jsonl(tmp_path / f"{name}.jsonl", rows)
    a, b = fake_model(tmp_path, "a"), fake_model(tmp_path, "b")
    out = tmp_path / "to.jsonl"
    for command in (
        f"suites gap {a} {b} --task {path}",
        f"label {path} {a} {b} --budget 20 --output {out}",
    ):
        with pytest.raises(SystemExit) as end:
            main(command.split())
        assert end.value.code == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "predicted label on 80 inputs of traffic, in %, from 80 dev examples" in said
    assert "20 of 80 inputs to label" in said
    said = refused(capsys, f"suites gap {a} {b} --task {path} --split test")
    assert "the test split must have at least one example, got 0" in said


@pytest.mark.parametrize(
    "command", ["label {task} {a} {b}", "suites find {a} {b} --task {task} --split test"]
)
def test_a_model_that_is_not_there_costs_no_answers_and_no_reading(tmp_path, capsys, monkeypatch, command):
    path = with_traffic(tmp_path, 60)
    a = fake_model(tmp_path, "a")
    monkeypatch.setattr("jettison.evaluate.run.evaluate", None)
    said = refused(capsys, command.format(task=path, a=a, b=tmp_path / "nowhere"))
    assert "nowhere" in said
    assert read_task(path).read_test(purpose="the first").n_reads == 1


def test_words_of_a_gap_begin_with_what_makes_it_worth_little():
    far = Predicted(
        of="a", benchmark=0.9, value=0.6, low=0.2, high=1.0, effective_n=18, by_prediction=0, by_weights=0
    )
    gap = ProductionGap(
        a="a", b="b", scorer="label", n_benchmark=700, n_traffic=500, outside_share=0.02,
        predicted=(far,), traffic_digest="", time=0.0,
    )  # fmt: skip
    assert gap.words.startswith("The weights leave 18 of 700 benchmark examples")
    near = msgspec.structs.replace(far, effective_n=600)
    gap = msgspec.structs.replace(gap, predicted=(near,))
    assert gap.words.startswith("Nothing is predicted for 2.0 % of the traffic")
    assert msgspec.structs.replace(gap, outside_share=0.6).words.startswith("So much of the traffic")
    grouped = msgspec.structs.replace(gap, n_groups=40, predicted=(far,))
    assert grouped.words.startswith("Nothing is predicted")
    few = msgspec.structs.replace(far, effective_n=3)
    grouped = msgspec.structs.replace(grouped, predicted=(few,))
    assert grouped.words.startswith("The weights leave 3 of 40 groups of benchmark examples")
