"""Step `finetune_language`: teaches a causal language model the task's own answers."""

from typing import Annotated, Any, ClassVar, Literal

import msgspec
import numpy as np

from jettison.candidate import Candidate
from jettison.compress.answer_rows import AnswerRows, PromptTokens, known_pairs
from jettison.compress.causal import check_causal, save_causal
from jettison.compress.step import Made, StepContext, equal_part
from jettison.compress.tuning import Tuning, tune, tuned_notes
from jettison.errors import NotEnoughData

AtLeastOne = Annotated[int, msgspec.Meta(ge=1)]


class FinetuneLanguage(msgspec.Struct, frozen=True, kw_only=True):
    """Train on the right answers to the task's prompt, stopping early on the first half of dev.

    The prompt is rendered as it is asked; the loss counts the tokens of the answer alone, and the
    one that ends it.
    """

    name: ClassVar[str] = "finetune_language"
    code_version: ClassVar[int] = 1
    reads_data: ClassVar[bool] = True
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers", "peft")

    mode: Literal["full", "lora"] = "lora"
    """What is trained: every weight, or low-rank changes that are merged in the end."""
    epochs: AtLeastOne = 3
    learning_rate: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """Peak of the one-cycle schedule; None takes 3e-5 (full) or 3e-4 (lora)."""
    batch_size: AtLeastOne = 8
    patience: AtLeastOne = 2
    """Epochs without a better one after which it stops."""
    seeds: AtLeastOne = 1
    """Runs from different seeds; the best on dev is kept and the spread is noted."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the multiplications in training; auto takes bfloat16 where the hardware has it."""
    lora_rank: AtLeastOne = 16
    max_tokens: Annotated[int, msgspec.Meta(ge=8)] = 1024
    """Longest prompt with its answer; a longer one loses its beginning."""
    curve: tuple[Annotated[float, msgspec.Meta(gt=0, lt=1)], ...] = ()
    """Shares of train, in 0-1, also tried, to see what more answers would bring."""

    def make(self, candidate: Candidate, context: StepContext) -> Made:
        """Train, keep the best, save.

        Raises:
            StepFailed: The candidate is no causal checkpoint, or training diverged.
            NotEnoughData: Train holds no example with an answer.
            MissingExtra: peft is not installed and `mode` is `lora`.
        """
        check_causal(candidate, self.name)
        kind = str(candidate.settings.get("kind", context.data.kind))
        tokens = PromptTokens(candidate, self.max_tokens)
        train = tokens.rows(known_pairs(context.data.train, kind))
        stop = tokens.rows(known_pairs(context.data.dev_fit, kind))
        if len(train) == 0:
            raise NotEnoughData("step 'finetune_language' needs train examples with answers, got none.")
        tuning = Tuning.of(self)
        n_runs = 1 + len(self.curve)
        curve = []
        for number, share in enumerate(self.curve):
            part = random_part(train, share, context.seed)
            once = msgspec.structs.replace(tuning, seeds=1)
            deadline = equal_part(context.deadline, n_runs - number)
            log = tune(candidate, part, stop, once, context, pad_id=tokens.pad_id, deadline=deadline).log
            curve.append({"n_examples": len(part), "dev_fit_loss": log.best_dev_loss})
        tuned = tune(
            candidate, train, stop, tuning, context, pad_id=tokens.pad_id, deadline=context.deadline
        )
        save_causal(tuned.model, context.folder, source=candidate.path)
        notes: dict[str, Any] = {"n_examples": len(train), **tuned_notes(tuned)}
        if self.curve:
            last = {"n_examples": len(train), "dev_fit_loss": tuned.log.best_dev_loss}
            notes["curve"] = [*curve, last]
        return Made(notes=notes, resolved={"learning_rate": tuning.rate, "precision": tuned.precision})


def random_part(rows: AnswerRows, share: float, seed: int) -> AnswerRows:
    """A random share of rows, at least one; smaller shares are within larger ones of the same seed."""
    order = np.random.default_rng(seed).permutation(len(rows))
    return rows.take(np.sort(order[: max(1, round(share * len(rows)))]))
