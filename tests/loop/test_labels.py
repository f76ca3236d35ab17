"""Labels chosen, written, answered in the file, and read back."""

import tempfile
from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import pytest

from jettison.candidate import write_candidate
from jettison.cli.main import main
from jettison.decision import GateResult, Verdict
from jettison.errors import InvalidInput, NotEnoughData
from jettison.evaluate.scorers import Score
from jettison.loop import labels
from jettison.loop.labels import (
    ToLabel,
    answered_propensities,
    check_labelled_kind,
    choose_labels,
    estimate_from_labels,
    open_slices,
    read_labelled,
    scores_of_labels,
    with_kept_labels,
    write_to_label,
)
from jettison.task.read import read_task
from label_traffic import LABELS, binary, traffic
from releasing import make_candidate, make_decision
from task_writing import write_task


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
    with pytest.raises(
        NotEnoughData,
        match=r"each stratum needs 2 labels, got \d of [\d,]+ inputs in '.*'. 397 of 400 lines",
    ):
        estimate_from_labels(task, [*answered[:3], *rows[3:]])


def test_a_file_that_is_not_ours_is_refused(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"id": "1"}\n')
    with pytest.raises(InvalidInput, match=r"x.jsonl:1: .*Fill in `label`"):
        read_labelled(path)
    path.write_bytes('{"id": "1", "label": "ménage"}\n'.encode("latin-1"))
    with pytest.raises(InvalidInput, match=r"x.jsonl:1 must be one JSON object in UTF-8: "):
        read_labelled(path)


def test_a_line_nested_too_deep_is_refused(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"more": ' + "[" * 100_000)
    with pytest.raises(InvalidInput, match=r"x\.jsonl:1 must be one JSON object .* nested too deep"):
        read_labelled(tmp_path / "x.jsonl")


def test_labels_that_stand_in_the_file_are_never_written_over(tmp_path):
    examples = traffic(200)
    rights = np.random.default_rng(0).random(200) < 0.8
    sides = binary(examples, rights), binary(examples, [True] * 200)
    rows = choose_labels(examples, *sides, budget=40)
    path = tmp_path / "labels.jsonl"
    assert with_kept_labels(path, rows) == rows  # there is no file yet
    write_to_label(path, (msgspec.structs.replace(rows[0], label="buy"), *rows[1:]))
    assert with_kept_labels(path, rows)[0].label == "buy"  # the same draw goes on
    other = choose_labels(examples, *sides, budget=60)
    with pytest.raises(InvalidInput, match=r"no labels of another draw, got 1 in .*labels.jsonl"):
        with_kept_labels(path, other)
    write_to_label(path, rows)
    assert with_kept_labels(path, other) == other  # nothing is lost of a draw without labels
    path.write_text('{"text": "my notes"}\n')
    with pytest.raises(InvalidInput, match="must be new or one of `jettison label`"):
        with_kept_labels(path, rows)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("--output {folder}/notes.jsonl", "must be new or one of `jettison label`, got"),
        ("--output {folder}", "must be new or one of `jettison label`, got"),
        ("--slice lang --undecided {folder}", "either --slice or --undecided may be given, got both"),
    ],
)
def test_what_cannot_be_drawn_or_written_is_refused_before_the_models_are_asked(
    tmp_path, capsys, monkeypatch, more, said
):
    path = write_task(tmp_path, unlabelled=[{"text": f"please buy {i * 7919}"} for i in range(60)])
    notes = tmp_path / "notes.jsonl"
    notes.write_text('{"text": "my notes"}\n')
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_candidate(tmp_path / name, name=name, backend="fake", labels=LABELS)
    monkeypatch.setattr("jettison.evaluate.run.evaluate", None)  # whoever asks a model fails
    with pytest.raises(SystemExit) as end:
        main(f"label {path} {tmp_path}/a {tmp_path}/b {more.format(folder=tmp_path)}".split())
    assert end.value.code == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert notes.read_text() == '{"text": "my notes"}\n'


