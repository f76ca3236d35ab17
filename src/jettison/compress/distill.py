"""Step `distill`: teaches a smaller or pruned torch candidate to answer as the incumbent does."""

from typing import Annotated, Any, ClassVar, Literal

import msgspec
import numpy as np

from jettison.backends.hf import load_torch
from jettison.candidate import Candidate
from jettison.compress.anatomy import anatomy_of
from jettison.compress.augment import augment
from jettison.compress.checkpoint import bfloat16_is_fast, check_hf, save_torch, torch_run
from jettison.compress.draw import context_to_learn, draw_notes
from jettison.compress.finetune import labelled_rows, labels_share
from jettison.compress.incumbent_language import is_language
from jettison.compress.passes import leave_out_attention_dropout
from jettison.compress.settings_check import check_settings
from jettison.compress.step import Made, StepContext
from jettison.compress.teacher import teacher_logits_in_time, teacher_logits_until
from jettison.compress.training import FitSettings, Rows, fit, label_targets, tokenized
from jettison.errors import NotEnoughData, StepFailed


class Distill(msgspec.Struct, frozen=True, kw_only=True):
    """Learn the incumbent's logits on train, unlabelled and invented texts."""

    name: ClassVar[str] = "distill"
    code_version: ClassVar[int] = 2
    reads_data: ClassVar[bool] = True
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers")
    later_settings: ClassVar[tuple[str, ...]] = ("most_texts",)

    epochs: Annotated[int, msgspec.Meta(ge=1)] = 4
    learning_rate: Annotated[float, msgspec.Meta(gt=0)] = 5e-4
    """Peak of the one-cycle schedule."""
    batch_size: Annotated[int, msgspec.Meta(ge=1)] = 64
    temperature: Annotated[float, msgspec.Meta(gt=0)] = 2.0
    """Softens both sides' answers before they are compared."""
    label_weight: Annotated[float, msgspec.Meta(ge=0)] = 0.3
    """Weight of the cross-entropy on labelled texts, beside the teacher's."""
    hidden_weight: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """Weight of the distance between hidden states, where both are torch and as wide; asks the
    teacher again for every batch."""
    augment: Annotated[float, msgspec.Meta(ge=0)] | None = None
    """Invented texts per real one; None is one, or none where a language model would be asked them."""
    patience: Annotated[int, msgspec.Meta(ge=1)] = 4
    """Epochs without a better one after which it stops."""
    train_embeddings: bool = False
    """Whether the token vectors change too; they are the incumbent's and most of the weights."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the multiplications in training; auto takes bfloat16 where the CPU has it in hardware."""
    teaching_share: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.3
    """Share of the time to the deadline that the teacher may spend on invented texts."""
    most_texts: int | None = None
    """Train and unlabelled texts to learn from, drawn where there are more; None is all."""

    def __post_init__(self) -> None:
        check_settings(self, at_least_1=("most_texts",))

    def make(self, candidate: Candidate, context: StepContext) -> Made:
        """Ask the teacher, train, save.

        Raises:
            StepFailed: The candidate is no torch checkpoint, its labels are not the incumbent's,
                or training diverged.
            NotEnoughData: There is no text to learn from.
        """
        check_hf(candidate, self.name)
        whole, context = context, context_to_learn(context, self.most_texts)
        rows, counts = self._taught(candidate, context)
        stop = labelled_rows(candidate, context.data.dev_fit)
        settings = FitSettings(
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            patience=self.patience,
            bfloat16=self.precision == "bfloat16" or (self.precision == "auto" and bfloat16_is_fast()),
        )
        with torch_run(seed=context.seed, threads=context.threads):
            module = load_torch(candidate).float()
            module.body.get_input_embeddings().requires_grad_(self.train_embeddings)
            guide, why_not = self._guide(candidate, module, context)
            changed = leave_out_attention_dropout(module, [len(row) for row in rows.ids])
            log = fit(
                module,
                rows,
                stop,
                _Loss(self, guide),
                settings,
                pad_id=int(candidate.settings.get("pad_id", 0)),
                seed=context.seed,
                deadline=context.deadline,
                progress=context.progress,
            )
            save_torch(module, context.folder, source=candidate.path)
        log = msgspec.structs.replace(log, attention_dropout=changed)
        notes = {"training": msgspec.to_builtins(log), "texts": counts, **draw_notes(whole, context)}
        if why_not is not None:
            notes["hidden_states"] = why_not
        resolved = {"precision": "bfloat16" if settings.bfloat16 else "float32"}
        return Made(notes=notes, resolved=resolved)

    def _taught(self, candidate: Candidate, context: StepContext) -> tuple[Rows, dict[str, int]]:
        """All texts to learn from, with the teacher's logits, and how many of each origin."""
        data = context.data
        texts = [e.input for e in data.train] + [e.input for e in data.unlabelled]
        expected = [e.expected for e in data.train] + [None] * len(data.unlabelled)
        if not texts:
            raise NotEnoughData("step 'distill' needs train or unlabelled texts, got none.")
        columns = _columns(candidate, context.incumbent)
        logits = teacher_logits_in_time(context, texts)
        share = self.augment
        if share is None:
            share = 0.0 if is_language(context.incumbent) else 1.0
        invented = augment(texts, round(share * len(texts)), seed=context.seed, labels=expected)
        until = None
        if context.deadline is not None:
            until = context.deadline.share(self.teaching_share)
        taught = teacher_logits_until(context, invented, until)
        invented = invented[: len(taught)]
        rows = Rows(
            ids=tokenized(candidate, [*texts, *invented]),
            targets=label_targets([*expected, *[None] * len(invented)], candidate.labels),
            teacher=np.concatenate([logits, taught])[:, columns] if len(taught) else logits[:, columns],
        )
        counts = {
            "train": len(data.train),
            "unlabelled": len(data.unlabelled),
            "invented": len(invented),
        }
        return rows, counts

    def _guide(
        self, candidate: Candidate, module: Any, context: StepContext
    ) -> tuple["_Guide | None", str | None]:
        """The teacher's hidden states to follow, or why there are none."""
        if self.hidden_weight == 0:
            return None, None
        if context.incumbent.backend != "hf":
            return None, f"not compared: the incumbent runs in {context.incumbent.backend!r}"
        teacher = load_torch(context.incumbent).float().requires_grad_(False)
        if teacher.config.hidden_size != module.config.hidden_size:
            return None, "not compared: hidden sizes differ"
        if _vocabulary(teacher) != _vocabulary(module):
            return None, "not compared: vocabularies differ"
        n_teacher = int(getattr(teacher.config, anatomy_of(teacher.config).depth))
        n_student = int(getattr(module.config, anatomy_of(module.config).depth))
        return _Guide(teacher, layer_map(candidate, n_teacher, n_student)), None


