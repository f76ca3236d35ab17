"""Whatever form the team's model has, it becomes one candidate, or one clear error."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import transformers

from jettison.backends.open import open_model
from jettison.candidate import Candidate, verify_candidate
from jettison.compress import checkpoint_facts as facts
from jettison.compress.checkpoint_facts import make_tokenizer
from jettison.compress.frozen_head import _fit
from jettison.compress.incumbent import _read_otherwise_before, take_in
from jettison.compress.label_names import check_order, match_labels
from jettison.compress.quantize import token_feeds
from jettison.compress.training import tokenized
from jettison.errors import (
    BrokenArtifact,
    CannotWrite,
    InvalidInput,
    JettisonError,
    NotEnoughData,
    UnsafeArtifact,
)
from jettison.files import said_when_unwritable
from tiny import make_tiny_bert, make_tiny_development
from torch_steps import accuracy, make, trained

DEVELOPMENT = make_tiny_development()


def taken(source: object, folder: Path, **changes: object) -> Candidate:
    given = {
        "labels": DEVELOPMENT.labels,
        "out_of_scope": DEVELOPMENT.out_of_scope,
        "cache": folder / "cache",
        "seed": 0,
        "data": DEVELOPMENT,
        **changes,
    }
    return take_in(str(source), **given)  # type: ignore[arg-type]


def checkpoint(folder: Path) -> Path:
    """A copy of the trained tiny BERT as a team has it."""
    shutil.copytree(trained()[0].path, folder, ignore=shutil.ignore_patterns("candidate.json"))
    return folder


def edit_config(folder: Path, **changes: object) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


def as_encoder(folder: Path) -> Path:
    """The trained tiny BERT without its head, as an embedding model."""
    from transformers import BertModel

    checkpoint(folder)
    BertModel.from_pretrained(folder, add_pooling_layer=False).save_pretrained(folder)
    return folder


def as_onnx(folder: Path) -> Path:
    """The trained tiny BERT as `model.onnx` with tokenizer and configuration beside it."""
    exported = make(folder.parent / "export", trained()[0], {"step": "export", "target": "onnx"})
    folder.mkdir()
    shutil.copy(exported.path / "model.onnx", folder)
    for name in ("tokenizer.json", "config.json"):
        shutil.copy(trained()[0].path / name, folder)
    return folder


def test_a_checkpoint_answers_as_before_and_is_taken_in_once(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "source")
    (source / "README.md").write_text("---\nlicense: apache-2.0\ntags: [x]\n---\n# Model\n")
    candidate = taken(source, tmp_path)
    verify_candidate(candidate)
    texts = [e.input for e in DEVELOPMENT.dev]
    ours = np.stack([o.logits for o in open_model(candidate).predict(texts)])
    before = np.stack([o.logits for o in open_model(trained()[0]).predict(texts)])
    np.testing.assert_array_equal(ours, before)
    assert candidate.name == "source"
    assert candidate.licence == "apache-2.0"
    assert candidate.settings == {"max_tokens": 64, "pad_id": 0, "n_layers": 4}
    assert [applied.step for applied in candidate.lineage] == ["take_in"]
    made_at = (candidate.path / "candidate.json").stat().st_mtime_ns
    assert taken(source, tmp_path).digest == candidate.digest
    assert (candidate.path / "candidate.json").stat().st_mtime_ns == made_at


def test_labels_match_in_spite_of_case_and_separators(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "source")
    spelled = {str(i): label.upper() + "_" for i, label in enumerate(DEVELOPMENT.labels)}
    candidate = taken(edit_config(source, id2label=spelled), tmp_path)
    assert candidate.labels == DEVELOPMENT.labels
    assert accuracy(candidate) > 0.8


def test_labels_of_the_model_keep_the_order_of_its_logits(tmp_path: Path) -> None:
    turned = tuple(reversed(DEVELOPMENT.labels))
    candidate = taken(checkpoint(tmp_path / "source"), tmp_path, labels=turned)
    assert candidate.labels == DEVELOPMENT.labels


def test_numbered_labels_take_the_tasks_order_when_it_is_right(tmp_path: Path) -> None:
    numbered = {str(i): f"LABEL_{i}" for i in range(5)}
    source = edit_config(checkpoint(tmp_path / "source"), id2label=numbered)
    assert taken(source, tmp_path).labels == DEVELOPMENT.labels
    turned = tuple(reversed(DEVELOPMENT.labels))
    with pytest.raises(InvalidInput, match=r"numbered labels of source must be in the task's order"):
        taken(source, tmp_path, labels=turned)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_other_labels_are_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"unknown to the task: \['weather'\], .* model: \['sports'\]"):
        taken(
            checkpoint(tmp_path / "source"),
            tmp_path,
            labels=["balance", "sports", "alarm", "music", "oos"],
        )


def test_where_the_tokenizer_cuts_on_the_left_the_end_of_long_texts_is_read(
    tmp_path: Path,
) -> None:
    """The answer to a long text is that to its last 62 words, in torch and ONNX, alone and in a batch."""
    source = checkpoint(tmp_path / "model")
    plain = taken(source, tmp_path)
    path = source / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "truncation_side": "left"}))
    left = taken(source, tmp_path)
    assert left.settings == {**plain.settings, "truncation_side": "left"}
    exported = make(tmp_path, left, {"step": "export"})
    end = " ".join(["album", *["weather"] * 61])
    long = " ".join(["balance"] * 70) + " " + end
    wanted, of_start = (open_model(c).logits([t]) for c, t in ((plain, end), (plain, long)))
    assert not np.allclose(wanted, of_start, atol=0.1)
    for candidate in (left, exported):
        model = open_model(candidate)
        for texts in ([long], ["hi", long]):
            np.testing.assert_allclose(model.logits(texts)[-1:], wanted, atol=1e-4)
    reference = transformers.AutoTokenizer.from_pretrained(source)
    ids = reference(long, truncation=True, max_length=64)["input_ids"]
    assert tokenized(left, [long]) == [ids]
    assert tokenized(plain, [long]) != [ids]
    (feed,) = token_feeds(exported, [long])
    assert feed["input_ids"][0].tolist() == ids


def test_one_logit_is_told_as_a_head_that_is_not_supported(tmp_path: Path) -> None:
    source = edit_config(checkpoint(tmp_path / "model"), id2label={"0": "LABEL_0"})
    n = len(DEVELOPMENT.labels)
    with pytest.raises(
        InvalidInput, match=rf"per label \({n}\), got one logit: a regression or sigmoid head is not"
    ):
        taken(source, tmp_path)


def test_a_multi_label_model_carries_a_warning_that_others_do_not(tmp_path: Path) -> None:
    plain = taken(checkpoint(tmp_path / "plain"), tmp_path)
    assert plain.lineage[0].notes == {}
    source = edit_config(checkpoint(tmp_path / "multi"), problem_type="multi_label_classification")
    (step,) = taken(source, tmp_path).lineage
    assert "is asked for its likeliest label alone" in step.notes["warning"]
    assert step.data_digest is None


def test_a_model_may_lack_the_out_of_scope_label(tmp_path: Path) -> None:
    source = make_tiny_bert(tmp_path / "four", DEVELOPMENT.labels[:4])
    candidate = taken(source, tmp_path)
    assert candidate.labels == DEVELOPMENT.labels[:4]
    assert candidate.out_of_scope == "oos"
    assert open_model(candidate).predict(["a"])[0].label in candidate.labels


def test_an_encoder_without_a_head_gets_one_fitted_on_train(tmp_path: Path) -> None:
    source = as_encoder(tmp_path / "encoder")
    candidate = taken(source, tmp_path)
    assert candidate.settings["pooling"] == "mean"
    assert accuracy(candidate) > 0.85
    assert candidate.lineage[0].notes["dev_fit_accuracy"] > 0.85
    assert taken(source, tmp_path / "again").digest == candidate.digest


def test_pooling_of_an_embedder_is_read_from_its_own_files(tmp_path: Path) -> None:
    source = as_encoder(tmp_path / "encoder")
    for part in ("1_Pooling", "2_Normalize"):
        (source / part).mkdir()
    (source / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    candidate = taken(source, tmp_path)
    assert (candidate.settings["pooling"], candidate.settings["normalize"]) == ("cls", True)
    (source / "1_Pooling" / "config.json").write_text('{"pooling_mode_max_tokens": true}')
    with pytest.raises(InvalidInput, match=r"pooling of .* must be one of \['mean', 'cls'\]"):
        taken(source, tmp_path)


def test_a_head_needs_examples_of_every_label(tmp_path: Path) -> None:
    data = replace(DEVELOPMENT, train=tuple(e for e in DEVELOPMENT.train if e.expected != "music"))
    with pytest.raises(NotEnoughData, match=r"train examples of every label, got none of 'music'"):
        taken(as_encoder(tmp_path / "encoder"), tmp_path, data=data)


@pytest.mark.parametrize(
    "step",
    [
        {"step": "prune", "depth": 2, "width": 0.5},
        {"step": "finetune", "epochs": 1},
        {"step": "finetune", "epochs": 1, "mode": "lora"},
        {"step": "distill", "epochs": 1},
        {"step": "trim_vocabulary"},
    ],
    ids=lambda step: "-".join(str(value) for value in step.values()),
)
def test_every_step_works_on_an_encoder_with_a_fitted_head(tmp_path: Path, step: dict[str, object]) -> None:
    candidate = taken(as_encoder(tmp_path / "encoder"), tmp_path)
    made = make(tmp_path, candidate, step)
    assert made.settings["pooling"] == "mean"
    assert accuracy(made) > 0.5


def test_an_onnx_file_and_its_folder_are_the_same_incumbent(tmp_path: Path) -> None:
    folder = as_onnx(tmp_path / "graph")
    from_folder = taken(folder, tmp_path)
    from_file = taken(folder / "model.onnx", tmp_path)
    assert from_folder.backend == "onnx"
    assert from_folder.digest == from_file.digest
    assert accuracy(from_folder) == pytest.approx(accuracy(trained()[0]))


@pytest.mark.parametrize("axis", [0, 1])
def test_a_graph_of_one_batch_size_or_length_is_refused(tmp_path: Path, axis: int) -> None:
    path = as_onnx(tmp_path / "source") / "model.onnx"
    graph = onnx.load(path)
    for given in graph.graph.input:
        given.type.tensor_type.shape.dim[axis].dim_value = 8
    onnx.save(graph, path)
    with pytest.raises(InvalidInput, match=r"must have free batch and token axes, got .*with dynamic axes"):
        taken(path, tmp_path)


def test_a_graph_that_cannot_answer_is_one_error_that_names_it(tmp_path: Path) -> None:
    """Its inputs are said to be free, and a reshape inside them is not."""
    path = as_onnx(tmp_path / "source") / "model.onnx"
    graph = onnx.load(path)
    graph.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 32]), "fixed"))
    graph.graph.node.insert(0, onnx.helper.make_node("Reshape", ["input_ids", "fixed"], ["of_one_length"]))
    for node in list(graph.graph.node)[1:]:
        node.input[:] = ["of_one_length" if name == "input_ids" else name for name in node.input]
    onnx.save(graph, path)
    with pytest.raises(BrokenArtifact, match=r"source must answer a batch of short texts, got .*Reshape"):
        taken(path, tmp_path)
    assert not list((tmp_path / "cache").glob("*"))


def test_a_candidate_is_taken_as_it_is_unless_altered(tmp_path: Path) -> None:
    candidate = taken(checkpoint(tmp_path / "source"), tmp_path)
    assert taken(candidate.path, tmp_path) == candidate
    config = candidate.path / "config.json"
    text = config.read_text()
    config.unlink()
    config.write_text(text + "\n")
    with pytest.raises(BrokenArtifact, match=r"config.json must have SHA-256"):
        taken(candidate.path, tmp_path)


def test_a_candidate_kept_with_too_long_a_limit_is_not_found_again(tmp_path: Path) -> None:
    """CamemBERT's 64 positions hold 63 tokens where padding is 0, as earlier versions did not know."""
    source = edit_config(checkpoint(tmp_path / "model"), model_type="camembert")
    of_bert, of_camembert = {"model_type": "bert"}, facts.read_config(source)
    assert _read_otherwise_before(source, of_bert) == []
    assert _read_otherwise_before(source, of_camembert) == [{"max_tokens": 63}]