def test_whoever_stops_half_way_has_labelled_a_draw_of_all_traffic(tmp_path):
    """Traffic gets harder with time: labels of the first half of the file must not be of its first half."""
    task = read_task(write_task(tmp_path))
    examples = traffic(4000)
    rng = np.random.default_rng(1)
    late = np.arange(4000) >= 2000
    one, other = (rng.random(4000) < np.where(late, low, 0.95) for low in (0.7, 0.6))
    rows = choose_labels(examples, binary(examples, one), binary(examples, other), budget=400)
    known = {e.id: e.expected for e in examples}
    half = [msgspec.structs.replace(r, label=known[r.id] if i < 200 else None) for i, r in enumerate(rows)]
    share_late = np.mean([int(r.id[1:]) >= 2000 for r in half if r.label])
    asked_late = np.mean([int(r.id[1:]) >= 2000 for r in half])
    assert abs(share_late - asked_late) < 0.1
    for found, right in zip(estimate_from_labels(task, half), (one, other), strict=False):
        assert found.low <= right.mean() <= found.high


class Unsure:
    """Judges as accuracy does, but not whether `text 3` was sold."""

    def __init__(self):
        self.is_closed = False

    def score(self, example, output):
        if (example.input, output.label) == ("text 3", "sell"):
            return Score(value=None, reason="cannot tell")
        return Score(value=float(output.label == example.expected))

    def close(self):
        self.is_closed = True


def test_an_answer_that_cannot_be_judged_is_neither_right_nor_wrong(tmp_path, monkeypatch):
    scorer = Unsure()
    monkeypatch.setattr(labels, "open_scorers", lambda *_, **__: {"label": scorer})
    row = ToLabel(
        id="t1", text="text 1", label="buy", a="buy", b=None, stratum=0, stratum_name="all", stratum_size=3,
        propensity=1.0,
    )  # fmt: skip
    rows = [
        row,
        msgspec.structs.replace(row, id="t2", text="text 2", b="sell"),
        msgspec.structs.replace(row, id="t3", text="text 3", b="sell"),
    ]
    judged, scores = scores_of_labels(read_task(write_task(tmp_path)), rows)
    assert [one.id for one in judged] == ["t1", "t2"]
    assert scores == [(1.0, 0.0), (1.0, 0.0)]  # no answer is a wrong one
    assert answered_propensities(rows, judged) == pytest.approx([2 / 3, 2 / 3])
    assert scorer.is_closed


def test_labels_for_half_of_a_stratum_stand_for_all_of_it(tmp_path):
    task = read_task(write_task(tmp_path))
    examples = traffic(1000)
    rng = np.random.default_rng(2)
    one, other = rng.random(1000) < 0.9, rng.random(1000) < 0.6
    rows = choose_labels(examples, binary(examples, one), binary(examples, other), budget=300)
    known = {e.id: e.expected for e in examples}
    # Where both agree, only a quarter comes back.
    seen = Counter[bool]()
    labelled = []
    for row in rows:
        seen[row.a == row.b] += 1
        is_open = row.a == row.b and seen[True] % 4
        labelled.append(msgspec.structs.replace(row, label=None if is_open else known[row.id]))
    answered, scores = scores_of_labels(task, labelled)
    chances = answered_propensities(labelled, answered)
    assert sum(1 / chance for chance in chances) == pytest.approx(1000)
    weighted = sum(score[0] / chance for score, chance in zip(scores, chances, strict=True)) / 1000
    assert weighted == pytest.approx(estimate_from_labels(task, labelled)[0].value)


@pytest.mark.parametrize("kind", ["choose", "rank"])
def test_inputs_with_choices_of_their_own_are_not_labelled_by_text(kind):
    with pytest.raises(InvalidInput, match=f"one text an example, got kind '{kind}'"):
        check_labelled_kind(kind)


