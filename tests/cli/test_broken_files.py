"""Broken tasks, data, models and places, each by the command that meets it first: one clear line, exit code 2,
nothing half-written, the test split unread. What `test_bad_input.py` tries of settings and disks is not repeated.
"""
# ruff: noqa: E501  (a case a line)

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fake_runs import LABELS
from jettison.candidate import write_candidate
from jettison.cli.main import main
from jettison.compress.checkpoint import take_over
from jettison.loop.config import read_config
from jettison.task import read_task
from tiny import make_tiny_bert

GOLDEN = Path(__file__).parents[1] / "golden" / "release-1"
SPLIT = {"train": 40, "dev": 60, "test": 60}
SETTINGS = 'format = 1\ntask = "task.toml"\nincumbent = "{incumbent}"\noutput = "run"\n'
Arguments = list[str]


def rows() -> list[dict[str, Any]]:
    return [
        {"id": f"{split}-{i}", "text": f"{split} {i * 7919}: a {LABELS[i % 3]} question", "label": LABELS[i % 3], "split": split}
        for split, n in SPLIT.items()
        for i in range(n)
    ]  # fmt: skip


def put(folder: Path, data: list[dict[str, Any]], name: str = "data.jsonl") -> str:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in data))
    return str(folder / name)


@pytest.fixture
def folder(tmp_path):
    """A run that would work: a task, a fake incumbent, settings."""
    put(tmp_path, rows())
    (tmp_path / "task.toml").write_text(
        'format = 1\nname = "questions"\n[data]\npath = "data.jsonl"\n[data.columns]\nid = "id"\nsplit = "split"\n'
    )
    write_candidate(tmp_path / "large", name="large", backend="fake", labels=LABELS)
    (tmp_path / "jettison.toml").write_text(SETTINGS.format(incumbent="large"))
    return tmp_path


def running(folder: Path, *more: str) -> Arguments:
    return ["run", str(folder / "jettison.toml"), *more]


def data(change: Callable[[list[dict[str, Any]]], object]) -> Callable[[Path], Arguments]:
    def write(folder: Path) -> Arguments:
        found = rows()
        changed = change(found)
        put(folder, changed if isinstance(changed, list) else found)
        return running(folder)

    return write


def content(raw: bytes, name: str = "data.jsonl") -> Callable[[Path], Arguments]:
    def write(folder: Path) -> Arguments:
        (folder / name).write_bytes(raw)
        return running(folder)

    return write


def task(text: str) -> Callable[[Path], Arguments]:
    def write(folder: Path) -> Arguments:
        file = folder / "task.toml"
        file.write_text(file.read_text() + text)
        return running(folder)

    return write


def settings(more: str) -> Callable[[Path], Arguments]:
    def write(folder: Path) -> Arguments:
        (folder / "jettison.toml").write_text(SETTINGS.format(incumbent="large") + more)
        return running(folder)

    return write


def incumbent(name: str, make: Callable[[Path], object]) -> Callable[[Path], Arguments]:
    def write(folder: Path) -> Arguments:
        make(folder)
        (folder / "jettison.toml").write_text(SETTINGS.format(incumbent=name))
        return running(folder)

    return write


def train_as_test(found: list[dict[str, Any]]) -> None:
    texts = [row["text"] for row in found if row["split"] == "train"]
    for row, text in zip((r for r in found if r["split"] == "test"), texts, strict=False):
        row["text"] = text


def with_labels(found: list[dict[str, Any]], split: str, label: str) -> None:
    for row in found:
        if row["split"] == split:
            row["label"] = label


