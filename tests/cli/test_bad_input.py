"""Bad models, settings and disks: one clear line, exit code 2, nothing half-written."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from fake_runs import LABELS, task_at
from jettison.candidate import write_candidate
from jettison.cli.main import main
from tiny import make_tiny_bert

GOLDEN = Path(__file__).parents[1] / "golden" / "release-1"


@pytest.fixture
def folder(tmp_path):
    """A run that would work: a task, a fake incumbent, settings."""
    task_at(tmp_path, n_test=400)
    (tmp_path / "large").mkdir()
    write_candidate(tmp_path / "large", name="large", backend="fake", labels=LABELS)
    (tmp_path / "jettison.toml").write_text(settings())
    return tmp_path


def settings(incumbent: str = "large", task: str = "task.toml", more: str = "") -> str:
    return f'format = 1\ntask = "{task}"\nincumbent = "{incumbent}"\noutput = "run"\n{more}\n'


def refused(capsys, *arguments: str) -> str:
    """Run a command that must refuse its input, and return the one line it says."""
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    said = capsys.readouterr().err
    assert stopped.value.code == 2, said
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, said
    assert "Traceback" not in said
    return errors[0]


def assert_nothing_half_written(folder: Path) -> None:
    left = [p for p in (folder / "run").rglob(".*") if p.is_dir() or p.stat().st_size]
    assert not left
    assert not (folder / "run" / "release").exists()
    assert not (folder / "run" / "decision.json").exists()


def test_what_the_task_lacks_is_said_before_the_incumbent_is_asked(folder, capsys):
    (folder / "jettison.toml").write_text(settings(incumbent="./nosuch"))
    task = (folder / "task.toml").read_text()
    kind = task.replace('"classify"', '"generate"')
    (folder / "task.toml").write_text(kind.replace("[data]\n", 'scorers = ["similarity"]\n[data]\n'))
    said = refused(capsys, "run", str(folder / "jettison.toml"))
    assert "scorer 'similarity' must be given 'embedder'" in said
    (folder / "task.toml").write_text(f'{task}[data.splits]\ndev = "ignore"\n[split]\ndev_share = 0.05\n')
    said = refused(capsys, "run", str(folder / "jettison.toml"))
    assert "needs at least 20 examples with a right answer there, got " in said
    assert "of the 15 of dev" in said


SETTINGS = {
    "unknown setting": (settings(more="recipe = 'auto'"), "Did you mean 'recipes'"),
    "broken TOML": ("format = = 1", "must be TOML"),
    "wrong format": (settings().replace("format = 1", "format = 7"), "format must be 1, got 7"),
    "task missing": (settings(task="nosuch.toml"), "nosuch.toml"),
    "incumbent missing": (settings(incumbent="./nosuch"), "nosuch"),
    "unknown step": (
        settings(more='[[recipes]]\nname = "x"\nsteps = [{step = "squeeze"}]'),
        "got 'squeeze'",
    ),
    "unknown step setting": (
        settings(more='[[recipes]]\nname = "x"\nsteps = [{step = "prune", deepness = 2}]'),
        "got 'deepness'",
    ),
    "step setting of the wrong type": (
        settings(more='[[recipes]]\nname = "x"\nsteps = [{step = "prune", depth = "two"}]'),
        "prune",
    ),
    "two recipes of one name": (
        settings(more='[[recipes]]\nname = "x"\nsteps = []\n[[recipes]]\nname = "x"\nsteps = []'),
        "'x' twice",
    ),
    "recipe without a name": (settings(more="[[recipes]]\nsteps = []"), "recipes[0]"),
    "nonsense budget": (settings(more='budget = "soon"'), "duration"),
    "zero threads": (settings(more="threads = 0"), "threads must be at least 1"),
    "margin of zero": (
        settings(more='[[gates]]\ntype = "not_worse"\nmargin = 0.0'),
        "gates.margin must be between 0 and 1",
    ),
    "unknown cost": (
        settings(more='[[gates]]\ntype = "at_most"\ncost = "carbon"\nlimit = 1.0'),
        "gates.cost must be one of",
    ),
    "unknown setting of a gate": (
        settings(more='[[gates]]\ntype = "not_worse"\nslice = ["domain=*"]'),
        "at `$.gates[0]`, got 'slice'. Did you mean 'slices'?",
    ),
    "unknown setting of a limit": (
        settings(more='[[gates]]\ntype = "at_most"\ncost = "bytes"\nlimit = 1.0\nlimt = 2.0'),
        "at `$.gates[0]`, got 'limt'. Did you mean 'limit'?",
    ),
    "unknown setting of suites": (
        settings(more="[suites]\nper_exmple = 3"),
        "at `$.suites`, got 'per_exmple'. Did you mean 'per_example'?",
    ),
    "unknown setting of a recipe": (
        settings(more='[[recipes]]\nname = "x"\nstep = "prune"\nsteps = [{step = "prune"}]'),
        "recipes[0] must have settings among",
    ),
    "null byte in a path": (
        settings(incumbent="a\\u0000b"),
        r"must hold texts without null bytes, got 'a\x00b' at `$.incumbent`",
    ),
    "unknown gate": (settings(more='[[gates]]\ntype = "vibes"'), "vibes"),
    "gate mistyped": (
        settings(more='[[gates]]\ntype = "notworse"'),
        "It must be one of ['at_most', 'not_shown_worse', 'not_worse']. Did you mean 'not_worse'?",
    ),
    "word that is no choice": (
        settings(more='calibration = "x"'),
        "`$.calibration`. It must be one of ['auto', 'isotonic', 'temperature', 'vector'].",
    ),
    "endless budget": (settings(more="budget = inf"), "a duration must be at most ten years, got 'inf'"),
    "budget of no number": (
        settings(more="budget = nan"),
        "a duration must be at most ten years, got 'nan'",
    ),
    "budget of 400 digits": (settings(more=f'budget = "{"9" * 400}h"'), "at most ten years, got '9999"),
    "budget of 400 digits, a number": (
        settings(more=f"budget = {'9' * 400}"),
        "at most ten years, got '9999",
    ),
    "endless measuring": (settings(more="cost_s = inf"), "cost_s must be a finite number above 0, got inf"),
    "endless rate": (
        settings(more="rate_per_s = inf"),
        "rate_per_s must be a finite number above 0, got inf",
    ),
    "endless limit": (
        settings(more='[[gates]]\ntype = "at_most"\ncost = "latency_p95_s"\nlimit = inf'),
        "gates.limit must be a finite number above 0, got inf",
    ),
    # What an incumbent of hours need not be asked for: it is not even there.
    "labels of no scorer": (
        settings(incumbent="./nosuch", more='scorer_labels = {jugde = "people.jsonl"}'),
        "scorer_labels must be of the task's scorers ['label'], got 'jugde'",
    ),
    "labelled answers missing": (
        settings(incumbent="./nosuch", more='scorer_labels = {label = "people.jsonl"}'),
        "labelled answers must be a JSONL file",
    ),
    "safety probes missing": (
        settings(incumbent="./nosuch", more='safety_probes = ["own.jsonl"]'),
        "own.jsonl",
    ),
    "unknown slice": (
        settings(more='[[gates]]\ntype = "not_worse"\nslices = ["planet=mars"]'),
        "planet",
    ),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_bad_settings_are_refused_before_anything_is_made(folder, capsys, case):
    text, said = SETTINGS[case]
    (folder / "jettison.toml").write_text(text)
    assert said in refused(capsys, "run", str(folder / "jettison.toml"))
    assert_nothing_half_written(folder)


def test_settings_that_are_not_there_are_refused(tmp_path, capsys):
    assert "jettison init" in refused(capsys, "run", str(tmp_path / "jettison.toml"))


def bert(folder: Path) -> Path:
    return make_tiny_bert(folder / "bert", LABELS)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


TOKENIZERS = ("tokenizer.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json")
MODELS = {
    "corrupt weights": (
        lambda m: (m / "model.safetensors").write_bytes(b"\x00" * 64),
        "must be a safetensors file",
    ),
    "truncated weights": (lambda m: truncate(m / "model.safetensors"), "must be a safetensors file"),
    "no weights": (lambda m: (m / "model.safetensors").unlink(), "*.safetensors"),
    "pickled weights": (
        lambda m: (m / "model.safetensors").rename(m / "pytorch_model.bin"),
        "safetensors",
    ),
    "no tokenizer": (lambda m: [p.unlink() for p in m.glob("*") if p.name in TOKENIZERS], "tokenizer.json"),
    "corrupt tokenizer": (lambda m: (m / "tokenizer.json").write_text("{}"), "tokenizer"),
    "corrupt config": (lambda m: (m / "config.json").write_text("{"), "config.json"),
    "an empty folder": (lambda m: [p.unlink() for p in m.iterdir()], "bert"),
}


@pytest.mark.parametrize("case", MODELS)
def test_a_bad_checkpoint_is_refused(folder, capsys, case):
    damage, said = MODELS[case]
    damage(bert(folder))
    (folder / "jettison.toml").write_text(settings(incumbent="bert"))
    line = refused(capsys, "run", str(folder / "jettison.toml"))
    assert said in line
    assert str(folder / "bert") in line
    assert_nothing_half_written(folder)


def test_a_model_of_other_labels_is_refused(folder, capsys):
    make_tiny_bert(folder / "other", ("north", "south", "east", "west"))
    (folder / "jettison.toml").write_text(settings(incumbent="other"))
    said = refused(capsys, "run", str(folder / "jettison.toml"))
    assert "label" in said


def test_a_file_that_is_no_onnx_model_is_refused(folder, capsys):
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_bytes(b"not a model")
    shutil.copy(bert(folder) / "tokenizer.json", folder / "onnx" / "tokenizer.json")
    (folder / "jettison.toml").write_text(settings(incumbent="onnx/model.onnx"))
    assert "ONNX" in refused(capsys, "run", str(folder / "jettison.toml"))
    assert_nothing_half_written(folder)


def test_a_folder_that_is_no_release_is_refused(tmp_path, capsys):
    assert "release" in refused(capsys, "predict", str(tmp_path), "a text")


def test_an_altered_release_is_refused(tmp_path, capsys):
    shutil.copytree(GOLDEN, tmp_path / "release")
    decision = tmp_path / "release" / "decision.json"
    decision.write_text(decision.read_text().replace("SHIP", "SHOP"))
    for command in ("predict", "verify"):
        texts = ["a text"] if command == "predict" else []
        assert "decision.json" in refused(capsys, command, str(tmp_path / "release"), *texts)


def test_prediction_files_that_are_not_there_are_refused(tmp_path, capsys):
    assert "a.jsonl" in refused(capsys, "compare", str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl"))


def test_predictions_of_other_examples_are_refused(tmp_path, capsys):
    for name, first in (("a", 0), ("b", 500)):
        rows = [{"id": str(first + i), "expected": "x", "output": "x"} for i in range(100)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    refused(capsys, "compare", str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl"))


def mounted(folder: Path, options: str) -> None:
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.skip("mounting a file system needs root")


@pytest.mark.parametrize(("options", "said"), [("size=64k", "full"), ("size=1m,ro", "read-only")])
def test_a_disk_that_cannot_be_written_is_said(folder, capsys, options, said):
    (folder / "run").mkdir()
    mounted(folder / "run", options)
    try:
        assert said in refused(capsys, "run", str(folder / "jettison.toml"))
        assert not (folder / "run" / "release").exists()
    finally:
        subprocess.run(["umount", str(folder / "run")], check=True)


def test_a_folder_without_permission_is_said(folder, capsys):
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    (folder / "run").mkdir(mode=0o500)
    assert "permission" in refused(capsys, "run", str(folder / "jettison.toml"))


def test_report_of_a_release_names_the_folder_of_its_run(tmp_path, capsys):
    shutil.copytree(GOLDEN, tmp_path / "run" / "release")
    release = str(tmp_path / "run" / "release")
    assert "the folder of its run is where `jettison run` wrote it." in refused(capsys, "report", release)
    (tmp_path / "run" / "report.json").write_text("{}")
    assert f"the folder of its run is {tmp_path / 'run'}." in refused(capsys, "report", release)


def test_a_missing_file_of_texts_is_named_by_the_option_that_was_given(tmp_path, capsys):
    missing = tmp_path / "missing.txt"
    said = refused(capsys, "compare", "a", "b", "--texts", str(missing))
    assert said == f"error: --texts must be a readable file, got {missing}, where there is none."
