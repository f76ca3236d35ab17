"""`jettison init`: what it finds, what it writes, and what it leaves alone."""

import json
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest

from init_orders import LABELS, orders, run
from jettison.candidate import write_candidate
from jettison.cli.init import command
from jettison.decision import NotWorse
from jettison.errors import BrokenArtifact, CannotWrite, InvalidInput, UnknownName, UnsafeArtifact
from jettison.loop.config import read_config
from jettison.loop.init import Hints, Looked, look
from jettison.loop.propose import propose_gates, smallest_margin
from jettison.task import read_task
from jettison.task.guess import guess_data
from releasing import make_release
from task_writing import hash_word, rows, write_jsonl


def test_both_files_are_written_and_read_back(tmp_path: Path, model: Path, data: Path) -> None:
    out = tmp_path / "here" / "deep"
    assert run(model, data, "--out", out).return_value == 0
    task, config = read_task(out / "task.toml"), read_config(out / "jettison.toml")
    assert (len(task.train), len(task.dev), task.n_test) == (90, 90, 90)
    assert (task.name, task.out_of_scope, task.labels) == ("orders", "oos", LABELS)
    assert task.required_slices[0] == "scope=in"
    assert Path(config.incumbent).resolve() == model.resolve()
    assert Path(config.task).resolve() == (out / "task.toml").resolve()
    assert config.budget == "10m"
    assert config.gates[0].slices[0] == "scope=in"
    assert config.gates == look(str(model), data, write=False).proposal.gates


def test_the_screen_says_what_was_found(tmp_path: Path, model: Path, data: Path) -> None:
    said = " ".join(run(model, data, "--out", tmp_path / "o").output.split())
    assert "BertForSequenceClassification, 3 labels" in said
    assert "its 3 labels are the data's." in said
    assert "270 rows, 3 labels; train 90, dev 90, test 90" in said
    assert "'part': its values are test, train, val" in said
    assert "label not worse on scope=in (60 examples, margin 0.10)" in said
    assert "next: jettison run" in said


def test_json_holds_the_findings_and_nothing_else_is_printed(
    tmp_path: Path, model: Path, data: Path
) -> None:
    told = json.loads(run(model, data, "--out", tmp_path / "o", "--json").output)
    assert told["labels"]["verdict"] == "match"
    assert told["data"]["columns"]["split"] == "part"
    assert told["n_examples"] == {"train": 90, "dev": 90, "test": 90, "unlabelled": 0}
    assert told["tokens"]["n"] == 180
    assert set(told["files"]) == {str(tmp_path / "o" / name) for name in ("task.toml", "jettison.toml")}


def test_what_was_seen_in_the_data_stands_in_the_task_as_comments(tmp_path: Path, model: Path) -> None:
    some = orders()
    few = {"text": "one of its kind", "label": "by\nname", "part": "train"}
    data = write_jsonl(tmp_path / "d.jsonl", [*some, {**some[0], "part": "test"}, few])
    looked = look(str(model), data, out=tmp_path)
    said = (tmp_path / "task.toml").read_text().replace("\n#   ", " ")
    assert "# warning: texts of test that are in train too: 1. A model may know them by heart." in said
    assert "# warning: labels with fewer than 5 examples in train (1): " in said
    assert read_task(tmp_path / "task.toml").findings == looked.findings


def test_files_that_are_there_stay_unless_forced(tmp_path: Path, model: Path, data: Path) -> None:
    (tmp_path / "jettison.toml").write_text("mine")
    with pytest.raises(CannotWrite, match=r"jettison\.toml is there already .* `--force`, or `--out DIR`"):
        run(model, data, "--out", tmp_path)
    assert (tmp_path / "jettison.toml").read_text() == "mine"
    assert not (tmp_path / "task.toml").exists()
    run(model, data, "--out", tmp_path, "--force")
    assert read_config(tmp_path / "jettison.toml").seed == 0


def test_data_that_cannot_be_a_task_leaves_nothing_behind(tmp_path: Path, model: Path) -> None:
    train = rows(split="train")
    path = write_jsonl(
        tmp_path / "same.jsonl", [{**r, "split": s} for s in ("train", "test") for r in train]
    )
    with pytest.raises(
        InvalidInput, match=r"kept apart from train, got .* \(Nothing was written\. Columns"
    ):
        run(model, path, "--out", tmp_path / "o")
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (["--input", "txt"], r"--input must be one of the columns .* got 'txt'\. Did you mean 'text'\?"),
        (["--slice", "domian"], r"--slice must be one of .* Did you mean 'domain'\?"),
        (
            ["--out-of-scope", "os"],
            r"--out-of-scope must be one of the 3 labels, got 'os'\. Did you mean 'oos'",
        ),
    ],
)
def test_a_hint_that_does_not_fit_is_refused(
    model: Path, data: Path, options: list[str], match: str
) -> None:
    with pytest.raises(UnknownName, match=match):
        run(model, data, *options)