def onnx_file(folder: Path, *, reads: str, width: int) -> None:
    onnx = pytest.importorskip("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto
    given = helper.make_tensor_value_info(reads, kinds.INT64, [None, None])
    found = helper.make_tensor_value_info("logits", kinds.FLOAT, [None, None])
    shape = helper.make_tensor("shape", kinds.INT64, [2], [-1, width])
    nodes = [helper.make_node("Cast", [reads], ["cast"], to=kinds.FLOAT), helper.make_node("ReduceSum", ["cast", "axis"], ["sum"], keepdims=1), helper.make_node("Concat", ["sum"] * width, ["logits"], axis=1)]  # fmt: skip
    axis = helper.make_tensor("axis", kinds.INT64, [1], [1])
    graph = helper.make_graph(nodes, "g", [given], [found], [shape, axis])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    (folder / "onnx").mkdir()
    onnx.save(model, str(folder / "onnx" / "model.onnx"))
    if reads == "input_ids":
        shutil.copy(make_tiny_bert(folder / "bert", LABELS) / "tokenizer.json", folder / "onnx")


def not_a_number(folder: Path) -> None:
    from safetensors.numpy import load_file, save_file

    weights = make_tiny_bert(folder / "bert", LABELS) / "model.safetensors"
    tensors = load_file(weights)
    save_file({name: tensor * float("nan") for name, tensor in tensors.items()}, weights)


def checkpoint(name: str, raw: str) -> Callable[[Path], Arguments]:
    """A run on a checkpoint with one file in its folder written over."""

    def write(folder: Path) -> Arguments:
        file = make_tiny_bert(folder / "bert", LABELS) / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(raw)
        (folder / "jettison.toml").write_text(SETTINGS.format(incumbent="bert"))
        return running(folder)

    return write


def configured(**changed: Any) -> Callable[[Path], Arguments]:
    """A run on a checkpoint whose config.json says something else."""

    def write(folder: Path) -> Arguments:
        config = make_tiny_bert(folder / "known", LABELS) / "config.json"
        return checkpoint("config.json", json.dumps({**json.loads(config.read_text()), **changed}))(folder)

    return write


def looking(write: Callable[[Path], Arguments]) -> Callable[[Path], Arguments]:
    """`init` on the same checkpoint."""

    def look(folder: Path) -> Arguments:
        write(folder)
        return ["init", str(folder / "bert"), str(folder / "data.jsonl"), "--out", str(folder / "new")]

    return look


def predictions(name: str, **changed: Any) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        return put(
            folder, [{"id": str(i), "expected": "x", "output": "x", **changed} for i in range(60)], name
        )

    return write


def comparing(
    a: Callable[[Path], str], b: Callable[[Path], str], *more: str
) -> Callable[[Path], Arguments]:
    return lambda folder: ["compare", a(folder), b(folder), *more]


def release(damage: Callable[[Path], object]) -> Callable[[Path], Arguments]:
    def write(folder: Path) -> Arguments:
        shutil.copytree(GOLDEN, folder / "release")
        for path in (folder / "release").rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        damage(folder / "release")
        return ["predict", str(folder / "release"), "a text"]

    return write


def texts(raw: bytes, *more: str) -> Callable[[Path], Arguments]:
    def write(folder: Path) -> Arguments:
        (folder / "texts.txt").write_bytes(raw)
        return ["cost", str(folder / "large"), "--input", str(folder / "texts.txt"), *more]

    return write


def table(raw: str, *more: str) -> Callable[[Path], Arguments]:
    def write(folder: Path) -> Arguments:
        (folder / "table.csv").write_text(raw)
        return [
            "init",
            str(folder / "large"),
            str(folder / "table.csv"),
            "--out",
            str(folder / "new"),
            *more,
        ]

    return write


GOOD = predictions("b.jsonl")
A = predictions("a.jsonl")
BROKEN: dict[str, tuple[Callable[[Path], Arguments], str]] = {
    # data
    "wrong column": (data(lambda d: [{"txt" if k == "text" else k: v for k, v in r.items()} for r in d]), "Did you mean"),
    "no rows": (content(b""), "at least one row, got 0"),
    "NaN for a text": (content(b'{"text": NaN, "label": "refund", "split": "train"}\n'), "NaN is no JSON: write null"),
    "NaN for a label": (data(lambda d: d[3].update(label=None)), "got None at data.jsonl:4"),
    "number for a text": (data(lambda d: d[3].update(text=3.5)), "text must be text"),
    "one class": (data(lambda d: [with_labels(d, s, "refund") for s in SPLIT] and None), "at least two labels, got ['refund']"),
    "a label that train lacks": (data(lambda d: d[-1].update(label="refnud")), "Did you mean 'refund'?"),
    "test is train": (data(train_as_test), "test must be kept apart from train"),
    "no test rows": (data(lambda d: [r for r in d if r["split"] != "test"]), "test split must have at least one example"),
    "no dev rows": (data(lambda d: [r for r in d if r["split"] != "dev"]), "dev"),
    "unknown split": (data(lambda d: d[0].update(split="tarin")), "'tarin'"),
    "an id twice": (data(lambda d: d[1].update(id="train-0")), "ids must each stand for one example"),
    "zero bytes": (content(b"\0" * 99), "data.jsonl:1 must be one JSON object"),
    "nested without end": (content(b"[" * 10_000), "data.jsonl:1 must be one JSON object"),
    "another encoding": (content("text".encode("utf-16")), "must be UTF-8"),
    "cut off": (content(json.dumps(rows()[0]).encode()[:40]), "data.jsonl:1 must be one JSON object"),
    "data is a folder": (lambda f: ((f / "data.jsonl").unlink(), (f / "data.jsonl").mkdir(), running(f))[-1], "must hold data files"),
    "data is gone": (lambda f: ((f / "data.jsonl").unlink(), running(f))[-1], "got nothing there"),
    # task file
    "task: a weight of hundreds of digits": (lambda f: (put(f, [{**r, "w": 10**400} for r in rows()]), task('weight = "w"\n')(f))[-1], "must be a finite number above 0"),
    "task: nested without end": (lambda f: ((f / "task.toml").write_text("a=" + "[" * 5000), running(f))[-1], "nested too deep"),
    "task: no text": (lambda f: ((f / "task.toml").write_bytes(b"\xff\x00"), running(f))[-1], "must be UTF-8 text"),
    "task: unknown section": (task("[slice]\n"), "Did you mean 'slices'?"),
    "task: a slice nobody has": (task('[slices]\nrequired = ["planet=mars"]\n'), "planet=mars"),
    "task: unknown out-of-scope label": (task('[labels]\nout_of_scope = "oos"\n'), "'oos'"),
    # settings
    "settings: nested without end": (lambda f: ((f / "jettison.toml").write_text("a=" + "[" * 5000), running(f))[-1], "nested too deep"),
    "settings: a seed below zero": (lambda f: running(f, "--seed", "-1"), "seed must be 0 to 4294967295, got -1"),
    "settings: more threads than any machine": (settings("threads = 100000\n"), "threads must be at most 1024"),
    "settings: no recipe at all": (settings("recipes = []\n"), "recipes must be"),
    "settings: a recipe without a step": (settings('[[recipes]]\nname = "x"\nsteps = []\n'), "at least one step"),
    "settings: a recipe called incumbent": (settings('[[recipes]]\nname = "incumbent"\nsteps = [{step = "prune"}]\n'), "a name of its own"),
    "settings: skip what is no recipe": (settings('skip = ["onnx-int9"]\n'), "skip must name automatic recipes"),
    "settings: a scorer the task lacks": (settings('[[gates]]\ntype = "not_worse"\nscorer = "vibes"\n'), "gates.scorer must be one of"),
    "settings: cost gates alone": (settings('[[gates]]\ntype = "at_most"\ncost = "bytes"\nlimit = 1.0\n'), "a list with a `not_worse`"),
    "settings: an endpoint for a local model": (settings('[endpoint]\nmodel = "m"\n'), "[endpoint] must be left out"),
    "settings: a folder": (lambda f: ((f / "jettison.toml").unlink(), (f / "jettison.toml").mkdir(), running(f))[-1], "got a folder"),
    "output is a file": (lambda f: ((f / "run").write_text(""), running(f))[-1], "a file stands where a folder is needed"),
    # models
    "model: a pickle": (incumbent("m.pkl", lambda f: (f / "m.pkl").write_bytes(b"\x80\x04cos\n")), "could run code"),
    "model: a torch file": (incumbent("m.pt", lambda f: (f / "m.pt").write_bytes(b"\x80\x04cos\n")), "could run code"),
    "model: plain text": (incumbent("m.txt", lambda f: (f / "m.txt").write_text("hi")), "must be a folder with config.json"),
    "model: a manifest that was edited": (incumbent("large", lambda f: (m := f / "large/candidate.json").write_text(m.read_text().replace("fake", "hf"))), "settings or calibration were edited"),
    "model: a manifest cut off": (incumbent("large", lambda f: (f / "large/candidate.json").write_text("{")), "truncated"),
    "model: ONNX with other inputs": (incumbent("onnx/model.onnx", lambda f: onnx_file(f, reads="pixels", width=3)), "inputs of"),
    "model: ONNX with other outputs": (incumbent("onnx/model.onnx", lambda f: onnx_file(f, reads="input_ids", width=5)), "one logit per label"),
    "model: weights that are no numbers": (incumbent("bert", not_a_number), "logits must be finite"),
    "model: unreachable hub": (incumbent("nobody/no-model", lambda f: None), "Download it elsewhere and name its folder"),
    "model: a config that is a list": (checkpoint("config.json", "[1, 2]"), "config.json must be a JSON object"),
    "model: a tokenizer config that is a list": (checkpoint("tokenizer_config.json", "[]"), "tokenizer_config.json must be a JSON object"),
    "model: a tokenizer config cut off": (checkpoint("tokenizer_config.json", "{"), "tokenizer_config.json must be a JSON object"),
    "model: a sentence config cut off": (checkpoint("sentence_bert_config.json", "{"), "sentence_bert_config.json must be a JSON object"),
    "model: a pooling that is a list": (lambda f: (checkpoint("1_Pooling/config.json", "[]")(f), configured(architectures=["BertModel"])(f))[-1], "1_Pooling/config.json must be a JSON object"),
    "model: layers in words": (configured(num_hidden_layers="two"), "expected int, got str"),
    "model: positions in words": (configured(max_position_embeddings="x"), "must be a checkpoint that AutoModelForSequenceClassification loads"),
    "model: positions below zero": (configured(max_position_embeddings=-5), "must be a checkpoint that AutoModelForSequenceClassification loads"),
    "model: a padding id of no word": (configured(pad_token_id=10**9), "Padding_idx must be within"),
    "model: a quantization that is a list": (configured(quantization_config=[1]), "must be a checkpoint that AutoModelForSequenceClassification loads"),
    "model: labels without numbers": (configured(id2label={"x": "a"}), "must number its labels from 0"),
    "init: a config that is a list": (looking(checkpoint("config.json", "[1, 2]")), "config.json must be a JSON object"),
    "init: a tokenizer config that is a list": (looking(checkpoint("tokenizer_config.json", "[]")), "tokenizer_config.json must be a JSON object"),
    # releases
    "release: broken facts": (release(lambda r: (r / "release.json").write_text("{")), "release.json must be a release file"),
    "release: without weights": (release(lambda r: next((r / "candidates").rglob("candidate.json")).unlink()), "must be there, got nothing"),
    "release: a file too many": (release(lambda r: (r / "more.txt").write_text("x")), "more.txt"),
    "texts: a folder": (lambda f: ["predict", str(GOLDEN), "--input", str(f)], "must be a readable file"),
    # predictions
    "predictions: empty": (comparing(lambda f: put(f, [], "a.jsonl"), GOOD), "at least one row"),
    "predictions: one id": (comparing(predictions("a.jsonl", id="1"), predictions("b.jsonl", id="1")), "must be unique"),
    "predictions: no ids": (comparing(lambda f: put(f, [{"output": "x"}], "a.jsonl"), GOOD), "must have a column named one of"),
    "predictions: other answers expected": (comparing(A, predictions("b.jsonl", expected="y")), "expect the same answer"),
    "predictions: a score of hundreds of digits": (comparing(predictions("a.jsonl", score=10**400), GOOD), "must be a finite number"),
    "predictions: nothing to judge by": (comparing(predictions("a.jsonl", expected=None), predictions("b.jsonl", expected=None)), "carry one scorer"),
    "compare: a margin below zero": (comparing(A, predictions("b.jsonl"), "--margin", "-1"), "zero or more"),
    "compare: unknown slice": (comparing(A, predictions("b.jsonl"), "--slice", "x=y"), "'x=y'"),
    "compare: spreadsheets": (lambda f: ["compare", put(f, rows(), "a.xlsx"), put(f, rows(), "b.xlsx")], "must be prediction files"),
    # the rest
    "a path longer than any": (lambda f: ["predict", "x" * 5000, "a text"], "a path must be shorter, got 'xxx"),
    "init: a path longer than any": (lambda f: ["init", "x" * 5000, str(f / "data.jsonl"), "--out", str(f / "new")], "a path must be shorter, got 'xxx"),
    "cost: no texts": (texts(b""), "at least one text"),
    "cost: no UTF-8": (texts(b"\xff\xfe"), "UTF-8"),
    "cost: an SLO in words": (texts(b"hi\n", "--scenario", "server", "--slo", "p95=fast"), "p95=20ms"),
    "cost: no model": (lambda f: (texts(b"hi\n")(f), ["cost", str(f / "none"), "--input", str(f / "texts.txt")])[-1], "must be a candidate"),
    "init: an empty table": (table(""), "at least one row"),
    "init: no labels": (table("text\n" + "some words\n" * 9), "--expected COLUMN"),
    "init: no data": (lambda f: ["init", str(f / "large"), str(f / "none.csv"), "--out", str(f / "new")], "there is nothing"),
    "init: where no folder can be": (lambda f: ["init", str(f / "large"), str(f / "data.jsonl"), "--out", "/proc/nowhere"], "no folder can be there"),
    "demo: a budget in words": (lambda f: ["demo", "--budget", "soon", "--output", str(f / "new")], "a duration must be above zero"),
    "report: no run": (lambda f: ["report", str(f)], "must be the folder of a finished run, got "),
    "report: of a file": (lambda f: ["report", str(f / "task.toml")], "task.toml without report.json"),
    "label: no unlabelled inputs": (lambda f: ["label", str(f / "task.toml"), str(f / "large"), str(f / "large"), "--output", str(f / "new.jsonl")], "unlabelled"),
}  # fmt: skip
assert len(BROKEN) >= 40


def files(folder: Path) -> dict[str, bytes]:
    """Everything outside the run's cache."""
    found = (p for p in folder.rglob("*") if p.is_file() and (folder / "run" / "cache") not in p.parents)
    return {str(p.relative_to(folder)): p.read_bytes() for p in found}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_input_is_one_clear_line_and_leaves_nothing(folder, capsys, monkeypatch, case):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    make, said = BROKEN[case]
    arguments = make(folder)
    before = files(folder)
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    heard = capsys.readouterr()
    assert stopped.value.code == 2, heard
    errors = [line for line in heard.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, heard
    assert said in errors[0], errors
    assert "Traceback" not in heard.err
    left = {name: raw for name, raw in files(folder).items() if before.get(name) != raw}
    # A run writes down how its settings were resolved before anything else; the ledger of test is not there.
    assert set(left) <= {"run/run.json"}, left


@pytest.mark.parametrize("extra", ["onnxruntime", "torch"])
def test_a_missing_extra_is_named(folder, capsys, monkeypatch, extra):
    if extra == "onnxruntime":
        onnx_file(folder, reads="input_ids", width=3)
        (folder / "jettison.toml").write_text(SETTINGS.format(incumbent="onnx/model.onnx"))
    else:
        make_tiny_bert(folder / "bert", LABELS)
        (folder / "jettison.toml").write_text(SETTINGS.format(incumbent="bert"))
    monkeypatch.setitem(sys.modules, extra, None)
    with pytest.raises(SystemExit) as stopped:
        main(running(folder))
    said = capsys.readouterr().err
    assert stopped.value.code == 2
    assert "pip install 'jettison[" in said
    assert not (folder / "run" / "decision.json").exists()


def test_a_byte_order_mark_is_taken_in_every_file(folder, capsys):
    bert = make_tiny_bert(folder / "bert", LABELS)
    for path in (
        folder / "task.toml",
        folder / "jettison.toml",
        folder / "data.jsonl",
        bert / "config.json",
    ):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    with pytest.raises(SystemExit) as stopped:
        main(["init", str(bert), str(folder / "data.jsonl"), "--out", str(folder / "new")])
    assert stopped.value.code == 0, capsys.readouterr()
    assert read_config(folder / "jettison.toml").incumbent.endswith("large")
    assert read_task(folder / "task.toml").n_test == 60


def test_a_checkpoint_is_taken_over_without_byte_order_marks(tmp_path):
    (tmp_path / "from").mkdir()
    (tmp_path / "to").mkdir()
    (tmp_path / "from" / "config.json").write_bytes(b"\xef\xbb\xbf{}")
    take_over(tmp_path / "from", tmp_path / "to", ("config.json",))
    assert (tmp_path / "to" / "config.json").read_bytes() == b"{}"
