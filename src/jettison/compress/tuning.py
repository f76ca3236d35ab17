"""Tunes a causal language model on answers, in full or by low-rank changes that are merged in the end."""

import warnings
from typing import Any, Literal

import msgspec
import numpy as np

from jettison.candidate import Candidate
from jettison.compress.answer_rows import AnswerRows
from jettison.compress.answer_training import AnswerLog, Beside, Judge, Loss, answer_loss, fit_answers
from jettison.compress.causal import device_of, load_causal
from jettison.compress.checkpoint import bfloat16_is_fast, torch_run
from jettison.compress.deadline import Deadline
from jettison.compress.step import StepContext, equal_part
from jettison.compress.training import FitSettings
from jettison.registry import need

RATES = {"full": 3e-5, "lora": 3e-4}
"""Peak learning rates that leave a pretrained model whole."""


class Tuning(msgspec.Struct, frozen=True, kw_only=True):
    """How a causal model is trained; steps hold the same fields."""

    mode: Literal["full", "lora"]
    epochs: int
    learning_rate: float | None
    batch_size: int
    patience: int
    seeds: int
    precision: Literal["auto", "float32", "bfloat16"]
    lora_rank: int

    @classmethod
    def of(cls, step: Any) -> "Tuning":
        """Read a step's fields."""
        return cls(**{name: getattr(step, name) for name in cls.__struct_fields__})

    @property
    def rate(self) -> float:
        """Peak of the one-cycle schedule."""
        return self.learning_rate or RATES[self.mode]

    def bfloat16_on(self, device: str) -> bool:
        """Whether products are rounded: on a GPU, and on CPUs that have it in hardware."""
        if self.precision == "auto":
            return device != "cpu" or bfloat16_is_fast()
        return self.precision == "bfloat16"


class Tuned(msgspec.Struct, frozen=True, kw_only=True):
    """The best of several runs."""

    model: Any
    log: AnswerLog
    dev_losses: tuple[float, ...]
    """Best dev loss of each seed, nats a token; empty without dev examples."""
    precision: str


def tune(
    candidate: Candidate,
    train: AnswerRows,
    stop: AnswerRows,
    tuning: Tuning,
    context: StepContext,
    *,
    pad_id: int,
    deadline: Deadline | None,
    loss: Loss = answer_loss,
    judge: Judge | None = None,
    beside: Beside | None = None,
) -> Tuned:
    """Train from one or more seeds, and keep the run that is best on dev.

    Raises:
        OutOfTime: There is no time left.
        StepFailed: Training diverged.
        MissingExtra: peft is not installed and `mode` is `lora`.
    """
    device = device_of(candidate)
    settings = FitSettings(
        epochs=tuning.epochs,
        learning_rate=tuning.rate,
        batch_size=tuning.batch_size,
        patience=tuning.patience,
        bfloat16=tuning.bfloat16_on(device),
    )
    best: tuple[Any, AnswerLog] | None = None
    reached: list[float] = []
    for number in range(tuning.seeds):
        if best is not None and deadline is not None and deadline.is_over():
            break
        seed = context.seed + number
        with torch_run(seed=seed, threads=context.threads):
            model = load_causal(candidate).to(device)
            if tuning.mode == "lora":
                model = _adapted(model, tuning.lora_rank)
            log = fit_answers(
                model,
                train,
                stop,
                loss,
                settings,
                pad_id=pad_id,
                seed=seed,
                deadline=equal_part(deadline, tuning.seeds - number),
                progress=context.progress,
                judge=judge,
                beside=beside,
            )
            if tuning.mode == "lora":
                model = _merged(model)
        if log.best_dev_loss is not None:
            reached.append(log.best_dev_loss)
        if best is None or (reached and log.best_dev_loss == min(reached)):
            best = (model.to("cpu"), log)
    assert best is not None
    precision = "bfloat16" if settings.bfloat16 else "float32"
    return Tuned(model=best[0], log=best[1], dev_losses=tuple(reached), precision=precision)


def tuned_notes(tuned: Tuned) -> dict[str, Any]:
    """What a step should say of its training."""
    notes: dict[str, Any] = {"training": msgspec.to_builtins(tuned.log)}
    if len(tuned.dev_losses) > 1:
        spread = float(np.ptp(tuned.dev_losses))
        notes["seeds"] = {"dev_fit_losses": list(tuned.dev_losses), "spread": spread}
    if tuned.log.best_look == 0:
        notes["nothing_learned"] = "the model was best on dev_fit before training: its weights stay"
    return notes


def _adapted(model: Any, rank: int) -> Any:
    """The model frozen, with low-rank changes on every linear map but the last."""
    peft = need("peft", "torch")
    config = peft.LoraConfig(
        r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    with warnings.catch_warnings():
        # peft sets fan_in_fan_out for GPT-2 by itself and says so; transformers renamed a property.
        warnings.simplefilter("ignore")
        return peft.get_peft_model(model, config)


def _merged(model: Any) -> Any:
    """The model with the low-rank changes added to the weights they adapt."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.merge_and_unload()
