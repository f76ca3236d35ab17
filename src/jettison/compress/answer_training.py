"""Trains a causal language model on answers: loss on the answer's tokens alone, early stopping on dev."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import msgspec
import numpy as np

from jettison.backends.text import length_sorted_batches
from jettison.compress.answer_rows import AnswerRows
from jettison.compress.deadline import Deadline
from jettison.compress.pace import Pace
from jettison.compress.passes import Passes
from jettison.compress.step import check_time_left
from jettison.compress.training import FitSettings, finite_loss, one_cycle, shuffled_batches

Loss = Callable[[Any, AnswerRows, int, AnswerRows], Any]
"""Of (model, part of a batch, pad id, the batch), the part's share of the batch's loss, a scalar tensor."""
Judge = Callable[[Any, AnswerRows, int], float]
"""Of (model in eval mode, rows, pad id), what early stopping wants small."""


class AnswerLog(msgspec.Struct, frozen=True, kw_only=True):
    """What a fit did."""

    losses: tuple[float, ...]
    """Mean training loss between looks at dev."""
    dev_losses: tuple[float, ...]
    """What early stopping looked at, before training and at each look: of dev's answers the mean negative
    log-likelihood a token, in nats, or the divergence from a teacher."""
    best_dev_loss: float | None
    """None without dev examples: the last state was then kept."""
    best_look: int | None
    """Which of `dev_losses` was kept; 0 is the untrained model."""
    n_steps: int
    stopped: Literal["finished", "early", "deadline"]


def fit_answers(
    model: Any,
    train: AnswerRows,
    stop: AnswerRows,
    loss: Loss,
    settings: FitSettings,
    *,
    pad_id: int,
    seed: int,
    deadline: Deadline | None,
    progress: Callable[[str, float | None], None],
    judge: Judge | None = None,
    beside: "Beside | None" = None,
) -> AnswerLog:
    """Train a model in place and leave it, in eval mode, as it was when it was best on dev.

    Args:
        model: Of `AutoModelForCausalLM`, adapted or not.
        train: What it learns from.
        stop: What early stopping looks at; empty keeps the last state.
        loss: `answer_loss` or a distillation's.
        settings: Epochs, learning rate and so on.
        pad_id: Token that fills short rows.
        seed: Of the batches; dropout takes torch's own state.
        deadline: When it ends with the best so far.
        progress: Called with a phrase and the share done.
        judge: What is best on dev; None takes `mean_answer_loss`.
        beside: Right answers that are learned beside.

    Raises:
        StepFailed: The loss became infinite or no number.
        OutOfTime: The deadline is over before it starts.
    """
    import torch

    check_time_left(deadline)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    per_epoch = -(-len(train) // settings.batch_size)
    total = max(1, settings.epochs * per_epoch)
    every = max(1, per_epoch // max(1, settings.evaluations))
    keeper = _Keeper(model, stop, pad_id, judge or mean_answer_loss)
    keeper.look()
    rng, lengths = np.random.default_rng(seed), np.array([len(row) for row in train.ids])
    losses: list[float] = []
    running: list[float] = []
    stopped: Literal["finished", "early", "deadline"] = "finished"
    pace, step = Pace(total, deadline), 0
    device = next(model.parameters()).device.type
    passes = Passes(model)

    def share(of: Loss, batch: AnswerRows, part: AnswerRows) -> Any:
        with torch.autocast(device, torch.bfloat16, enabled=settings.bfloat16):
            return of(model, part, pad_id, batch)

    model.train()
    while step < total and stopped == "finished":
        for index in shuffled_batches(lengths, settings.batch_size, rng):
            rate = settings.learning_rate * one_cycle(pace.place(step) / total, settings.warmup_share)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad(set_to_none=True)
            batch = train.take(index)
            value = passes.backward(batch, partial(share, loss, batch), batch.n_scored)
            if beside is not None:
                batch = beside.draw()
                value += passes.backward(batch, partial(share, beside.loss, batch), batch.n_scored)
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
                progress(f"training: loss {losses[-1]:.3f}", min(1.0, step / total))
            if stopped != "finished":
                break
    keeper.restore()
    return AnswerLog(
        losses=tuple(losses),
        dev_losses=tuple(keeper.losses),
        best_dev_loss=keeper.best,
        best_look=None if keeper.best is None else keeper.losses.index(keeper.best),
        n_steps=step,
        stopped=stopped,
    )


class Beside:
    """Right answers that are learned beside what is fitted: at each step a batch drawn of them.

    Args:
        rows: The answers, at least one.
        weight: Of their loss, beside the other.
        size: Rows a batch, at most.
        seed: Of the draw.
    """

    def __init__(self, rows: AnswerRows, weight: float, size: int, seed: int) -> None:
        self._rows, self._weight, self._size = rows, weight, min(size, len(rows))
        self._rng = np.random.default_rng(seed)

    def draw(self) -> AnswerRows:
        """The next batch."""
        return self._rows.take(self._rng.integers(0, len(self._rows), self._size))

    def loss(self, model: Any, rows: AnswerRows, pad_id: int, batch: AnswerRows) -> Any:
        """Weighted share of a part in the batch's `answer_loss`."""
        return self._weight * answer_loss(model, rows, pad_id, batch)


