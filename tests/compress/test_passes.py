"""A batch that goes through in parts gives the gradient of the whole one, within the memory allowed."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, PretrainedConfig

from jettison.backends.hf import load_torch
from jettison.backends.text import length_sorted_batches
from jettison.compress.answer_rows import PromptTokens, known_pairs
from jettison.compress.answer_training import Beside, answer_loss
from jettison.compress.causal import load_causal
from jettison.compress.distill import Distill, _Loss
from jettison.compress.finetune import label_loss
from jettison.compress.importance import neuron_importance
from jettison.compress.passes import MOST_BYTES, Passes, kept_bytes, leave_out_attention_dropout
from jettison.compress.teacher_tokens import TeacherTokens, taught_rows, teacher_loss
from jettison.compress.training import FitSettings, Rows, fit, pad_rows
from language_steps import DATA, context_in, language_candidate
from torch_steps import trained

BERT = {
    "hidden_size": 384,
    "intermediate_size": 1536,
    "num_attention_heads": 12,
    "num_hidden_layers": 6,
    "num_labels": 2,
    "vocab_size": 30522,
}


def rows_of(lengths: list[int], n_labels: int = 4, seed: int = 0) -> Rows:
    rng = np.random.default_rng(seed)
    targets = rng.integers(-1, n_labels, len(lengths))
    return Rows(
        ids=[rng.integers(5, 20, n).tolist() for n in lengths],
        targets=targets.astype(np.int64),
        teacher=rng.normal(size=(len(lengths), n_labels)).astype(np.float32),
    )


def gradients(module: Any, passes: Passes, batch: Any, loss: Any, n_scored: int = 1) -> tuple[float, Any]:
    module.zero_grad(set_to_none=True)
    value = passes.backward(batch, lambda part: loss(part, batch), n_scored)
    return value, {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}


def assert_same(one: tuple[float, Any], other: tuple[float, Any]) -> None:
    assert one[0] == pytest.approx(other[0], rel=1e-5)
    assert one[1].keys() == other[1].keys()
    for name, gradient in one[1].items():
        torch.testing.assert_close(gradient, other[1][name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("of", ["labels", "teacher"])
def test_parts_give_the_gradient_of_the_batch(of: str) -> None:
    incumbent, _ = trained()
    module = load_torch(incumbent).float()
    batch = rows_of([3, 4, 4, 9, 12, 12, 15], len(incumbent.labels))
    loss = label_loss if of == "labels" else _Loss(Distill(), None)

    def share(part: Rows, whole: Rows) -> Any:
        return loss(module, *pad_rows(part.ids, 0), part, whole)

    whole, one_by_one = Passes(module), Passes(module, most_bytes=1)
    assert len(list(whole.parts(batch))) == 1
    assert [len(part) for part in one_by_one.parts(batch)] == [1] * 7
    assert_same(gradients(module, one_by_one, batch, share), gradients(module, whole, batch, share))


def test_parts_of_language_models_give_the_gradient_of_the_batch(tmp_path: Path) -> None:
    candidate = language_candidate(tmp_path / "whole")
    model = load_causal(candidate)
    tokens = PromptTokens(candidate, 256)
    answers = tokens.rows(known_pairs(DATA.train, "classify")[:6])
    asked = TeacherTokens(temperature=2.0, top_k=5, prompt_tokens=4, max_tokens=256)
    taught = taught_rows(
        candidate, context_in(tmp_path, candidate), [e.asked for e in DATA.train[:6]], asked
    )
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(3.0)  # unlike its teacher
    beside = Beside(answers, 0.5, 4, seed=1)
    losses = [
        (answers, lambda part, whole: answer_loss(model, part, tokens.pad_id, whole)),
        (
            taught,
            lambda part, whole: teacher_loss(model, part, tokens.pad_id, whole, temperature=2.0),
        ),
        (beside.draw(), lambda part, whole: beside.loss(model, part, tokens.pad_id, whole)),
    ]
    for batch, loss in losses:
        whole, cut = Passes(model), Passes(model, most_bytes=1)
        assert len(list(cut.parts(batch, batch.n_scored))) == len(batch)
        found = gradients(model, cut, batch, loss, batch.n_scored)
        assert_same(found, gradients(model, whole, batch, loss, batch.n_scored))


def test_what_is_beside_is_drawn_by_its_seed(tmp_path: Path) -> None:
    candidate = language_candidate(tmp_path / "whole")
    rows = PromptTokens(candidate, 256).rows(known_pairs(DATA.train, "classify"))
    one, same, other = (Beside(rows, 1.0, 8, seed=seed) for seed in (0, 0, 1))
    drawn = [one.draw().ids for _ in range(3)]
    assert drawn == [same.draw().ids for _ in range(3)]
    assert drawn != [other.draw().ids for _ in range(3)]


def test_a_part_has_the_most_rows_that_fit_and_at_least_one() -> None:
    config = BertConfig(**BERT)
    module = SimpleNamespace(config=config, modules=list, parameters=lambda: iter([torch.zeros(1)]))
    batch = rows_of([200] * 40 + [450] * 24)
    passes = Passes(module)
    parts = list(passes.parts(batch))
    assert sum(len(part) for part in parts) == 64
    assert [ids for part in parts for ids in part.ids] == list(batch.ids)
    for part, after in zip(parts, [*parts[1:], None], strict=True):
        longest = max(map(len, part.ids))
        assert kept_bytes(config, len(part), longest, keeps_pairs=False) <= MOST_BYTES
        if after is not None:
            longest = max(longest, len(after.ids[0]))
            assert kept_bytes(config, len(part) + 1, longest, keeps_pairs=False) > MOST_BYTES


def test_a_batch_stays_whole_where_the_shape_is_not_told() -> None:
    """A family whose configuration has other names trains as it did, in whole batches."""
    config = PretrainedConfig(d_model=384)
    module = SimpleNamespace(config=config, modules=list, parameters=lambda: iter([torch.zeros(1)]))
    batch = rows_of([450] * 64)
    assert [len(part) for part in Passes(module).parts(batch)] == [64]


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize(("n_rows", "n_tokens"), [(4, 200), (16, 24)])
def test_the_estimate_is_what_torch_keeps_or_up_to_two_and_a_quarter_of_it(
    n_rows: int, n_tokens: int, dropout: float, bfloat16: bool
) -> None:
    config = BertConfig(**{**BERT, "num_hidden_layers": 2}, attention_probs_dropout_prob=dropout)
    module = BertForSequenceClassification(config).train()
    own = {p.untyped_storage().data_ptr() for p in module.parameters()}
    kept: list[Any] = []
    hooks = torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t), t)[1], lambda t: t)
    ids = torch.randint(5, 900, (n_rows, n_tokens))
    with hooks, torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        module(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.sum()
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in kept}
    n_bytes = sum(size for place, size in storages.items() if place not in own)
    estimated = kept_bytes(config, n_rows, n_tokens, keeps_pairs=dropout > 0)
    assert n_bytes <= estimated <= 2.25 * n_bytes


def test_the_estimate_says_why_a_batch_of_long_texts_was_too_much() -> None:
    config = BertConfig(**BERT)
    assert kept_bytes(config, 64, 450) == pytest.approx(22e9, rel=0.05)
    assert kept_bytes(config, 64, 450, keeps_pairs=False) == pytest.approx(7.4e9, rel=0.05)
    assert kept_bytes(config, 64, 24) < MOST_BYTES
    logits = kept_bytes(config, 8, 100, n_scored=65) - kept_bytes(config, 8, 100, n_scored=1)
    assert logits == pytest.approx(3 * 4 * 8 * 65 * 30522, rel=0.01)


def test_a_fit_in_parts_ends_with_the_weights_of_one_in_whole_batches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    incumbent, development = trained()
    rows = rows_of([3, 5, 8, 13] * 8, len(development.labels))

    def fitted() -> dict[str, Any]:
        module = load_torch(incumbent).float()
        for part in module.modules():
            if isinstance(part, torch.nn.Dropout):
                part.p = 0.0  # parts draw other masks
        settings = FitSettings(epochs=2, learning_rate=1e-3, batch_size=8)
        empty = Rows(ids=[], targets=np.empty(0, np.int64))
        fit(module, rows, empty, label_loss, settings, pad_id=0, seed=0, progress=lambda *_: None)
        return dict(module.state_dict())

    whole = fitted()
    monkeypatch.setattr("jettison.compress.passes.MOST_BYTES", 1)
    cut = fitted()
    for name, weights in whole.items():
        torch.testing.assert_close(cut[name], weights, rtol=1e-2, atol=2e-4)


def test_importance_in_parts_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from jettison.compress.anatomy import anatomy_of

    incumbent, development = trained()
    module = load_torch(incumbent).float()
    rows = rows_of([3, 5, 8, 13] * 4, len(development.labels))
    whole = neuron_importance(module, anatomy_of(module.config), rows, 0)
    monkeypatch.setattr("jettison.compress.passes.MOST_BYTES", 1)
    for one, other in zip(
        neuron_importance(module, anatomy_of(module.config), rows, 0), whole, strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-7)


def test_attention_drops_nothing_in_training_on_long_texts() -> None:
    incumbent, _ = trained()

    def rates(module: Any) -> list[float]:
        return [m.p for m in module.modules() if isinstance(m, torch.nn.Dropout)]

    short, long = load_torch(incumbent), load_torch(incumbent)
    before = rates(short)
    assert leave_out_attention_dropout(short, [20, 30]) is None
    assert rates(short) == before
    said = leave_out_attention_dropout(long, [100, 300])
    assert said is not None
    assert "200 tokens" in said
    n_layers = long.config.num_hidden_layers
    assert rates(long).count(0.0) == before.count(0.0) + n_layers
    assert leave_out_attention_dropout(long, [100, 300]) is None


def test_attention_without_a_fused_kernel_keeps_its_dropout_and_counts_its_pairs() -> None:
    shape = {**BERT, "num_hidden_layers": 1}
    fused, unfused = (
        BertForSequenceClassification(BertConfig(**shape, attn_implementation=how))
        for how in ("sdpa", "eager")
    )
    batch = rows_of([400] * 64)
    assert leave_out_attention_dropout(unfused, [400]) is None
    assert leave_out_attention_dropout(fused, [400]) is not None
    assert len(list(Passes(unfused).parts(batch))) > len(list(Passes(fused).parts(batch)))


def test_batches_of_long_texts_have_fewer_rows() -> None:
    batches = list(length_sorted_batches([500] * 40 + [10] * 100, 64))
    assert [len(batch) for batch in batches] == [64, 36, 32, 8]
    assert sorted(np.concatenate(batches).tolist()) == list(range(140))
    assert [len(batch) for batch in length_sorted_batches([20_000, 30_000], 64)] == [1, 1]
    assert list(length_sorted_batches([], 64)) == []
