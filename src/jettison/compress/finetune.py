"""Step `finetune`: fits a torch candidate to the labelled train examples."""

import warnings
from typing import Annotated, Any, ClassVar, Literal

import msgspec
import numpy as np

from jettison.backends.hf import load_torch
from jettison.candidate import Candidate
from jettison.compress.anatomy import anatomy_of
from jettison.compress.checkpoint import bfloat16_is_fast, check_hf, save_torch, torch_run
from jettison.compress.deadline import Deadline
from jettison.compress.passes import leave_out_attention_dropout
from jettison.compress.step import Made, StepContext, equal_part
from jettison.compress.training import FitLog, FitSettings, Rows, fit, label_targets, tokenized
from jettison.errors import NotEnoughData
from jettison.registry import need
from jettison.task import Example


class Finetune(msgspec.Struct, frozen=True, kw_only=True):
    """Train on the labels, stopping early on the first half of dev."""

    name: ClassVar[str] = "finetune"
    code_version: ClassVar[int] = 2
    reads_data: ClassVar[bool] = True
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers", "peft")

    mode: Literal["full", "head", "lora"] = "full"
    """What is trained: every weight, the head alone, or low-rank changes that are merged in the end."""
    epochs: Annotated[int, msgspec.Meta(ge=1)] = 4
    learning_rate: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """Peak of the one-cycle schedule; None takes 2e-4 (full), 2e-3 (head), 1e-3 (lora)."""
    batch_size: Annotated[int, msgspec.Meta(ge=1)] = 32
    patience: Annotated[int, msgspec.Meta(ge=1)] = 3
    """Epochs without a better one after which it stops."""
    seeds: Annotated[int, msgspec.Meta(ge=1)] = 1
    """Runs from different seeds; the best on dev is kept and the spread is noted."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the multiplications in training; auto takes bfloat16 where the CPU has it in hardware."""
    lora_rank: Annotated[int, msgspec.Meta(ge=1)] = 8
    curve: tuple[float, ...] = ()
    """Shares of train, in 0-1, also tried, to see what more labels would bring."""

    def make(self, candidate: Candidate, context: StepContext) -> Made:
        """Train, keep the best, save.

        Raises:
            StepFailed: The candidate is no torch checkpoint, or training diverged.
            NotEnoughData: Train holds no example of the candidate's labels.
            MissingExtra: peft is not installed and `mode` is `lora`.
        """
        check_hf(candidate, self.name)
        train, stop = (
            labelled_rows(candidate, context.data.train),
            labelled_rows(candidate, context.data.dev_fit),
        )
        if len(train) == 0:
            raise NotEnoughData("step 'finetune' needs labelled train examples, got none.")
        runs = [(1.0, context.seed + i) for i in range(self.seeds)]
        runs += [(share, context.seed) for share in self.curve if share < 1]
        best: tuple[float, Any] | None = None
        logs: list[FitLog] = []
        for number, (share, seed) in enumerate(runs):
            if best is not None and context.deadline is not None and context.deadline.is_over():
                break
            deadline = equal_part(context.deadline, len(runs) - number)
            part = train if share == 1 else train.take(_stratified(train.targets, share, seed))
            module, log = self._run(candidate, part, stop, seed, deadline, context)
            logs.append(log)
            quality = log.best_accuracy if log.best_accuracy is not None else 0.0
            if share == 1 and (best is None or quality > best[0]):
                best = (quality, module)
        assert best is not None
        save_torch(best[1], context.folder, source=candidate.path)
        precision = "bfloat16" if self._bfloat16() else "float32"
        resolved = {"learning_rate": self._rate(), "precision": precision}
        return Made(notes=self._notes(logs), resolved=resolved)

    def _rate(self) -> float:
        return self.learning_rate or {"full": 2e-4, "head": 2e-3, "lora": 1e-3}[self.mode]

    def _bfloat16(self) -> bool:
        return self.precision == "bfloat16" or (self.precision == "auto" and bfloat16_is_fast())

    def _run(
        self,
        candidate: Candidate,
        train: Rows,
        stop: Rows,
        seed: int,
        deadline: Deadline | None,
        context: StepContext,
    ) -> tuple[Any, FitLog]:
        settings = FitSettings(
            epochs=self.epochs,
            learning_rate=self._rate(),
            batch_size=self.batch_size,
            patience=self.patience,
            bfloat16=self._bfloat16(),
        )
        with torch_run(seed=seed, threads=context.threads):
            module = load_torch(candidate).float()
            if self.mode == "lora":
                _adapt(module, self.lora_rank)
            elif self.mode == "head":
                module.body.requires_grad_(False)
            changed = leave_out_attention_dropout(module, [len(row) for row in train.ids])
            log = fit(
                module,
                train,
                stop,
                label_loss,
                settings,
                pad_id=int(candidate.settings.get("pad_id", 0)),
                seed=seed,
                deadline=deadline,
                progress=context.progress,
            )
            if self.mode == "lora":
                _merge(module)
        return module, msgspec.structs.replace(log, attention_dropout=changed)

    def _notes(self, logs: list[FitLog]) -> dict[str, Any]:
        """What was measured, on the half of dev that also stopped the training."""
        full = logs[: self.seeds]
        notes: dict[str, Any] = {"training": msgspec.to_builtins(full[0])}
        reached = [log.best_accuracy for log in full if log.best_accuracy is not None]
        if self.seeds > 1 and reached:
            notes["seeds"] = {"dev_fit_accuracies": reached, "spread": max(reached) - min(reached)}
        if self.curve:
            shares = [share for share in self.curve if share < 1]
            notes["curve"] = [
                {"train_share": share, "dev_fit_accuracy": log.best_accuracy}
                # Fewer where the deadline cut the curve short.
                for share, log in [*zip(shares, logs[self.seeds :], strict=False), (1.0, full[0])]
            ]
        return notes


