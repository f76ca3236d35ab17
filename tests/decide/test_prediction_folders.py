"""Predictions as data set folders and as samples of Every Eval Ever; scores that cannot be paired."""

import json
import random
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jettison.cli.main import jettison
from jettison.decide.compare import compare_files
from jettison.decide.predictions import is_prediction_file, read_predictions
from jettison.decision import NotWorse
from jettison.errors import InvalidInput
from task_writing import write_jsonl

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
GATE = NotWorse(margin=0.05)


def rows(n_wrong: int, n: int = 200) -> list[dict]:
    return [
        {"id": f"q{i}", "input": f"is it {i}?", "output": "no" if i < n_wrong else "yes", "expected": "yes"}
        for i in range(n)
    ]


@pytest.fixture
def plain(tmp_path) -> Path:
    return write_jsonl(tmp_path / "plain.jsonl", rows(8))


def parquet_shards(folder: Path) -> None:
    (folder / "data").mkdir(parents=True)
    table = pa.Table.from_pylist(rows(6))
    for shard in range(2):
        pq.write_table(
            table.slice(100 * shard, 100), folder / "data" / f"test-0000{shard}-of-00002.parquet"
        )
    pq.write_table(pa.Table.from_pylist(rows(200)), folder / "data" / "train-00000-of-00001.parquet")


def saved_to_disk(folder: Path) -> None:
    folder.mkdir()
    names = ["no", "yes"]
    coded = [{**row, "output": names.index(row["output"])} for row in rows(6)]
    table = pa.Table.from_pylist(coded)
    with (
        pa.OSFile(str(folder / "data-0.arrow"), "wb") as sink,
        pa.ipc.new_stream(sink, table.schema) as writer,
    ):
        writer.write_table(table)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-0.arrow"}]}))
    features = {"output": {"names": names, "_type": "ClassLabel"}}
    (folder / "dataset_info.json").write_text(json.dumps({"features": features}))


def named_by_a_card(folder: Path) -> None:
    folder.mkdir()
    shuffled = random.Random(0).sample(rows(6), 200)
    write_jsonl(folder / "lean.jsonl", shuffled)
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n"
        "  - {split: predictions, path: lean.jsonl}\n---\n"
    )


@pytest.mark.parametrize(
    "layout", [parquet_shards, saved_to_disk, named_by_a_card], ids=lambda f: f.__name__
)
def test_a_data_set_folder_of_predictions_compares_like_a_file(layout, plain, tmp_path):
    layout(tmp_path / "set")
    assert is_prediction_file(str(tmp_path / "set"))
    found = compare_files(plain, tmp_path / "set", gate=GATE)
    assert found.results[0].n == 200
    assert found.results[0].flips is not None
    assert (found.results[0].flips.harmful, found.results[0].flips.beneficial) == (0, 2)


def test_a_folder_of_several_splits_without_a_test_split_is_refused(tmp_path):
    (tmp_path / "set").mkdir()
    for split in ("train", "validation"):
        write_jsonl(tmp_path / "set" / f"{split}.jsonl", rows(3))
    with pytest.raises(InvalidInput, match=r"one that is called test, got \['train', 'validation'\]"):
        read_predictions(tmp_path / "set")


def test_models_candidates_and_releases_are_no_data_sets(tmp_path):
    assert not is_prediction_file(str(GOLDEN / "release-1"))
    assert not is_prediction_file(str(GOLDEN / "release-1" / "candidates" / "0"))
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (tmp_path / name).write_text("{}")
    assert not is_prediction_file(str(tmp_path))


@pytest.fixture
def samples(plain, tmp_path) -> Path:
    """Samples of Every Eval Ever, of the plain predictions."""
    told = ["--to", "every-eval-ever", "-o", str(tmp_path), "--organization", "Us", "--model", "us/lean"]
    assert jettison.main(["export", str(plain), *told], standalone_mode=False) == 0
    (path,) = tmp_path.glob("data/plain/us/lean/*_samples.jsonl")
    return path


def changed(samples: Path, **fields: object) -> Path:
    lines = [json.loads(line) | fields for line in samples.read_text().splitlines()]
    return write_jsonl(samples.with_name("changed_samples.jsonl"), lines)


def test_samples_of_every_eval_ever_compare_like_what_they_were_made_of(plain, samples):
    records = read_predictions(samples).records
    told = read_predictions(plain).records
    assert [(r.example_id, r.output, r.expected, r.scores, r.input) for r in records] == [
        (r.example_id, r.output, r.expected, r.scores, r.input) for r in told
    ]
    found = compare_files(plain, samples, gate=GATE)
    assert found.results[0].flips is not None
    assert (found.results[0].flips.harmful, found.results[0].flips.both_right) == (0, 192)


def test_samples_that_cannot_be_paired_are_refused(samples):
    with pytest.raises(InvalidInput, match="same prompts, got 200 that differ"):
        compare_files(samples, changed(samples, sample_hash="0" * 64), gate=GATE)
    with pytest.raises(InvalidInput, match="must be of single turns to be paired, got 'agentic'"):
        read_predictions(changed(samples, interaction_type="agentic"))
    with pytest.raises(InvalidInput, match="must have a `sample_id` and a number"):
        read_predictions(changed(samples, evaluation={"score": None}))
    with pytest.raises(InvalidInput, match=r"`evaluation` of a sample must be an object, got 3"):
        read_predictions(changed(samples, evaluation=3))
    with pytest.raises(InvalidInput, match="one score a metric, got a second 'label' of 'q0'"):
        read_predictions(changed(samples, sample_id="q0"))
    mixed = write_jsonl(
        samples.with_name("mixed.jsonl"),
        [
            json.loads(line) | {"model_id": f"us/{i % 2}"}
            for i, line in enumerate(samples.read_text().splitlines())
        ],
    )
    with pytest.raises(InvalidInput, match=r"samples of one model, got \['us/0', 'us/1'\]"):
        read_predictions(mixed)


def test_a_prompt_hash_of_a_plain_file_must_agree(tmp_path):
    sides = [
        write_jsonl(tmp_path / f"{name}.jsonl", [{**row, "prompt_hash": name} for row in rows(6)])
        for name in ("one", "other")
    ]
    with pytest.raises(InvalidInput, match="same prompts, got 200 that differ at q0"):
        compare_files(*sides, gate=GATE)
    assert compare_files(sides[0], sides[0], gate=GATE).results[0].n == 200


def test_scores_of_whole_tasks_are_refused_with_the_reason(tmp_path, samples):
    (results,) = (GOLDEN / "lm-eval" / "lean").glob("results_*.json")
    shutil.copy(results, tmp_path / "results.json")
    with pytest.raises(
        InvalidInput, match=r"results of a run of lm-eval at .*cannot be paired.*--log_samples"
    ):
        read_predictions(tmp_path / "results.json")
    (aggregate,) = (one for one in samples.parent.glob("*.json"))
    with pytest.raises(InvalidInput, match=r"an aggregate of Every Eval Ever.*_samples\.jsonl beside it"):
        read_predictions(aggregate)
    (tmp_path / "score.json").write_text(json.dumps({"dataset": {"id": "a/b"}, "value": 0.9}))
    with pytest.raises(InvalidInput, match=r"a published score.*single examples"):
        read_predictions(tmp_path / "score.json")