def test_a_damaged_cache_is_made_again(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "source")
    candidate = taken(source, tmp_path)
    (candidate.path / "tokenizer.json").unlink()
    again = taken(source, tmp_path)
    verify_candidate(again)
    assert again.digest == candidate.digest


def test_pickled_weights_are_refused_with_the_way_out(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "source")
    (source / "model.safetensors").rename(source / "pytorch_model.bin")
    with pytest.raises(UnsafeArtifact, match=r"got .*pytorch_model.bin: opening it could run.*save_pre"):
        taken(source, tmp_path)
    with pytest.raises(UnsafeArtifact, match=r"got .*pytorch_model.bin: opening it could run code"):
        taken(source / "pytorch_model.bin", tmp_path)


def test_pickled_weights_beside_safe_ones_stay_behind(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "source")
    (source / "pytorch_model.bin").write_bytes(b"pickle")
    candidate = taken(source, tmp_path)
    assert "pytorch_model.bin" not in {entry.path for entry in candidate.files}


def broken_weights(source: Path) -> None:
    (source / "model.safetensors").write_bytes(b"\x00" * 100)


def broken_config(source: Path) -> None:
    (source / "config.json").write_text("{")


def broken_tokenizer(source: Path) -> None:
    (source / "tokenizer.json").write_text("{}")


