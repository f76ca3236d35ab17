"""Lint finds what weakens a suite, and says nothing of what does not."""

import json

import numpy as np
import pytest

from jettison.cli.main import main
from jettison.evaluate.suites.lint import lint
from jettison.record import Record
from jettison.task.read import read_task
from task_writing import rows, write_task


def rules(found):
    return {one.rule for one in found}


def topics(split: str, n: int = 30):
    words = {"money": "coin bank note cash loan", "food": "soup bread rice meal dish"}
    rng = np.random.default_rng(len(split))
    made = []
    for label, own in words.items():
        for i in range(n):
            some = rng.permutation(own.split())[:3]
            made.append({"text": f"{' '.join(some)} {split[:2]} {i}", "label": label})
    return made


def test_a_clean_task_has_no_findings_of_lint(tmp_path):
    found = lint(read_task(write_task(tmp_path)), margin=0.3)
    assert not rules(found) & {"ngram_leak", "label_suspect", "small_slice", "saturated_slice"}


def test_a_label_that_all_near_texts_contradict_is_a_suspect(tmp_path):
    train = topics("train")
    train[3]["label"] = "food"
    task = read_task(write_task(tmp_path, train=train, dev=topics("dev"), test=topics("test")))
    (one,) = [f for f in lint(task) if f.rule == "label_suspect"]
    assert one.n_examples == 1
    assert train[3]["text"] in one.message
    assert "labels of train" in one.message
    assert one.examples == (task.train[3].id,)


def test_a_run_of_words_copied_from_train_is_a_leak(tmp_path):
    copied = "the quick brown fox jumps over the lazy dog while it rains"
    train = [
        *rows(split="train"),
        {"text": f"{copied} and nobody looks out of any window at all today", "label": "buy"},
    ]
    test = [*rows(split="test"), {"text": f"yesterday {copied} hard", "label": "buy"}]
    found = lint(read_task(write_task(tmp_path, train=train, dev=rows(split="dev"), test=test)))
    (one,) = [f for f in found if f.rule == "ngram_leak"]
    assert one.n_examples == 1


def test_slices_too_small_to_pass_are_named_with_what_they_can_show(tmp_path):
    task = read_task(write_task(tmp_path))
    (one,) = [f for f in lint(task, margin=0.05) if f.rule == "small_slice"]
    # 12 examples without a flip: 1 - 0.025^(1/12) = 26 points; 72 are needed for five points.
    assert "12 test examples; 72 are the fewest" in one.message
    assert "no less than 26" in one.message


def test_a_slice_that_is_always_right_is_saturated():
    def record(i, column, score):
        return Record(
            candidate="c",
            example_id=f"{column}{i}",
            split="dev",
            output="x",
            scores={"label": score},
            slices={"kind": column},
        )

    from jettison.evaluate.suites.lint import _saturated

    records = [record(i, "easy", 1.0) for i in range(30)] + [record(i, "hard", i % 2) for i in range(30)]
    found = _saturated(records, "label")
    assert [one.message.split(" is ")[0] for one in found] == ["slice kind=easy"]


def test_texts_of_one_meaning_are_found_by_an_embedder(tmp_path):
    from safetensors.numpy import save_file
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = tmp_path / "embedder"
    folder.mkdir()
    words = ["[UNK]", "big", "large", "house", "home", "cat", "runs", "fast"]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    table = np.zeros((8, 4), np.float32)
    for row, axis in ((1, 0), (2, 0), (3, 1), (4, 1), (5, 2), (6, 3), (7, 3)):
        table[row, axis] = 1
    save_file({"embeddings": table}, str(folder / "model.safetensors"))
    train = [{"text": "big house", "label": "a"}, {"text": "cat runs", "label": "b"}] * 1
    test = [{"text": "large home", "label": "a"}, {"text": "house runs fast", "label": "b"}]
    dev = [{"text": "cat", "label": "a"}, {"text": "fast", "label": "b"}]
    task = read_task(write_task(tmp_path, train=train, dev=dev, test=test))
    (one,) = [f for f in lint(task, embedder=folder) if f.rule == "embedding_leak"]
    assert one.n_examples == 1


def test_the_command_prints_findings_and_exits_with_1(tmp_path, capsys):
    path = write_task(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(["suites", "lint", str(path), "--json"])
    assert end.value.code == 1
    assert "small_slice" in {one["rule"] for one in json.loads(capsys.readouterr().out)}