def test_a_missing_model_says_what_lies_beside_it(tmp_path: Path, model: Path, data: Path) -> None:
    with pytest.raises(
        InvalidInput, match=r"MODEL must be .*where there is nothing \(beside it: \['large'\]\)"
    ):
        look(str(model.parent / "larg"), data)
    with pytest.raises(
        InvalidInput, match=r"MODEL must be a folder with config\.json .* got .*orders\.jsonl"
    ):
        look(str(data), data)
    with pytest.raises(InvalidInput, match=r"DATA must be a data file .* got 'gone\.csv'"):
        look(str(model), "gone.csv")


def test_pickled_weights_are_refused(tmp_path: Path, data: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("{}")
    (tmp_path / "m" / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(UnsafeArtifact, match=r"weights must be safetensors.*pytorch_model\.bin"):
        look(str(tmp_path / "m"), data)


def test_a_hub_id_is_kept_as_it_is(tmp_path: Path, data: Path) -> None:
    looked = look("an-org/a-model", data, out=tmp_path / "o")
    assert read_config(tmp_path / "o" / "jettison.toml").incumbent == "an-org/a-model"
    assert looked.model.labels is None
    assert looked.tokens is None
    assert looked.labels.verdict == "unknown"


def config_of(model: Path, folder: Path, **changes: Any) -> str:
    """A copy of the model with another config."""
    folder.mkdir()
    for file in model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = {**json.loads((model / "config.json").read_text()), **changes}
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def label_look(model: str, data: Path) -> tuple[str, str]:
    looked = look(model, data, write=False)
    return looked.labels.verdict, looked.labels.message


def test_label_agreement_is_told_apart(tmp_path: Path, model: Path, data: Path) -> None:
    other = config_of(model, tmp_path / "a", id2label={"0": "purchase", "1": "oos", "2": "sell"})
    verdict, message = label_look(other, data)
    assert verdict == "differ"
    assert "'purchase'" in message
    assert "[labels.aliases]" in message
    numbered = config_of(model, tmp_path / "b", id2label={str(i): f"LABEL_{i}" for i in range(3)})
    assert label_look(numbered, data)[0] == "numbered"
    encoder = config_of(model, tmp_path / "c", architectures=["BertModel"])
    assert label_look(encoder, data) == (
        "fitted",
        "it has no head: a linear one is fitted on train for 3 labels.",
    )
    without = config_of(model, tmp_path / "d", id2label={"0": "buy", "1": "sell"})
    assert label_look(without, data) == ("match", "its 2 labels are the data's, without 'oos'.")


def test_a_candidate_is_known_by_its_manifest(tmp_path: Path, data: Path) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "weights.txt").write_text("x")
    write_candidate(tmp_path / "c", name="c", backend="fake", labels=LABELS)
    looked = look(str(tmp_path / "c"), data, write=False)
    assert (looked.model.kind, looked.model.labels) == ("candidate", LABELS)


def test_a_release_is_known_by_the_candidate_in_it(tmp_path: Path, data: Path) -> None:
    release = make_release(tmp_path).path
    looked = look(str(release), data, write=False)
    assert (looked.model.kind, looked.labels.verdict) == ("release", "differ")
    assert looked.model.labels is not None


def test_positions_in_the_data_take_their_names_from_the_model(tmp_path: Path, model: Path) -> None:
    numbered = [{**row, "label": LABELS.index(row["label"])} for row in orders()]
    data = write_jsonl(tmp_path / "numbered.jsonl", numbered)
    look(str(model), data, out=tmp_path)
    task = read_task(tmp_path / "task.toml")
    assert task.labels == LABELS
    assert task.train[0].expected == "buy"


def test_labels_without_an_example_in_the_data_are_taken_from_the_model(
    tmp_path: Path, model: Path
) -> None:
    some = [row for row in orders() if row["label"] != "oos"]
    looked = look(str(model), write_jsonl(tmp_path / "some.jsonl", some), out=tmp_path)
    assert looked.labels.verdict == "match"
    assert read_task(tmp_path / "task.toml").labels == LABELS
    assert "# the model's labels: the data has no example of oos" in (tmp_path / "task.toml").read_text()


def test_tokens_are_counted_on_all_but_test(tmp_path: Path, model: Path) -> None:
    long = [{"text": "zora " * 200 + hash_word(i), "label": "buy", "part": "test"} for i in range(5)]
    looked = look(str(model), write_jsonl(tmp_path / "d.jsonl", [*orders(), *long]), write=False)
    assert looked.tokens is not None
    assert looked.tokens.p50 <= looked.tokens.p95 <= looked.tokens.max < 100
    assert looked.tokens.recommended_max_tokens >= looked.tokens.max
    assert looked.tokens.truncated_share == 0


def test_texts_longer_than_the_model_reads_are_counted(tmp_path: Path, model: Path) -> None:
    some = orders()
    for row in some[:9]:
        row["text"] += " zora" * 80
    looked = look(str(model), write_jsonl(tmp_path / "d.jsonl", some), out=tmp_path)
    assert looked.tokens is not None
    assert looked.tokens.recommended_max_tokens == 64
    assert looked.tokens.truncated_share == pytest.approx(9 / 180)
    assert "which cuts 5.0% of them" in (tmp_path / "jettison.toml").read_text().replace("\n#   ", " ")


def test_data_without_splits_gets_shares(tmp_path: Path, model: Path) -> None:
    data = [{k: v for k, v in row.items() if k != "part"} for row in orders()]
    look(str(model), write_jsonl(tmp_path / "d.jsonl", data), out=tmp_path)
    content = tomllib.loads((tmp_path / "task.toml").read_text())
    assert content["split"] == {"test_share": 0.2, "dev_share": 0.1, "seed": 0}
    task = read_task(tmp_path / "task.toml")
    assert (len(task.train), len(task.dev), task.n_test) == (189, 27, 54)


def test_unknown_split_names_are_mapped_or_ignored(tmp_path: Path, model: Path) -> None:
    more = [
        {**row, "part": part, "domain": "web"}
        for part in ("ood", "extra part")
        for row in rows(5, split=part, labels=LABELS)
    ]
    look(str(model), write_jsonl(tmp_path / "d.jsonl", [*orders(), *more]), out=tmp_path)
    content = tomllib.loads((tmp_path / "task.toml").read_text())
    assert content["data"]["splits"] == {"ood": "test", "extra part": "ignore"}
    assert read_task(tmp_path / "task.toml").n_test == 105


def test_odd_names_survive_the_way_through_toml(tmp_path: Path, model: Path) -> None:
    odd = 'a "quoted"\nsplit \\ # \x7f'
    some = [
        {
            'the "text"': row["text"],
            "label": row["label"],
            "split": odd if row["part"] == "test" else row["part"],
        }
        for row in orders()
    ]
    data = write_jsonl(tmp_path / 'my "orders" #1.jsonl', some)
    extra = [{**some[0], 'the "text"': "one more for the test", "split": "test"}]
    write_jsonl(data, [*some, *extra])
    look(str(model), data, out=tmp_path, hints=Hints(input='the "text"'))
    content = tomllib.loads((tmp_path / "task.toml").read_text())
    assert content["data"]["splits"] == {odd: "ignore"}
    assert content["name"] == 'my "orders" #1'


def test_columns_are_guessed_by_content_where_names_say_nothing(tmp_path: Path) -> None:
    some = [
        {
            "a1": f"k{i}",
            "b2": f"{hash_word(i)} and a long text {i}",
            "c3": ("x", "y")[i % 2],
            "user_id": f"u{i // 4}",
        }
        for i in range(100)
    ]
    guess = guess_data(write_jsonl(tmp_path / "d.jsonl", some))
    assert (guess.columns.input, guess.columns.expected, guess.columns.group) == ("b2", "c3", "user_id")
    assert guess.reasons["input"].startswith("'b2': the longest texts")


def test_data_without_a_sure_label_asks_for_it(tmp_path: Path) -> None:
    some = [{"text": hash_word(i), "k": str(i % 2), "m": str(i % 3)} for i in range(60)]
    path = write_jsonl(tmp_path / "d.jsonl", some)
    with pytest.raises(InvalidInput, match=r"must have a column of labels.*Name it: `--expected COLUMN`"):
        guess_data(path)
    with pytest.raises(InvalidInput, match=r"must have a column of texts, got \['k'\]"):
        guess_data(write_jsonl(tmp_path / "n.jsonl", [{"k": i} for i in range(9)]))


def writer(folder: Path) -> Path:
    folder.mkdir()
    (folder / "note.txt").write_text("an engine in memory")
    settings = {"kind": "generate"}
    write_candidate(folder, name="w", backend="fake_language", labels=(), settings=settings)
    return folder


@pytest.mark.parametrize(
    ("column", "said", "kind", "judge"),
    [
        ("answers", lambda text, i: [text.upper(), str(i)], "generate", "normalized_exact"),
        ("reply", lambda text, i: f"Thank you for {text}.", "generate", "normalized_exact"),
        ("fields", lambda text, i: {"n": i}, "extract", "field_f1"),
        ("label", lambda text, i: ("buy", "sell")[i // 2 % 2], "classify", "label"),
    ],
)
def test_data_of_a_language_model_may_have_free_answers(tmp_path, column, said, kind, judge) -> None:
    parts = [*["test"] * 80, *["train"] * 40, *["dev"] * 40]
    words = [hash_word(i) for i in range(160)]
    some = [
        {"text": w, column: said(w, i), "part": p}
        for i, (w, p) in enumerate(zip(words, parts, strict=True))
    ]
    data = write_jsonl(tmp_path / "d.jsonl", some)
    found = run(writer(tmp_path / "model"), data, "--out", tmp_path / "out")
    task, config = (
        read_task(tmp_path / "out" / "task.toml"),
        read_config(tmp_path / "out" / "jettison.toml"),
    )
    assert (task.kind, task.scorers[0], config.gates[0].scorer) == (kind, judge, judge)
    assert (len(task.train), len(task.dev), task.n_test) == (40, 40, 80)
    assert f"jettison run {tmp_path / 'out'}" in found.output
    prompt = task.development.prompt
    assert prompt is None if kind == "classify" else prompt.max_tokens >= 16


def test_free_answers_are_for_language_models_and_an_address_is_not_looked_at(
    tmp_path: Path, model: Path
) -> None:
    some = [{"text": hash_word(i), "answers": [hash_word(i)]} for i in range(60)]
    data = write_jsonl(tmp_path / "d.jsonl", some)
    with pytest.raises(InvalidInput, match=r"must have a column of labels.*Name it: `--expected COLUMN`"):
        look(str(model), data, write=False)
    with pytest.raises(InvalidInput, match=r"must be on this disk .* \[endpoint\]: docs/endpoints\.md"):
        look("https://host/v1", data, write=False)


def test_smallest_margin_needs_both_room_and_power() -> None:
    # n needed at 2 % flips and 80 % power: 7.849 * .02 / m^2, at least ln(.025) / ln(1 - m):
    # .01: 1570 (368), .02: 393 (183), .03: 175 (122), .05: 72 by the second, .10: 36.
    assert [smallest_margin(n) for n in (35, 36, 71, 72, 174, 175, 392, 393, 1569, 1570)] == [
        None, 0.10, 0.10, 0.05, 0.05, 0.03, 0.03, 0.02, 0.02, 0.01,
    ]  # fmt: skip


def test_gates_name_what_can_be_certified_and_list_what_cannot() -> None:
    counts = {"all": 3000, "scope=in": 2000, "scope=out": 1000, "domain=web": 400, "domain=fax": 20}
    proposal = propose_gates(counts, out_of_scope="oos")
    assert proposal.gates == (
        NotWorse(margin=0.01, slices=("scope=in", "domain=web"), margins={"domain=web": 0.02}),
        NotWorse(scorer="out_of_scope", margin=0.02, slices=("scope=out", "scope=in")),
    )
    assert proposal.too_small == {"domain=fax": 20}
    plain = propose_gates({"all": 3000, "shade=red": 1500, "shade=blue": 1500}, out_of_scope=None)
    assert plain.gates == (NotWorse(margin=0.01, slices=("all",)),)
    assert plain.left_out == {"shade": 2}


def test_the_values_left_out_are_counted_as_column_star_requires_them() -> None:
    counts = {"all": 3000, "scope=in": 2000, "scope=out": 1000, "shade=red": 2000, "shade=oos": 1000}
    assert propose_gates(counts, out_of_scope="oos").left_out == {"shade": 2}


def test_a_test_split_too_small_for_any_margin_is_said(tmp_path: Path, model: Path) -> None:
    looked: Looked = look(str(model), write_jsonl(tmp_path / "d.jsonl", orders(5)), out=tmp_path)
    assert looked.proposal.too_small["scope=in"] == 10
    assert (
        "# Not certifiable, too few test examples: scope=in (10)"
        in (tmp_path / "jettison.toml").read_text()
    )


def test_faults_of_the_data_can_be_mended_on_the_command_line(tmp_path: Path, model: Path) -> None:
    some = orders()
    leaked = {**some[0], "part": "test"}
    data = write_jsonl(tmp_path / "d.jsonl", [*some, leaked, {"text": "x", "label": "by", "part": "test"}])
    with pytest.raises(InvalidInput, match=r"got 'by' at d\.jsonl:272 .* map it under \[labels\.aliases\]"):
        run(model, data, "--out", tmp_path)
    run(model, data, "--out", tmp_path, "--alias", "by=buy", "--drop-leaked")
    task = read_task(tmp_path / "task.toml")
    assert (len(task.train), task.n_test, task.labels) == (89, 92, LABELS)
    with pytest.raises(click.BadParameter, match=r"must be WRITTEN=MEANT, got 'by'"):
        run(model, data, "--alias", "by")


def test_every_option_is_documented() -> None:
    docs = (Path(__file__).resolve().parents[2] / "docs" / "task.md").read_text()
    options = {name for option in command.params for name in option.opts if name.startswith("--")}
    assert not [option for option in options if f"`{option}" not in docs]


def test_what_a_run_would_stop_at_comes_before_the_run(tmp_path: Path, model: Path, data: Path) -> None:
    other = config_of(model, tmp_path / "a", id2label={"0": "purchase", "1": "oos", "2": "sell"})
    said = " ".join(run(other, data, "--out", tmp_path / "o").output.split())
    assert "Only the model has ['purchase'], only the data ['buy']." in said
    assert "--alias buy=purchase" in said
    assert "next:" not in said
    assert said.index("first: the model answers 3 labels") < said.index("then: jettison run")
    # The way out that is named works.
    mended = run(other, data, "--out", tmp_path / "o", "--force", "--alias", "buy=purchase").output
    assert "first:" not in mended
    assert "next: jettison run" in mended


def test_too_few_examples_to_calibrate_or_to_prove_anything_are_said_first(
    tmp_path: Path, model: Path
) -> None:
    few = orders(6)
    looked = look(str(model), write_jsonl(tmp_path / "few.jsonl", few), write=False)
    assert any("calibration reads one half of dev" in said for said in looked.blocking)
    assert any("has 12 examples: not even a loss under 10 points" in said for said in looked.blocking)


def test_a_tokenizer_that_an_onnx_file_lacks_goes_into_its_folder(tmp_path: Path, data: Path) -> None:
    (tmp_path / "graph").mkdir()
    (tmp_path / "graph" / "model.onnx").write_bytes(b"\x08\x0a\x3a\x00")  # ONNX with an empty graph
    looked = look(str(tmp_path / "graph" / "model.onnx"), data, write=False)
    assert any(f"tokenizer into {tmp_path / 'graph'}: `Auto" in said for said in looked.blocking)


def test_weights_cut_short_and_a_missing_tokenizer_are_seen_before_a_run(
    tmp_path: Path, model: Path, data: Path
) -> None:
    bare = Path(config_of(model, tmp_path / "bare"))
    (bare / "tokenizer.json").unlink()
    assert any(
        "no tokenizer.json beside the model" in said for said in look(str(bare), data, write=False).blocking
    )
    weights = bare / "model.safetensors"
    whole = weights.read_bytes()
    for content, got in ((whole[:-100], "tensors of"), (b"version https://git-lfs", "no header")):
        weights.write_bytes(content)
        with pytest.raises(BrokenArtifact, match=rf"must be a whole safetensors file, got .*{got}"):
            look(str(bare), data, write=False)


def test_model_and_data_in_the_wrong_order_are_told(model: Path, data: Path) -> None:
    with pytest.raises(InvalidInput, match=r"MODEL must be .* MODEL comes first and DATA second"):
        look(str(data), model, write=False)


def test_a_second_column_of_labels_is_named(tmp_path: Path, model: Path) -> None:
    both = write_jsonl(tmp_path / "both.jsonl", [{**row, "intent": row["label"]} for row in orders()])
    reason = look(str(model), both, write=False).data.reasons["expected"]
    assert reason == "'label': 3 different values; or is it 'intent'? then `--expected intent`"
    few = write_jsonl(tmp_path / "few.jsonl", [{"text": f"a {i}", "label": f"x{i}"} for i in range(9)])
    with pytest.raises(InvalidInput, match="'label' has 9 different values in 9 rows, where labels are"):
        look(str(model), few, write=False)


def test_nothing_blocks_where_a_run_may_release_something(model: Path, data: Path) -> None:
    assert look(str(model), data, write=False).blocking == ()