def layer_map(candidate: Candidate, n_teacher: int, n_student: int) -> list[int]:
    """Index of the teacher's hidden state that each student layer should give, 1 to n_teacher.

    A kept layer should give what the next kept layer was fed in the teacher; the last one,
    what the teacher's last layer gave. Without a record of what was kept, evenly spaced.
    """
    kept = list(range(n_teacher))
    for applied in candidate.lineage:
        if applied.step == "prune" and (chosen := applied.settings.get("kept_layers")):
            if max(chosen) >= len(kept):
                break
            kept = [kept[i] for i in chosen]
    if len(kept) == n_student and n_student < n_teacher:
        return [*kept[1:], n_teacher]
    return [round((i + 1) * n_teacher / n_student) for i in range(n_student)]


class _Guide:
    """A teacher in torch, and which of its hidden states each student layer follows."""

    def __init__(self, teacher: Any, states: list[int]) -> None:
        self.teacher, self.states = teacher, states

    def distance(self, ids: Any, mask: Any, hidden: tuple[Any, ...]) -> Any:
        """Mean squared distance of hidden states at real tokens, as a share of the teacher's variance."""
        import torch

        with torch.no_grad():
            _, wanted = self.teacher.forward_hidden(ids, mask)
        real = mask.bool()
        terms = []
        for layer, state in enumerate(self.states):
            target = wanted[state][real]
            terms.append(((hidden[layer + 1][real] - target) ** 2).mean() / target.var().clamp(min=1e-6))
        return torch.stack(terms).mean()


class _Loss:
    """Kullback-Leibler divergence from the teacher, with labels and hidden states beside it."""

    def __init__(self, step: Distill, guide: _Guide | None) -> None:
        self.step, self.guide = step, guide

    def __call__(self, module: Any, ids: Any, mask: Any, part: Rows, batch: Rows) -> Any:
        import torch
        from torch.nn import functional

        step = self.step
        if self.guide is None:
            logits, hidden = module(ids, mask), ()
        else:
            logits, hidden = module.forward_hidden(ids, mask)
        assert part.teacher is not None
        logits = logits.float()
        taught = torch.from_numpy(part.teacher) / step.temperature
        loss = functional.kl_div(
            functional.log_softmax(logits / step.temperature, dim=1),
            functional.log_softmax(taught, dim=1),
            log_target=True,
            reduction="sum",
        )
        loss = loss / len(batch) * step.temperature**2
        if step.label_weight and bool((part.targets >= 0).any()):
            loss = loss + step.label_weight * labels_share(logits, part, batch)
        if self.guide is not None:
            # Over the tokens of the part; its variance stands for the batch's.
            share = sum(map(len, part.ids)) / sum(map(len, batch.ids))
            loss = loss + step.hidden_weight * share * self.guide.distance(ids, mask, hidden)
        return loss


def _columns(candidate: Candidate, incumbent: Candidate) -> list[int]:
    """Where the candidate's labels stand among the incumbent's logits."""
    lacking = [label for label in candidate.labels if label not in incumbent.labels]
    if lacking:
        raise StepFailed(
            f"a teacher must know every label of its student, got none named {lacking[0]!r} "
            f"in {incumbent.name}."
        )
    return [incumbent.labels.index(label) for label in candidate.labels]


def _vocabulary(module: Any) -> int:
    return int(module.config.vocab_size)
