"""Step `distill_language`: teaches a pruned causal model to give the incumbent's token probabilities."""

from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import msgspec
import numpy as np

from jettison.candidate import Candidate
from jettison.compress.answer_rows import AnswerRows, PromptTokens, known_pairs
from jettison.compress.answer_training import Beside, Judge, mean_answer_loss
from jettison.compress.causal import check_causal, load_causal, save_causal
from jettison.compress.step import Made, StepContext
from jettison.compress.teacher_tokens import TeacherTokens, mean_divergence, taught_rows, teacher_loss
from jettison.compress.tuning import Tuning, tune, tuned_notes
from jettison.errors import NotEnoughData, StepFailed

AtLeastOne = Annotated[int, msgspec.Meta(ge=1)]


class DistillLanguage(msgspec.Struct, frozen=True, kw_only=True):
    """Learn the incumbent's probabilities on the task's prompts and on the answers it gives itself.

    Heals a pruned model. The teacher is asked once; its likeliest tokens are kept in the workspace.
    """

    name: ClassVar[str] = "distill_language"
    code_version: ClassVar[int] = 1
    reads_data: ClassVar[bool] = True
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers", "peft")

    mode: Literal["full", "lora"] = "full"
    """What is trained: every weight, or low-rank changes that are merged in the end."""
    epochs: AtLeastOne = 3
    learning_rate: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """Peak of the one-cycle schedule; None takes 1e-4 (full) or 1e-3 (lora)."""
    batch_size: AtLeastOne = 8
    patience: AtLeastOne = 2
    """Epochs without a better one after which it stops."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the multiplications in training; auto takes bfloat16 where the hardware has it."""
    lora_rank: AtLeastOne = 16
    temperature: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    """Softens both sides' probabilities before they are compared."""
    top_k: AtLeastOne = 64
    """Tokens kept of each of the teacher's distributions; the others count as one."""
    prompt_tokens: Annotated[int, msgspec.Meta(ge=0)] = 64
    """Of each prompt, how many of the last tokens are taught beside the answer."""
    other_answers: Annotated[int, msgspec.Meta(ge=0)] = 1
    """Of labels or choices, how many others are taught for each input beside the teacher's."""
    label_weight: Annotated[float, msgspec.Meta(ge=0)] = 0.3
    """Weight of the likelihood of the right answers of train, beside the teacher's."""
    max_tokens: Annotated[int, msgspec.Meta(ge=8)] = 1024
    """Longest prompt with its answer; a longer one loses its beginning."""

    def make(self, candidate: Candidate, context: StepContext) -> Made:
        """Ask the teacher, train, save.

        Raises:
            StepFailed: Candidate or incumbent is no causal checkpoint, they cut texts into other tokens,
                or training diverged.
            NotEnoughData: There is no input to learn from.
        """
        check_causal(candidate, self.name)
        _check_teacher(candidate, context.incumbent)
        data = context.data
        inputs = [e.asked for e in (*data.train, *data.unlabelled)]
        if not inputs:
            raise NotEnoughData("step 'distill_language' needs train or unlabelled inputs, got none.")
        asked = TeacherTokens(
            temperature=self.temperature,
            top_k=self.top_k,
            prompt_tokens=self.prompt_tokens,
            max_tokens=self.max_tokens,
            other_answers=self.other_answers,
        )
        kind = str(candidate.settings.get("kind", data.kind))
        rows = taught_rows(context.incumbent, context, inputs, asked)
        tokens = PromptTokens(candidate, self.max_tokens)
        watched = [e.asked for e in data.dev_fit]
        stop = taught_rows(context.incumbent, context, watched, asked)
        tuning = self._tuning()
        answers = tokens.rows(known_pairs(data.train, kind))
        tuned = tune(
            candidate,
            rows,
            stop,
            tuning,
            context,
            pad_id=tokens.pad_id,
            deadline=context.deadline,
            judge=self._judge(tokens.rows(known_pairs(data.dev_fit, kind))),
            loss=partial(teacher_loss, temperature=self.temperature),
            beside=self._beside(answers, context.seed),
        )
        seen = stop if len(stop) else rows
        part = seen.take(np.arange(min(128, len(seen))))
        before, after = _before_and_after(candidate, tuned.model, part, tokens.pad_id, self.temperature)
        save_causal(tuned.model, context.folder, source=candidate.path)
        notes: dict[str, Any] = {
            "inputs": {"train": len(data.train), "unlabelled": len(data.unlabelled)},
            "teacher_divergence_before": before,
            "teacher_divergence": after,
            **tuned_notes(tuned),
        }
        return Made(notes=notes, resolved={"learning_rate": tuning.rate, "precision": tuned.precision})

    def _judge(self, answers: AnswerRows) -> Judge:
        """What early stopping wants small on dev: the same sum that training does."""

        def judge(model: Any, rows: AnswerRows, pad_id: int) -> float:
            found = mean_divergence(model, rows, pad_id, temperature=self.temperature) * self.temperature**2
            if self.label_weight and len(answers):
                found += self.label_weight * mean_answer_loss(model, answers, pad_id)
            return found

        return judge

    def _beside(self, answers: AnswerRows, seed: int) -> Beside | None:
        """Right answers to learn beside the teacher's probabilities."""
        if self.label_weight == 0 or len(answers) == 0:
            return None
        return Beside(answers, self.label_weight, self.batch_size, seed)

    def _tuning(self) -> Tuning:
        rate = self.learning_rate or {"full": 1e-4, "lora": 1e-3}[self.mode]
        return Tuning(
            mode=self.mode,
            epochs=self.epochs,
            learning_rate=rate,
            batch_size=self.batch_size,
            patience=self.patience,
            seeds=1,
            precision=self.precision,
            lora_rank=self.lora_rank,
        )


def _check_teacher(candidate: Candidate, teacher: Candidate) -> None:
    """A teacher's token probabilities mean something only to a student with the same tokens."""
    if teacher.backend != "hf_causal":
        raise StepFailed(
            "step 'distill_language' needs an incumbent of backend 'hf_causal', whose token probabilities "
            f"can be read, got {teacher.backend!r}. Step 'distill_answers' learns from answers alone."
        )
    ours, theirs = (c.path / "tokenizer.json" for c in (candidate, teacher))
    if ours.is_file() and theirs.is_file() and ours.read_bytes() != theirs.read_bytes():
        raise StepFailed(
            f"a teacher must cut texts into the same tokens as {candidate.name}, got another tokenizer in "
            f"{teacher.name}. Heal before the vocabulary is trimmed, or use step 'distill_answers'."
        )


def _before_and_after(
    candidate: Candidate, model: Any, rows: AnswerRows, pad_id: int, temperature: float
) -> tuple[float, float]:
    """Mean divergence from the teacher on some rows, in nats a token, before and after training."""
    whole = load_causal(candidate)
    return (
        mean_divergence(whole, rows, pad_id, temperature=temperature),
        mean_divergence(model, rows, pad_id, temperature=temperature),
    )
