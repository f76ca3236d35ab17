"""The training loop of fine-tuning and distillation: sorted batches, one-cycle, early stopping."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from jettison.backends.text import length_sorted_batches, load_tokenizer, truncation_side
from jettison.candidate import Candidate
from jettison.compress.deadline import Deadline
from jettison.compress.pace import Pace
from jettison.compress.passes import Passes
from jettison.compress.step import check_time_left
from jettison.errors import StepFailed

POOL = 16
"""Batches drawn together and sorted by length, so that little is padded."""


class FitSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a module is fitted."""

    epochs: int
    learning_rate: float
    batch_size: int = 32
    patience: int = 3
    """Evaluations without a better one after which it stops."""
    weight_decay: float = 0.01
    warmup_share: float = 0.1
    evaluations: int = 1
    """Times per epoch that the stopping examples are looked at."""
    bfloat16: bool = False
    """Multiply in bfloat16, as some CPUs do several times faster; weights stay float32."""


class FitLog(msgspec.Struct, frozen=True, kw_only=True):
    """What a fit did."""

    losses: tuple[float, ...]
    """Mean training loss between evaluations."""
    dev_accuracies: tuple[float, ...]
    """Share of the stopping examples right, at each evaluation; empty without such examples."""
    best_accuracy: float | None
    n_steps: int
    stopped: Literal["finished", "early", "deadline"]
    attention_dropout: str | None = None
    """What was changed of it, and why; None where nothing was."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Tokenized examples."""

    ids: Sequence[Sequence[int]]
    targets: np.ndarray
    """Index of the right label, shape (n,), int64; -1 where nobody has said."""
    teacher: np.ndarray | None = None
    """Logits of the teacher, shape (n, n_labels)."""

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, index: np.ndarray) -> "Rows":
        """The examples at these places."""
        teacher = None if self.teacher is None else self.teacher[index]
        return Rows(ids=[self.ids[i] for i in index], targets=self.targets[index], teacher=teacher)