class _Keeper:
    """Keeps the trained weights that were best on dev."""

    def __init__(self, model: Any, stop: AnswerRows, pad_id: int, judge: Judge) -> None:
        self.model, self.stop, self.pad_id, self.judge = model, stop, pad_id, judge
        self.best: float | None = None
        self.losses: list[float] = []
        self.n_worse = 0
        self._state: dict[str, Any] = {}

    def look(self) -> None:
        """Judge the model as it is now."""
        if len(self.stop) == 0:
            return
        self.model.eval()
        loss = self.judge(self.model, self.stop, self.pad_id)
        self.model.train()
        self.losses.append(loss)
        if self.best is None or loss < self.best:
            self.best, self.n_worse = loss, 0
            self._state = {
                n: p.detach().clone() for n, p in self.model.named_parameters() if p.requires_grad
            }
        else:
            self.n_worse += 1

    def restore(self) -> None:
        """Give the model its best weights back."""
        import torch

        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if name in self._state:
                    parameter.copy_(self._state[name])
        self.model.eval()


def last_logits(model: Any, ids: Any, mask: Any, n_last: int) -> Any:
    """Logits that predict the last `n_last` tokens of each row, shape (n, n_last, n_vocabulary).

    Rows are padded on the right, so that every token sees at least itself. Padded on the left, low-rank
    training of a small Llama in bfloat16 on an H200 came to NaN at its second step.
    """
    places = last_places(mask, n_last) - 1
    head = model.get_output_embeddings()

    def keep(_: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (_gathered(inputs[0], places), *inputs[1:])

    # Of a large vocabulary the logits of all places would not fit, and the places differ by row.
    handle = head.register_forward_pre_hook(keep)
    try:
        out = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
            use_cache=False,
        )
    finally:
        handle.remove()
    return out.logits.float()


def last_places(mask: Any, n_last: int) -> Any:
    """Places of the last `n_last` tokens of right-padded rows, shape (n, n_last).

    None is below 1, since nothing predicts a first token: short rows repeat their second.
    """
    import torch

    back = torch.arange(n_last, device=mask.device)[None, :] - n_last
    return (mask.sum(-1, keepdim=True) + back).clamp(min=1)


def _gathered(hidden: Any, places: Any) -> Any:
    return hidden.gather(1, places[:, :, None].expand(-1, -1, hidden.shape[-1]))


def pad_right(rows: AnswerRows, pad_id: int, device: str) -> tuple[Any, Any]:
    """Ids and mask, two int64 tensors of shape (n, n_tokens)."""
    import torch

    width = max(len(row) for row in rows.ids)
    ids = np.full((len(rows), width), pad_id, np.int64)
    mask = np.zeros((len(rows), width), np.int64)
    for number, row in enumerate(rows.ids):
        ids[number, : len(row)] = row
        mask[number, : len(row)] = 1
    return torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device)


def answer_loss(model: Any, rows: AnswerRows, pad_id: int, batch: AnswerRows) -> Any:
    """Share of rows in their batch's mean cross-entropy of answer tokens, in nats; prompts don't count."""
    nats, _ = _answer_nats(model, rows, pad_id)
    return nats.sum() / int(batch.n_answer.sum())


def _answer_nats(model: Any, rows: AnswerRows, pad_id: int) -> tuple[Any, Any]:
    """Negative log-likelihood of each of the last tokens, 0 outside of answers, and which are inside."""
    import torch

    device = str(next(model.parameters()).device)
    ids, mask = pad_right(rows, pad_id, device)
    longest = int(rows.n_answer.max())
    logits = last_logits(model, ids, mask, longest)
    places = torch.arange(longest, device=device)[None, :]
    counts = torch.from_numpy(rows.n_answer).to(device)[:, None]
    inside = places >= longest - counts
    asked = ids.gather(1, last_places(mask, longest))
    nats = torch.nn.functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1]), asked.reshape(-1), reduction="none"
    ).reshape(inside.shape)
    return nats * inside, inside


def mean_answer_loss(model: Any, rows: AnswerRows, pad_id: int) -> float:
    """Mean negative log-likelihood a token of the answers, in nats; the model is in eval mode."""
    import torch

    total = 0.0
    with torch.inference_mode():
        for batch in length_sorted_batches([len(row) for row in rows.ids], 16):
            nats, _ = _answer_nats(model, rows.take(np.asarray(batch)), pad_id)
            total += float(nats.sum())
    return total / max(1, int(rows.n_answer.sum()))
