"""Fine-tuning teaches answers to the task's own prompt, and what it reads is what the engine asks."""

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from clocks import over_once_begun
from jettison.backends.causal import CausalEngine
from jettison.backends.open import open_model
from jettison.compress.answer_rows import PromptTokens, known_pairs
from jettison.compress.answer_training import mean_answer_loss
from jettison.compress.causal import load_causal
from jettison.compress.step import step_from
from jettison.errors import NotEnoughData, StepFailed
from jettison.language import Continuation
from jettison.task import Example
from jettison.testing import check_step
from language_steps import DATA, TEXTS, apply, as_candidate, context_in, language_candidate

LORA = {"step": "finetune_language", "precision": "float32"}
TWENTY = replace(DATA, train=DATA.train[:20], dev=())


@pytest.mark.parametrize("chat", [False, True])
def test_the_loss_is_the_likelihood_that_the_engine_gives(tmp_path: Path, chat: bool) -> None:
    folder = language_candidate(tmp_path / "m").path
    (folder / "candidate.json").unlink()
    prompt = {"template": "Text: {input}", "chat": chat}
    candidate = as_candidate(folder, prompt=prompt)
    tokens = PromptTokens(candidate, 256)
    pairs = known_pairs(DATA.dev[:6], "classify")
    rows = tokens.rows(pairs, ends=False)
    loss = mean_answer_loss(load_causal(candidate), rows, tokens.pad_id)
    asked = [Continuation(context=tokens.context(x), text=tokens.answer(said)) for x, said in pairs]
    found = CausalEngine(candidate).likelihoods(asked)
    assert rows.n_answer.tolist() == [one.n_tokens for one in found]
    nats = -sum(one.logprob for one in found) / sum(one.n_tokens for one in found)
    np.testing.assert_allclose(loss, nats, rtol=1e-5)


@pytest.mark.parametrize(("mode", "rate"), [("lora", 2e-2), ("full", 5e-3)])
def test_twenty_examples_are_learned_by_heart(tmp_path: Path, mode: str, rate: float) -> None:
    candidate = language_candidate(tmp_path / "m")
    step = {**LORA, "mode": mode, "learning_rate": rate, "epochs": 25, "batch_size": 5}
    made = apply(tmp_path, candidate, step, data=TWENTY)
    outputs = open_model(made).predict([e.input for e in TWENTY.train])
    right = [o.label == e.expected for o, e in zip(outputs, TWENTY.train, strict=True)]
    assert sum(right) >= 19
    losses = made.lineage[-1].notes["training"]["losses"]
    assert losses[-1] < 0.1 * losses[0]
    assert {p.name for p in made.path.glob("adapter*")} == set()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
@pytest.mark.parametrize("mode", ["lora", "full"])
def test_a_gpu_learns_in_bfloat16_from_rows_of_unlike_lengths(tmp_path: Path, mode: str) -> None:
    longer = tuple(
        msgspec.structs.replace(e, input=f"{e.input} " * (1 + i % 5)) for i, e in enumerate(TWENTY.train)
    )
    candidate = language_candidate(tmp_path / "m")
    step = {"step": "finetune_language", "mode": mode, "epochs": 4, "batch_size": 5}
    made = apply(tmp_path, candidate, step, data=replace(TWENTY, train=longer))
    losses = made.lineage[-1].notes["training"]["losses"]
    assert losses[-1] < losses[0]


def test_a_free_answer_is_learned_with_its_end(tmp_path: Path) -> None:
    examples = tuple(
        Example(id=str(i), input=e.input, expected="play music today") for i, e in enumerate(DATA.train[:8])
    )
    data = replace(DATA, kind="generate", labels=(), train=examples, dev=())
    candidate = language_candidate(tmp_path / "m", data, settings={"prompt": {"chat": False}})
    step = {**LORA, "learning_rate": 2e-2, "epochs": 30, "batch_size": 4}
    made = apply(tmp_path, candidate, step, data=data)
    (output,) = open_model(made).predict([examples[0].input])
    assert output.label == "play music today"
    assert output.cost is not None
    assert output.cost.completion_tokens is not None
    assert output.cost.completion_tokens < 20


def test_what_only_learns_by_heart_is_stopped_by_dev(tmp_path: Path) -> None:
    wrong = tuple(replace_label(e, "alarm") for e in DATA.train[:16])
    data = replace(DATA, train=wrong, dev=tuple(replace_label(e, "weather") for e in DATA.dev))
    candidate = language_candidate(tmp_path / "m")
    step = {**LORA, "learning_rate": 1e-2, "epochs": 20, "patience": 2}
    notes = apply(tmp_path, candidate, step, data=data).lineage[-1].notes
    training = notes["training"]
    assert training["stopped"] == "early"
    assert training["best_dev_loss"] == min(training["dev_losses"])
    assert training["best_dev_loss"] <= training["dev_losses"][0]


def replace_label(example: Example, label: str) -> Example:
    return Example(id=example.id, input=example.input, expected=label)


def test_seeds_and_the_curve_are_noted(tmp_path: Path) -> None:
    candidate = language_candidate(tmp_path / "m")
    step = {**LORA, "epochs": 1, "seeds": 2, "curve": [0.25, 0.5], "learning_rate": 1e-2}
    notes = apply(tmp_path, candidate, step).lineage[-1].notes
    assert len(notes["seeds"]["dev_fit_losses"]) == 2
    assert notes["seeds"]["spread"] > 0
    assert [point["n_examples"] for point in notes["curve"]] == [12, 24, 48]
    assert notes["training"]["best_dev_loss"] == min(notes["seeds"]["dev_fit_losses"])


def test_divergence_and_missing_answers_are_said(tmp_path: Path) -> None:
    candidate = language_candidate(tmp_path / "m")
    with pytest.raises(StepFailed, match=r"the training loss must stay finite, got nan at step \d+"):
        apply(tmp_path, candidate, {**LORA, "mode": "full", "learning_rate": 1e30, "epochs": 4})
    with pytest.raises(NotEnoughData, match=r"'finetune_language' needs train examples with answers"):
        apply(tmp_path, candidate, LORA, data=replace(DATA, train=()))
    with pytest.raises(StepFailed, match=r"training must start before the deadline"):
        apply(tmp_path, candidate, LORA, deadline=over_once_begun())


def test_the_step_conforms(tmp_path: Path) -> None:
    candidate = language_candidate(tmp_path / "m")
    check_step(
        step_from({**LORA, "epochs": 1}), candidate, context_in(tmp_path, candidate), texts=TEXTS[:3]
    )
