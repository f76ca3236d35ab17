"""Distills a classifier into a linear one over words, pairs and characters."""

import time
from pathlib import Path
from typing import Any, ClassVar, Literal

import msgspec
import numpy as np

from jettison.backends.linear import WEIGHTS
from jettison.candidate import Candidate
from jettison.compress.checkpoint import LICENCE_FILES, take_over
from jettison.compress.deadline import Deadline
from jettison.compress.draw import context_to_learn, draw_notes
from jettison.compress.linear_features import count_features
from jettison.compress.linear_fit import FittedLinear, LinearSchedule, fit_linear
from jettison.compress.settings_check import check_settings
from jettison.compress.step import Made, StepContext, equal_part
from jettison.compress.storage import stored
from jettison.compress.student_check import student_notes
from jettison.compress.transfer import TransferSet, gold_indices, transfer_set
from jettison.errors import InvalidInput

GOLD_WEIGHTS = (0.3, 3.0)


class DistillLinear(msgspec.Struct, frozen=True, kw_only=True):
    """Teach a linear model over hashed words, word pairs and character n-grams the incumbent's logits.

    The cheapest student: no tokenizer, no matrix product. It knows only words like those that
    training saw, so look at its out-of-domain slices before anything else.
    """

    name: ClassVar[str] = "distill_linear"
    code_version: ClassVar[int] = 2
    reads_data: ClassVar[bool] = True
    libraries: ClassVar[tuple[str, ...]] = ("numpy", "scipy")
    later_settings: ClassVar[tuple[str, ...]] = ("most_texts",)

    characters: tuple[int, int] = (3, 5)
    """Shortest and longest run of characters of a word."""
    min_count: int = 2
    """Train texts that must hold a pair or a run of characters for it to count; words need one."""
    max_features: int = 150_000
    """The most frequent are kept."""
    augment: int = 0
    """Made-up texts that the teacher labels; on CLINC150 they gave this student nothing."""
    epochs: int = 20
    patience: int = 4
    batch_size: int = 256
    learning_rate: float = 0.5
    temperature: float = 2.0
    gold_weight: float | None = None
    """Weight of the cross entropy on known labels; None tries 0.3 and 3 and keeps what dev_fit
    likes better: a teacher that is often wrong should be listened to less."""
    dropout: float = 0.2
    """Share of features hidden in training."""
    storage: Literal["float32", "float16", "int8"] = "int8"
    """How the rows are kept on disk."""
    most_texts: int | None = None
    """Train and unlabelled texts to learn from, drawn where there are more; None is all."""

    def __post_init__(self) -> None:
        check_settings(
            self,
            at_least_1=("min_count", "max_features", "epochs", "patience", "batch_size", "most_texts"),
            at_least_0=("augment", "gold_weight"),
            above_0=("learning_rate", "temperature"),
            shares=("dropout",),
        )
        if not 1 <= self.characters[0] <= self.characters[1] <= 16:
            raise InvalidInput(
                "characters of distill_linear must be two lengths from 1 to 16, the shorter first, "
                f"got {list(self.characters)}."
            )

    def make(self, candidate: Candidate, context: StepContext) -> Made:
        """Train the linear student and write it to the step's folder.

        Raises:
            NotEnoughData: The task has no train examples.
            StepFailed: Training diverged.
        """
        whole, context = context, context_to_learn(context, self.most_texts)
        transfer = transfer_set(context, self.augment)
        started = time.monotonic()
        arrays, notes = self.train(transfer, context)
        notes["train_s"] = round(time.monotonic() - started, 2)
        save_rows(arrays, self.storage, context.folder / WEIGHTS)
        take_over(candidate.path, context.folder, LICENCE_FILES)
        settings = {"characters": list(self.characters)}
        return Made(
            backend="linear",
            labels=context.incumbent.labels,
            settings=settings,
            notes=notes | student_notes(context, "linear", settings, transfer) | draw_notes(whole, context),
            resolved={"gold_weight": notes["gold_weight"], "augment": transfer.n_augmented},
        )

    def _schedule(self, gold_weight: float, seed: int, deadline: Deadline | None) -> LinearSchedule:
        return LinearSchedule(
            epochs=self.epochs,
            patience=self.patience,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            temperature=self.temperature,
            gold_weight=gold_weight,
            dropout=self.dropout,
            seed=seed,
            deadline=deadline,
        )

    def train(
        self, transfer: TransferSet, context: StepContext
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """The trained arrays as `NgramLogits` reads them, float32, and notes on how it went."""
        n_known = transfer.n_train + transfer.n_unlabelled
        features = count_features(
            transfer.texts,
            n_known,
            characters=self.characters,
            min_count=self.min_count,
            max_features=self.max_features,
        )
        out_of_scope = context.data.out_of_scope
        dev = [example for example in context.data.dev_fit if example.expected != out_of_scope]
        watched = features.transform([example.input for example in dev])
        weights = GOLD_WEIGHTS if self.gold_weight is None else (self.gold_weight,)
        tried: list[tuple[float, FittedLinear]] = []
        for number, weight in enumerate(weights):
            if tried and context.deadline is not None and context.deadline.is_over():
                break
            deadline = equal_part(context.deadline, len(weights) - number)
            fitted = fit_linear(
                features.matrix,
                transfer.teacher,
                transfer.gold,
                dev=watched,
                dev_gold=gold_indices(dev, context.incumbent.labels),
                schedule=self._schedule(weight, context.seed, deadline),
                progress=context.progress,
            )
            tried.append((weight, fitted))
        gold_weight, fitted = max(tried, key=lambda pair: pair[1].score)
        order = np.argsort(features.keys)
        arrays = {
            "keys": features.keys[order].astype(np.uint32),
            "rows": (fitted.weights * features.idf[:, None])[order].astype(np.float32),
            "mass": np.square(features.idf)[order].astype(np.float32),
            "bias": fitted.bias,
        }
        return arrays, {
            "n_features": len(order),
            "gold_weight": gold_weight,
            "epochs": fitted.epochs,
            "best_epoch": fitted.best_epoch,
            "stopped_by": fitted.stopped_by,
        }


def save_rows(arrays: dict[str, np.ndarray], storage: str, path: Path) -> None:
    """Write what `train` gave, the rows at the chosen precision."""
    from safetensors.numpy import save_file

    save_file(stored(arrays, "rows", storage), path)