def unknown_family(source: Path) -> None:
    edit_config(source, model_type="no-such-family")


def larger_tokenizer(source: Path) -> None:
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["zzz"] = 100_000
    (source / "tokenizer.json").write_text(json.dumps(tokenizer))


DAMAGES = [broken_weights, broken_config, broken_tokenizer, unknown_family, larger_tokenizer]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_broken_file_is_one_error_and_leaves_nothing(tmp_path: Path, damage: object) -> None:
    source = checkpoint(tmp_path / "source")
    damage(source)  # type: ignore[operator]
    with pytest.raises(BrokenArtifact, match=r" must be .*"):
        taken(source, tmp_path)
    assert not list((tmp_path / "cache").glob("*"))


def with_slow_tokenizer(folder: Path) -> Path:
    checkpoint(folder)
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    (folder / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.__getitem__)))
    (folder / "tokenizer.json").unlink()
    return folder


def test_a_slow_tokenizer_is_made_fast_or_the_reason_is_said(tmp_path: Path) -> None:
    source = with_slow_tokenizer(tmp_path / "source")
    assert accuracy(taken(source, tmp_path)) == accuracy(trained()[0])
    (source / "vocab.txt").write_bytes(b"\xff")
    with pytest.raises(BrokenArtifact, match=r"none could be made \(.*not contain valid UTF-8\)"):
        taken(source, tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_disk_is_not_told_as_a_tokenizer_that_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_and_full(*given: object, **more: object) -> object:
        (tmp_path / "tokenizer.json").symlink_to("/dev/full")
        return read(*given, **more)

    read = transformers.AutoTokenizer.from_pretrained
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", read_and_full)
    source = with_slow_tokenizer(tmp_path / "source")
    with pytest.raises(CannotWrite, match="the disk is full"), said_when_unwritable(tmp_path):
        make_tokenizer(source, tmp_path)


def test_a_place_with_nothing_or_no_model_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"must be a folder, an .onnx file or a hub id org/name, got '"):
        taken(tmp_path / "no", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInput, match=r"must be a folder with config.json and \*.safetensors, .* got"):
        taken(tmp_path / "empty", tmp_path)


