"""The static student learns from the incumbent, the same way each time, within its deadline."""

import time
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from jettison.backends.open import open_model
from jettison.backends.static import StaticClassifier
from jettison.candidate import Candidate, verify_candidate, write_candidate
from jettison.compress.deadline import Deadline
from jettison.compress.static import DistillStatic
from jettison.compress.step import Step, StepContext, apply_step, step_from
from jettison.compress.token_table import token_table
from jettison.errors import InvalidInput, NotEnoughData, StepFailed
from tiny import make_tiny_bert, make_tiny_development, tiny_candidate

DEVELOPMENT = make_tiny_development()
SMALL = DistillStatic(d=16, channels=16, hidden=16, epochs=12, augment=100, batch_size=16)


@pytest.fixture(scope="module")
def incumbent(tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    """A teacher that is always right, with a tokenizer and token vectors beside it."""
    folder = make_tiny_bert(tmp_path_factory.mktemp("incumbent"), DEVELOPMENT.labels)
    return tiny_candidate(folder, DEVELOPMENT)


def context_of(incumbent: Candidate, folder: Path, **changes: object) -> StepContext:
    context = StepContext(data=DEVELOPMENT, incumbent=incumbent, folder=folder, workspace=folder / "w")
    return replace(context, **changes)


def knows_the_answers(incumbent: Candidate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the teacher answer train, dev and unlabelled texts by their words, a cheap perfect teacher."""
    from tiny import INTENTS

    def logits(context: StepContext, texts: list[str], until: Deadline | None = None) -> np.ndarray:
        found = np.zeros((len(texts), len(incumbent.labels)), np.float32)
        for row, text in enumerate(texts):
            hits = [
                len(set(text.split()) & set(INTENTS.get(name, "").split())) for name in incumbent.labels
            ]
            found[row] = 6.0 * np.array(hits)
            found[row, incumbent.labels.index("oos")] = 4.0
        return found

    monkeypatch.setattr("jettison.compress.transfer.teacher_logits_in_time", logits)
    monkeypatch.setattr("jettison.compress.transfer.teacher_logits_until", logits)
    monkeypatch.setattr("jettison.compress.student_check.teacher_logits", logits)


def test_a_student_learns_what_its_teacher_knows(
    incumbent: Candidate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    knows_the_answers(incumbent, monkeypatch)
    heard: list[str] = []
    context = context_of(incumbent, tmp_path, progress=lambda said, share: heard.append(said))
    made = apply_step(SMALL, incumbent, context, cache=tmp_path / "cache")

    verify_candidate(made)
    assert made.backend == "static"
    assert made.labels == incumbent.labels
    assert made.licence == "Apache-2.0"
    right = [
        output.label == example.expected
        for output, example in zip(
            open_model(made).predict([e.input for e in DEVELOPMENT.dev]), DEVELOPMENT.dev, strict=True
        )
    ]
    assert np.mean(right) > 0.85
    notes = made.lineage[-1].notes
    assert notes["token_table"].startswith("bert.embeddings.word_embeddings.weight")
    assert notes["dev_fit_accuracy"] > 0.85
    assert notes["dev_fit_teacher_accuracy"] > 0.95
    assert 0.85 < notes["dev_fit_agreement"] <= 1
    assert notes["n_train"] == 160
    assert notes["n_unlabelled"] == 120
    assert made.lineage[-1].settings["augment"] == notes["n_augmented"] == 100
    assert notes["bytes"] == made.artifact_bytes
    assert sum(said.startswith(f"epoch {notes['epochs']} of 12") for said in heard) == 1


def test_the_same_seed_gives_the_same_weights(incumbent: Candidate, tmp_path: Path) -> None:
    quick = msgspec.structs.replace(SMALL, epochs=2)
    digests = [
        apply_step(
            quick, incumbent, context_of(incumbent, tmp_path, seed=seed), cache=tmp_path / str(run)
        ).digest
        for run, seed in enumerate([0, 0, 1])
    ]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(("window", "hidden", "skip"), [(3, 8, False), (2, 8, True), (1, 0, False)])
def test_the_backend_answers_as_the_network_that_was_trained(
    incumbent: Candidate, tmp_path: Path, window: int, hidden: int, skip: bool
) -> None:
    import torch
    from safetensors.numpy import save_file
    from tokenizers import Tokenizer

    from jettison.compress.student import StaticStudent

    tokenizer = Tokenizer.from_file(str(incumbent.path / "tokenizer.json"))
    n_tokens, seen = tokenizer.get_vocab_size(), np.arange(5, 60)
    torch.manual_seed(0)
    table = np.random.default_rng(0).normal(size=(n_tokens, 12)).astype(np.float32)
    student = StaticStudent(
        table, seen, n_tokens=n_tokens, n_labels=5, d=8, channels=6, window=window,
        hidden=hidden, skip=skip, dropout=0.5, token_dropout=0.5,
    ).eval()  # fmt: skip
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
        student.delta.weight[0] = 0.0
    save_file(student.arrays(), tmp_path / "model.safetensors")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    model = open_model(write_candidate(tmp_path, name="s", backend="static", labels=tuple("abcde")))
    texts = [example.input for example in DEVELOPMENT.dev[:40]]
    encoded = [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=False)]
    lengths = np.array([len(ids) for ids in encoded])
    ids = np.full((len(encoded), lengths.max()), n_tokens)
    for row, own in enumerate(encoded):
        ids[row, : len(own)] = own
    with torch.inference_mode():
        wanted = student(torch.from_numpy(ids), torch.from_numpy(lengths)).numpy()
    assert isinstance(model, StaticClassifier)
    np.testing.assert_allclose(model.logits(texts), wanted, atol=2e-5)


def test_an_incumbent_without_tokenizer_or_table_gets_learned_word_pieces(tmp_path: Path) -> None:
    (tmp_path / "fake").mkdir()
    fake = write_candidate(
        tmp_path / "fake", name="fake", backend="fake", labels=DEVELOPMENT.labels, out_of_scope="oos"
    )
    made = apply_step(SMALL, fake, context_of(fake, tmp_path), cache=tmp_path / "cache")
    assert made.lineage[-1].notes["token_table"] == "word pieces learned on train"
    assert len(open_model(made).predict(["zzz", "", "the weather"])) == 3


def test_two_labels_and_no_dev_examples_are_enough(tmp_path: Path) -> None:
    data = make_tiny_development(n_labels=2, out_of_scope=False, dev=0, unlabelled=0)
    (tmp_path / "fake").mkdir()
    fake = write_candidate(tmp_path / "fake", name="fake", backend="fake", labels=data.labels)
    context = context_of(fake, tmp_path, data=data)
    made = apply_step(msgspec.structs.replace(SMALL, epochs=2), fake, context, cache=tmp_path / "cache")
    notes = made.lineage[-1].notes
    assert notes["dev_fit_accuracy"] is None
    assert notes["best_epoch"] == 2


def test_the_linear_student_beside_it_takes_its_share_of_the_logits(
    incumbent: Candidate, tmp_path: Path
) -> None:
    from jettison.compress.linear import DistillLinear

    texts = [example.input for example in DEVELOPMENT.dev]
    context = context_of(incumbent, tmp_path)
    exact = msgspec.structs.replace(SMALL, epochs=2, augment=0, storage="float32", gold_weight=0.3)
    parts = [
        msgspec.structs.replace(exact, ngram_share=0.0),
        DistillLinear(storage="float32", gold_weight=0.3),
        msgspec.structs.replace(exact, ngram_share=0.25, skip=True),
        msgspec.structs.replace(exact, ngram_share=0.0, skip=True),
        msgspec.structs.replace(exact, ngram_share=0.25),
    ]
    alone, linear, both_skip, alone_skip, both = (
        open_model(apply_step(step, incumbent, context, cache=tmp_path / "cache")).logits(texts)
        for step in parts
    )
    np.testing.assert_allclose(both, 0.75 * alone + 0.25 * linear, atol=1e-4)
    np.testing.assert_allclose(both_skip, 0.75 * alone_skip + 0.25 * linear, atol=1e-4)


def test_int8_token_vectors_shrink_the_file_and_hardly_move_the_logits(
    incumbent: Candidate, tmp_path: Path
) -> None:
    texts = [example.input for example in DEVELOPMENT.dev]
    logits, sizes = {}, {}
    for storage in ("float32", "float16", "int8"):
        step = msgspec.structs.replace(SMALL, epochs=2, storage=storage)
        made = apply_step(step, incumbent, context_of(incumbent, tmp_path), cache=tmp_path / "cache")
        logits[storage] = open_model(made).logits(texts)
        sizes[storage] = made.artifact_bytes
    assert sizes["int8"] < sizes["float16"] < sizes["float32"]
    np.testing.assert_allclose(logits["float16"], logits["float32"], atol=0.01)
    np.testing.assert_allclose(logits["int8"], logits["float32"], atol=0.1)


def test_a_deadline_ends_training_with_what_there_is(incumbent: Candidate, tmp_path: Path) -> None:
    long = msgspec.structs.replace(SMALL, epochs=5000, patience=5000)
    brief = msgspec.structs.replace(SMALL, epochs=1)  # the teacher's answers are kept
    apply_step(brief, incumbent, context_of(incumbent, tmp_path), cache=tmp_path / "cache")
    context = context_of(incumbent, tmp_path, deadline=Deadline(time.monotonic() + 1.5))
    started_s = time.process_time()  # a busy neighbour stretches the clock on the wall
    made = apply_step(long, incumbent, context, cache=tmp_path / "cache")
    assert time.process_time() - started_s < 10
    assert made.lineage[-1].notes["stopped_by"] == "deadline"
    assert made.lineage[-1].notes["dev_fit_accuracy"] is not None


def test_without_any_time_no_student_is_made(incumbent: Candidate, tmp_path: Path) -> None:
    context = context_of(incumbent, tmp_path, deadline=Deadline(time.monotonic() - 1))
    with pytest.raises(StepFailed, match=r"must begin before the deadline, got no time left"):
        apply_step(SMALL, incumbent, context, cache=tmp_path / "cache")


def test_a_diverging_student_is_no_candidate(incumbent: Candidate, tmp_path: Path) -> None:
    wild = msgspec.structs.replace(SMALL, learning_rate=1e30)
    with pytest.raises(StepFailed, match=r"loss must stay finite, got .* in epoch"):
        apply_step(wild, incumbent, context_of(incumbent, tmp_path), cache=tmp_path / "cache")
    assert not any((tmp_path / "cache").glob("*/candidate.json"))


def test_no_text_to_learn_from_is_said(incumbent: Candidate, tmp_path: Path) -> None:
    data = replace(DEVELOPMENT, train=(), unlabelled=())
    with pytest.raises(NotEnoughData, match="needs train or unlabelled texts to learn from, got none"):
        apply_step(SMALL, incumbent, context_of(incumbent, tmp_path, data=data), cache=tmp_path / "cache")


def test_the_table_of_an_onnx_graph_is_found_and_dequantized(incumbent: Candidate, tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    size = len(token_table(incumbent, []).vectors)
    codes = np.random.default_rng(0).integers(0, 255, (size, 8), np.uint8)
    constants = [
        numpy_helper.from_array(codes, "embeddings.word_embeddings.weight_quantized"),
        numpy_helper.from_array(np.float32(0.5), "embeddings.word_embeddings.weight_scale"),
        numpy_helper.from_array(np.uint8(7), "embeddings.word_embeddings.weight_zero_point"),
    ]
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, [1])
    out = helper.make_tensor_value_info("out", TensorProto.UINT8, [1, 8])
    node = helper.make_node("Gather", ["embeddings.word_embeddings.weight_quantized", "ids"], ["out"])
    graph = helper.make_graph([node], "g", [ids], [out], initializer=constants)
    onnx.save(helper.make_model(graph), tmp_path / "model.onnx")
    (tmp_path / "tokenizer.json").write_bytes((incumbent.path / "tokenizer.json").read_bytes())
    candidate = write_candidate(tmp_path, name="o", backend="onnx", labels=("a", "b"))
    found = token_table(candidate, [])
    assert found.source == "embeddings.word_embeddings.weight of o"
    np.testing.assert_allclose(found.vectors, (codes.astype(np.float32) - 7) * 0.5)


def test_settings_outside_their_range_are_refused() -> None:
    assert isinstance(step_from({"step": "distill_static", "hidden": 0}), Step)
    with pytest.raises(InvalidInput, match="window of distill_static must be at least 1, got 0"):
        DistillStatic(window=0)
    with pytest.raises(InvalidInput, match=r"dropout of distill_static must be in \[0, 1\), got 1.0"):
        DistillStatic(dropout=1.0)
    with pytest.raises(InvalidInput, match="learning_rate of distill_static must be above 0, got nan"):
        DistillStatic(learning_rate=float("nan"))
    with pytest.raises(InvalidInput, match="storage"):
        step_from({"step": "distill_static", "storage": "int3"})