def open_decision(*slices):
    """A decision that ships on all and could not tell on some slices."""
    results = [
        GateResult(
            gate="not_worse", metric="label", slice=name, verdict=verdict, limit=0.02, reason="made up"
        )
        for name, verdict in (("all", Verdict.SHIP), *((s, Verdict.NOT_ENOUGH_DATA) for s in slices))
    ]
    with tempfile.TemporaryDirectory() as folder:
        decision = make_decision(make_candidate(Path(folder) / "lean"))
    report = msgspec.structs.replace(decision.candidates[0], role="nominee", gates=tuple(results))
    return msgspec.structs.replace(decision, candidates=(report,))


def test_labels_go_to_the_slices_that_a_decision_left_open(tmp_path):
    task = read_task(write_task(tmp_path))
    rng = np.random.default_rng(3)
    names = ["de", *["fr"] * 4, *["en"] * 15]
    examples = [
        msgspec.structs.replace(e, slices={"lang": names[i % 20]}) for i, e in enumerate(traffic(4000))
    ]
    one = rng.random(4000) < 0.9
    other = np.where(rng.random(4000) < 0.1, ~one, one)
    a, b = binary(examples, one), binary(examples, other)
    left = open_slices(open_decision("lang=de", "lang=fr", "lang=it"), examples)
    assert left == ["lang=de", "lang=fr"]  # no traffic is Italian
    rows = choose_labels(examples, a, b, budget=300, undecided=left)
    plain = choose_labels(examples, a, b, budget=300)
    drawn = Counter(row.slice for row in rows)
    assert drawn["lang=de"] > 70
    assert drawn["lang=fr"] > 70
    of_plain = Counter(examples[int(row.id[1:])].slices["lang"] for row in plain)
    assert drawn["lang=de"] > 3 * of_plain["de"]
    answered = [msgspec.structs.replace(row, label=examples[int(row.id[1:])].expected) for row in rows]
    found = {(e.slice, e.of): e for e in estimate_from_labels(task, answered)}
    assert {name for name, _ in found} == {"", "lang=de", "lang=fr"}
    change = other.astype(float) - one
    for name, lang in (("lang=de", "de"), ("lang=fr", "fr")):
        mine = np.array([e.slices["lang"] == lang for e in examples])
        difference = found[name, "b - a"]
        assert difference.low <= change[mine].mean() <= difference.high
        assert difference.n_inputs == mine.sum()
    assert found["", "b - a"].low <= change.mean() <= found["", "b - a"].high


def test_a_decision_that_leaves_nothing_open_for_labels_is_refused():
    with pytest.raises(InvalidInput, match=r"must leave a slice open .* got none open"):
        open_slices(open_decision(), traffic(3))
    with pytest.raises(InvalidInput, match=r"candidate must be one of .* got 'other'"):
        open_slices(open_decision("lang=de"), traffic(3), candidate="other")
    with pytest.raises(InvalidInput, match="either a column or undecided slices"):
        choose_labels(traffic(3), [], [], budget=3, column="lang", undecided=["lang=de"])


def test_the_command_chooses_and_reads_back(tmp_path, capsys):

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
    assert f"then jettison label {path} --read {out}" in " ".join(capsys.readouterr().out.split())
    out.write_text(out.read_text().replace('"label":null', '"label":"buy"'))
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main(f"label {path} --read {out}".split())
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert "30 labels for 60 inputs" in said
    (difference,) = (line for line in said.splitlines() if line.lstrip().startswith("b - a:"))
    assert " points (" in difference
    with pytest.raises(SystemExit) as end:
        main(f"label {path} {tmp_path}/a".split())
    assert end.value.code == 2


def test_a_slice_column_that_no_input_has_is_refused_before_the_models_are_asked(tmp_path, capsys):
    path = write_task(tmp_path)
    (tmp_path / "traffic.jsonl").write_text('{"text": "where is my parcel"}\n')
    path.write_text(path.read_text().replace("[data]", '[data]\nunlabelled = "traffic.jsonl"', 1))
    with pytest.raises(SystemExit) as end:
        main(f"label {path} {tmp_path}/a {tmp_path}/b --slice lang".split())
    assert end.value.code == 2
    assert "one that unlabelled inputs have, [], got 'lang'" in " ".join(capsys.readouterr().err.split())