def test_offline_a_hub_id_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(InvalidInput, match=r"got 'nobody/nothing-of-this-name': .*HF_HUB_OFFLINE is set"):
        taken("nobody/nothing-of-this-name", tmp_path)


def test_every_refusal_is_our_own_error(tmp_path: Path) -> None:
    for source in ("", ".", "/dev/null", "a/b/c", "nö/nö"):
        with pytest.raises(JettisonError, match=r"must be"):
            taken(source, tmp_path)


def test_matching_is_by_name_not_by_place() -> None:
    here = Path("m")
    assert match_labels({"0": "Book Flight", "1": "oos"}, ["oos", "book_flight"], "oos", where=here) == [
        "book_flight",
        "oos",
    ]
    assert match_labels(None, ["x", "y"], None, where=here) == ["x", "y"]
    with pytest.raises(BrokenArtifact, match=r"id2label of m must number its labels from 0, got no '0'"):
        match_labels({"1": "a", "2": "b"}, ["a", "b"], None, where=here)
    with pytest.raises(InvalidInput, match=r"must have 3 labels as the task has, got 2 without names"):
        match_labels(["LABEL_0", "LABEL_1"], ["a", "b", "c"], None, where=here)


def test_an_order_is_wrong_when_another_would_be_twice_as_right() -> None:
    expected = ["a", "b", "c"] * 10
    check_order(expected, expected, where="m")
    # Six of ten right in the given order; no other order does better than that by half.
    check_order(["a", "b", "a"] * 10, expected, where="m")
    with pytest.raises(InvalidInput, match=r"got 0 of 30 train examples right \(30 in another order\)"):
        check_order(["b", "c", "a"] * 10, expected, where="m")


def test_a_dimension_that_never_varies_gets_no_huge_weight_in_a_fitted_head():
    # As in all-MiniLM-L6-v2: one constant dimension. A weight of 1e5 on it drowns the others in int8.
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(400, 8, generator=generator)
    vectors[:, 3] = 0.25
    vectors[:, 3] += 1e-7 * torch.randn(400, generator=generator)
    targets = (vectors[:, 0] > 0).long().numpy()
    head, notes = _fit(vectors, targets, vectors, targets, 2)
    assert notes["dev_fit_accuracy"] > 0.9
    assert float(head["weight"][:, 3].abs().max()) < float(head["weight"][:, 0].abs().max())
