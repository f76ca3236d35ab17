"""Fits a static student to a teacher's logits: seeded, stopped early, ended by the deadline."""

import math
from collections.abc import Callable, Iterator

import msgspec
import numpy as np
import torch
from torch.nn import functional

from jettison.compress.deadline import Deadline
from jettison.compress.pace import Pace
from jettison.compress.step import check_time_left
from jettison.compress.student import StaticStudent
from jettison.errors import StepFailed


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """How to train."""

    epochs: int
    batch_size: int
    learning_rate: float
    temperature: float
    """Both sides' logits are divided by it before they are compared. Hinton et al. 2015."""
    gold_weight: float
    """Weight of the cross entropy on known labels beside the teacher's distribution."""
    patience: int
    """Epochs without a better dev score after which training stops."""
    seed: int
    deadline: Deadline | None
    bfloat16: bool = False
    """Multiply in bfloat16; weights, pooling and losses stay float32."""


class Lesson(msgspec.Struct, frozen=True, kw_only=True):
    """Texts to learn from or to watch, as arrays of one row a text."""

    ids: np.ndarray
    """Shape (n, longest), int64, padded behind `lengths`."""
    lengths: np.ndarray
    """Shape (n,), at least 1."""
    teacher: np.ndarray
    """The teacher's logits, shape (n, n_labels); of the texts to watch they are not read."""
    gold: np.ndarray
    """Index of the known label, shape (n,); -1 where nobody has said."""


class Fitted(msgspec.Struct, frozen=True, kw_only=True):
    """What came of training."""

    epochs: int
    """Run, the last perhaps in part."""
    best_epoch: int | None
    dev_accuracy: float | None
    stopped_by: str
    """`schedule`, `patience` or `deadline`."""
    losses: tuple[float, ...]
    """Mean of each whole epoch."""


def fit(
    student: StaticStudent,
    lesson: Lesson,
    dev: Lesson,
    schedule: Schedule,
    *,
    progress: Callable[[str, float | None], None],
) -> Fitted:
    """Train in place and leave the student at its best epoch on `dev`.

    Best is the highest accuracy on dev, then the lowest cross entropy. With no dev texts it is
    the last epoch.

    Raises:
        StepFailed: The loss stopped being a number.
        OutOfTime: The deadline is over before it starts.
    """
    check_time_left(schedule.deadline)
    rng = np.random.default_rng(schedule.seed)
    dense = torch.optim.AdamW(student.parameters(), schedule.learning_rate, weight_decay=0.01, fused=True)
    steps = schedule.epochs * max(1, math.ceil(len(lesson.gold) / schedule.batch_size))
    pace = Pace(steps, schedule.deadline)
    warmup = min(100, max(1, steps // 10))
    step, best, best_epoch, kept, losses = 0, (-1.0, -math.inf), None, None, list[float]()
    stopped_by, epoch = "schedule", 0
    for epoch in range(1, schedule.epochs + 1):
        student.train()
        total = 0.0
        for rows in length_batches(lesson.lengths, schedule.batch_size, rng):
            if schedule.deadline is not None and schedule.deadline.is_over():
                stopped_by = "deadline"
                break
            place = pace.place(step)
            share = min(1.0, (step + 1) / warmup) * (0.02 + 0.49 * (1 + math.cos(math.pi * place / steps)))
            for group in dense.param_groups:
                group["lr"] = schedule.learning_rate * share
            total += _train_step(student, lesson, rows, schedule, dense, epoch) * len(rows)
            step += 1
        else:
            losses.append(total / len(lesson.gold))
        score = dev_score(student, dev)
        if score is None or score > best:
            best, best_epoch = score or best, epoch
            kept = {name: value.clone() for name, value in student.state_dict().items()}
        said = "" if score is None else f", dev accuracy {score[0]:.4f}"
        progress(f"epoch {epoch} of {schedule.epochs}{said}", epoch / schedule.epochs)
        if stopped_by == "deadline":
            break
        if best_epoch is not None and epoch - best_epoch >= schedule.patience:
            stopped_by = "patience"
            break
    if kept is not None:
        student.load_state_dict(kept)
    return Fitted(
        epochs=epoch,
        best_epoch=best_epoch,
        dev_accuracy=best[0] if best[0] >= 0 else None,
        stopped_by=stopped_by,
        losses=tuple(losses),
    )


def _train_step(
    student: StaticStudent,
    lesson: Lesson,
    rows: np.ndarray,
    schedule: Schedule,
    optimizer: torch.optim.Optimizer,
    epoch: int,
) -> float:
    """One batch: KL divergence to the teacher, cross entropy where the label is known. Gives the loss."""
    lengths = lesson.lengths[rows]
    ids = torch.from_numpy(lesson.ids[rows][:, : lengths.max()])
    with torch.autocast("cpu", torch.bfloat16, enabled=schedule.bfloat16):
        logits = student(ids, torch.from_numpy(lengths)).float()
    t = schedule.temperature
    taught = functional.log_softmax(torch.from_numpy(lesson.teacher[rows]) / t, 1)
    learnt = functional.log_softmax(logits / t, 1)
    loss = functional.kl_div(learnt, taught, log_target=True, reduction="batchmean") * t * t
    gold = torch.from_numpy(lesson.gold[rows])
    if schedule.gold_weight and bool((gold >= 0).any()):
        loss = loss + schedule.gold_weight * functional.cross_entropy(logits, gold, ignore_index=-1)
    value = float(loss.item())
    if not math.isfinite(value):
        raise StepFailed(
            f"the student's loss must stay finite, got {value} in epoch {epoch}. "
            "Lower `learning_rate`, or look at the teacher's logits."
        )
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(student.parameters(), 5.0)
    optimizer.step()
    return value


@torch.inference_mode()  # type: ignore[untyped-decorator]  # as above
def dev_score(student: StaticStudent, dev: Lesson) -> tuple[float, float] | None:
    """Accuracy on the texts with a known label, and minus the cross entropy; None without such texts."""
    rows = np.flatnonzero(dev.gold >= 0)
    if not len(rows):
        return None
    student.eval()
    logits = torch.cat(
        [
            student(torch.from_numpy(dev.ids[part]), torch.from_numpy(dev.lengths[part]))
            for part in np.array_split(rows, max(1, len(rows) // 256))
        ]
    )
    gold = torch.from_numpy(dev.gold[rows])
    accuracy = (logits.argmax(1) == gold).float().mean().item()
    return accuracy, -functional.cross_entropy(logits, gold).item()


def length_batches(lengths: np.ndarray, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Random batches of rows of like length: sorted within pools of eight batches."""
    order = rng.permutation(len(lengths))
    for start in range(0, len(order), 8 * size):
        pool = order[start : start + 8 * size]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        batches = [pool[first : first + size] for first in range(0, len(pool), size)]
        yield from (batches[index] for index in rng.permutation(len(batches)))