def fit(
    module: Any,
    train: Rows,
    stop: Rows,
    loss: Callable[[Any, Any, Any, Rows, Rows], Any],
    settings: FitSettings,
    *,
    pad_id: int,
    seed: int,
    deadline: Deadline | None = None,
    progress: Callable[[str, float | None], None],
) -> FitLog:
    """Train a module in place and leave it, in eval mode, as it was when it was best.

    Args:
        module: Gives logits for ids and mask.
        train: What it learns from.
        stop: What early stopping looks at; empty keeps the last state.
        loss: Of (module, ids, mask, the part's rows, the batch's rows), the part's share of the batch's
            loss, a scalar tensor. A batch goes through in parts where its activations would fill memory.
        settings: Epochs, learning rate and so on.
        pad_id: Token that fills short rows.
        seed: Of the batches; dropout takes torch's own state.
        deadline: When it ends with the best so far.
        progress: Called with a phrase and the share done.

    Raises:
        StepFailed: The loss became infinite or no number.
        OutOfTime: The deadline is over before it starts.
    """
    import torch

    check_time_left(deadline)
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    lengths = np.array([len(row) for row in train.ids])
    per_epoch = -(-len(train) // settings.batch_size)
    total = max(1, settings.epochs * per_epoch)
    every = max(1, per_epoch // max(1, settings.evaluations))
    keeper = _Keeper(module, stop, pad_id, settings.bfloat16)
    passes = Passes(module)

    def share_of_loss(batch: Rows, part: Rows) -> Any:
        ids, mask = pad_rows(part.ids, pad_id)
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.bfloat16):
            return loss(module, ids, mask, part, batch)

    rng = np.random.default_rng(seed)
    losses: list[float] = []
    running: list[float] = []
    stopped: Literal["finished", "early", "deadline"] = "finished"
    pace, step = Pace(total, deadline), 0
    module.train()
    while step < total and stopped == "finished":
        for index in shuffled_batches(lengths, settings.batch_size, rng):
            share = pace.place(step) / total
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * one_cycle(share, settings.warmup_share)
            optimizer.zero_grad(set_to_none=True)
            value = passes.backward(batch := train.take(index), partial(share_of_loss, batch))
            running.append(finite_loss(value, step, settings))
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            step += 1
            late = step < total and deadline is not None and deadline.is_over()
            if step % every == 0 or step == total or late:
                losses.append(float(np.mean(running)))
                running = []
                keeper.look()
                stopped = (
                    "deadline" if late else "early" if keeper.n_worse >= settings.patience else stopped
                )
                best = "" if keeper.best is None else f", {keeper.best[0]:.1%} of dev right"
                progress(f"training: loss {losses[-1]:.3f}{best}", min(1.0, step / total))
            if stopped != "finished":
                break
    keeper.restore()
    return FitLog(
        losses=tuple(losses),
        dev_accuracies=tuple(keeper.accuracies),
        best_accuracy=None if keeper.best is None else keeper.best[0],
        n_steps=step,
        stopped=stopped,
    )


class _Keeper:
    """Keeps the weights that were best on the stopping examples."""

    def __init__(self, module: Any, stop: Rows, pad_id: int, bfloat16: bool) -> None:
        self.module, self.stop, self.pad_id, self.bfloat16 = module, stop, pad_id, bfloat16
        self.best: tuple[float, float] | None = None
        self.accuracies: list[float] = []
        self.n_worse = 0
        self._state: dict[str, Any] = {}

    def look(self) -> None:
        """Judge the module as it is now."""
        if len(self.stop) == 0:
            return
        self.module.eval()
        judged = judge(self.module, self.stop, self.pad_id, bfloat16=self.bfloat16)
        self.module.train()
        self.accuracies.append(judged[0])
        if self.best is None or (judged[0], -judged[1]) > (self.best[0], -self.best[1]):
            self.best, self.n_worse = judged, 0
            self._state = {name: t.detach().clone() for name, t in self.module.state_dict().items()}
        else:
            self.n_worse += 1

    def restore(self) -> None:
        """Give the module its best weights back."""
        if self._state:
            self.module.load_state_dict(self._state)
        self.module.eval()


def judge(module: Any, rows: Rows, pad_id: int, *, bfloat16: bool = False) -> tuple[float, float]:
    """Share of the labelled rows right, and their mean cross-entropy; the module is in eval mode."""
    logits = predict_rows(module, rows.ids, pad_id, bfloat16=bfloat16)
    known = rows.targets >= 0
    if not known.any():
        return 0.0, math.inf
    scores, targets = logits[known].astype(np.float64), rows.targets[known]
    top = scores.max(axis=1, keepdims=True)
    log_norm = top[:, 0] + np.log(np.exp(scores - top).sum(axis=1))
    right = float((scores.argmax(axis=1) == targets).mean())
    return right, float((log_norm - scores[np.arange(len(scores)), targets]).mean())


def predict_rows(
    module: Any, ids: Sequence[Sequence[int]], pad_id: int, *, bfloat16: bool = False
) -> np.ndarray:
    """Logits of tokenized texts, shape (n, n_labels), float32, in their order."""
    import torch

    found: np.ndarray | None = None
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        for batch in length_sorted_batches([len(row) for row in ids], 64):
            rows, mask = pad_rows([ids[i] for i in batch], pad_id)
            logits = module(rows, mask).float().numpy()
            if found is None:
                found = np.empty((len(ids), logits.shape[1]), np.float32)
            found[batch] = logits
    return np.empty((0, 0), np.float32) if found is None else found


def tokenized(candidate: Candidate, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of texts as a candidate reads them, not padded."""
    max_tokens = int(candidate.settings.get("max_tokens", 512))
    return tokenize(candidate.path, texts, max_tokens, side=truncation_side(candidate.settings))


def tokenize(
    folder: Path, texts: Sequence[str], max_tokens: int, *, side: str = "right"
) -> list[list[int]]:
    """Token ids of texts, special tokens included, cut on one side (`right` or `left`), not padded."""
    tokenizer = load_tokenizer(folder / "tokenizer.json")
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length=max_tokens, direction=side)
    return [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]


def pad_rows(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[Any, Any]:
    """Ids and mask, two int64 tensors of shape (n, n_tokens)."""
    import torch

    width = max(1, *(len(row) for row in rows), 1)
    ids = np.full((len(rows), width), pad_id, np.int64)
    mask = np.zeros((len(rows), width), np.int64)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = row
        mask[number, : len(row)] = 1
    return torch.from_numpy(ids), torch.from_numpy(mask)


def label_targets(expected: Sequence[str | None], labels: Sequence[str]) -> np.ndarray:
    """Index of each expected label, shape (n,), int64; -1 where there is none among the labels."""
    number = {label: index for index, label in enumerate(labels)}
    return np.array([-1 if e is None else number.get(e, -1) for e in expected], np.int64)


def shuffled_batches(
    lengths: np.ndarray, batch_size: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Every index once, in random batches of like length."""
    order = rng.permutation(len(lengths))
    for start in range(0, len(order), batch_size * POOL):
        pool = order[start : start + batch_size * POOL]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        batches = [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
        for number in rng.permutation(len(batches)):
            yield batches[number]


def one_cycle(share: float, warmup_share: float) -> float:
    """Learning rate as a share of its peak: a linear rise, then a cosine to nearly nothing."""
    if share < warmup_share:
        return max(0.02, share / warmup_share)
    rest = (share - warmup_share) / max(1e-9, 1 - warmup_share)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, rest)))


def finite_loss(value: float, step: int, settings: FitSettings) -> float:
    """A training loss, or an error that says it diverged."""
    if not math.isfinite(value):
        raise StepFailed(
            f"the training loss must stay finite, got {value} at step {step} "
            f"(learning rate {settings.learning_rate:g}). Lower the learning rate."
        )
    return value