def labelled_rows(candidate: Candidate, examples: tuple[Example, ...]) -> Rows:
    """Tokenized examples whose label the candidate knows."""
    known = [e for e in examples if e.expected in candidate.labels]
    return Rows(
        ids=tokenized(candidate, [e.input for e in known]),
        targets=label_targets([e.expected for e in known], candidate.labels),
    )


def label_loss(module: Any, ids: Any, mask: Any, part: Rows, batch: Rows) -> Any:
    """A part's share of the batch's mean cross-entropy against the labels, in nats."""
    return labels_share(module(ids, mask).float(), part, batch)


def labels_share(logits: Any, part: Rows, batch: Rows) -> Any:
    """The same, of logits of shape (n, n_labels); rows without a label do not count."""
    import torch

    nats = torch.nn.functional.cross_entropy(
        logits, torch.from_numpy(part.targets), ignore_index=-1, reduction="sum"
    )
    return nats / max(1, int((batch.targets >= 0).sum()))


def _adapt(module: Any, rank: int) -> None:
    """Freeze the body and put low-rank changes on its attention; the head trains in full."""
    peft = need("peft", "torch")
    names = list(anatomy_of(module.config).adapted)
    config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=names)
    with warnings.catch_warnings():
        # peft 0.21 still asks for a property that transformers 5.23 renamed.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        adapted = peft.get_peft_model(module.body, config)
    _set_body(module, adapted)


def _merge(module: Any) -> None:
    """Add the low-rank changes to the weights they adapt."""
    pooled = hasattr(module, "head")
    adapted = module.encoder if pooled else getattr(module.model, module.model.base_model_prefix)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        _set_body(module, adapted.merge_and_unload())


def _set_body(module: Any, body: Any) -> None:
    if hasattr(module, "head"):
        module.encoder = body
    else:
        setattr(module.model, module.model.base_model_prefix, body)


def _stratified(targets: np.ndarray, share: float, seed: int) -> np.ndarray:
    """A share of each label's examples, at least one."""
    rng = np.random.default_rng(seed)
    chosen = []
    for target in np.unique(targets):
        members = rng.permutation(np.flatnonzero(targets == target))
        chosen.append(members[: max(1, round(share * len(members)))])
    return np.sort(np.concatenate(chosen))
