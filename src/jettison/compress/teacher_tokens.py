"""What a local teacher answers to prompts, and what else it found likely: computed once, kept on disk.

Of each of the last tokens the k likeliest and their log-probabilities are kept; the rest of the
vocabulary is one lump. Kullback-Leibler divergence over the k + 1 parts is at most the whole one,
and is the whole one where k is the vocabulary.
"""

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from jettison.backends.causal import CausalEngine
from jettison.backends.prompted import open_prompted
from jettison.backends.text import length_sorted_batches
from jettison.candidate import Candidate
from jettison.compress.answer_rows import NAMED, AnswerRows, PromptTokens, TopTokens, answer_said
from jettison.compress.answer_training import last_logits, pad_right
from jettison.compress.causal import device_of, load_causal
from jettison.compress.step import StepContext
from jettison.errors import StepFailed
from jettison.files import value_sha256, write_atomic
from jettison.task import Input, Question

CHUNK = 64
"""Prompts a file; a killed run loses at most so many."""


class TeacherTokens(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of a teacher."""

    temperature: float
    top_k: int
    prompt_tokens: int
    """Of each prompt, how many of the last tokens are taught beside the answer."""
    max_tokens: int
    other_answers: int = 0
    """Of a task whose answers are labels or choices, how many others are taught beside the teacher's own:
    a student must find them as unlikely as the teacher does."""


def taught_rows(
    teacher: Candidate, context: StepContext, inputs: Sequence[Input], asked: TeacherTokens
) -> AnswerRows:
    """Prompts with the teacher's own answers, and its likeliest tokens at the end of each row.

    Rows follow the inputs, an input's other answers behind its own. `n_answer` counts the answer's
    tokens; `teacher` holds as many places more as `prompt_tokens` says, where the prompt is that long.

    Raises:
        StepFailed: The teacher fails on an input.
    """
    chunks = [list(inputs[start : start + CHUNK]) for start in range(0, len(inputs), CHUNK)]
    identity = [teacher.digest, msgspec.to_builtins(asked)]
    folder = context.workspace / "teacher-tokens"
    paths = [folder / f"{value_sha256([*identity, msgspec.to_builtins(c)])[:24]}.npz" for c in chunks]
    found: list[AnswerRows | None] = [_read(path) for path in paths]
    if any(rows is None for rows in found):
        running = _Teacher(teacher, context, asked)
        for number, chunk in enumerate(chunks):
            if found[number] is None:
                found[number] = made = running.answers(chunk)
                _write(paths[number], made)
            context.progress("asking the teacher", (number + 1) / len(chunks))
    rows = [one for one in found if one is not None]
    return AnswerRows(
        ids=[ids for one in rows for ids in one.ids],
        n_answer=np.concatenate([np.empty(0, np.int64), *(one.n_answer for one in rows)]),
        teacher=[top for one in rows for top in one.teacher or ()],
    )


class _Teacher:
    """A teacher in memory."""

    def __init__(self, teacher: Candidate, context: StepContext, asked: TeacherTokens) -> None:
        self.asked = asked
        self.kind = str(teacher.settings.get("kind", context.data.kind))
        self.labels = teacher.labels
        self.device = device_of(teacher)
        self.module: Any = load_causal(teacher).to(self.device)
        settings = {**teacher.settings, "threads": context.threads}
        ready = msgspec.structs.replace(teacher, settings=settings)
        self.model = open_prompted(CausalEngine(ready, loaded=self.module), ready)
        self.tokens = PromptTokens(teacher, asked.max_tokens)

    def answers(self, inputs: list[Input]) -> AnswerRows:
        """The teacher's answers to some inputs, and its likeliest tokens."""
        outputs = self.model.predict(inputs)
        failed = next((o.error for o in outputs if o.error is not None), None)
        if failed is not None:
            raise StepFailed(f"a teacher must answer every input, got an error: {failed}.")
        pairs = []
        for one, output in zip(inputs, outputs, strict=True):
            said = answer_said(output.label, one, self.kind)
            pairs += [(one, said), *((one, other) for other in self._others(one, said))]
        rows = self.tokens.rows(pairs)
        found: list[TopTokens] = []
        for start in range(0, len(rows), 8):
            found += self._top(rows.take(np.arange(start, min(start + 8, len(rows)))))
        return AnswerRows(ids=rows.ids, n_answer=rows.n_answer, teacher=found)

    def _others(self, asked: Input, said: str) -> list[str]:
        """Some of the answers that the teacher did not give, always the same ones for an input."""
        if self.kind not in NAMED:
            return []
        text, options = (asked.text, asked.choices) if isinstance(asked, Question) else (asked, self.labels)
        rest = [option for option in options if option != said]
        rng = np.random.default_rng(list(text.encode("utf-8", "surrogatepass")))
        return [rest[i] for i in rng.permutation(len(rest))[: self.asked.other_answers]]

    def _top(self, rows: AnswerRows) -> list[TopTokens]:
        import torch

        places = taught_places(rows, self.asked.prompt_tokens)
        ids, mask = pad_right(rows, self.tokens.pad_id, self.device)
        with torch.inference_mode():
            logits = last_logits(self.module, ids, mask, int(places.max()))
            logprobs = torch.log_softmax(logits / self.asked.temperature, -1)
            top = logprobs.topk(min(self.asked.top_k, logprobs.shape[-1]), -1)
        return [
            TopTokens(
                ids=top.indices[row, -n:].cpu().numpy().astype(np.int32),
                logprobs=top.values[row, -n:].cpu().numpy().astype(np.float32),
            )
            for row, n in enumerate(places.tolist())
        ]


def taught_places(rows: AnswerRows, prompt_tokens: int) -> np.ndarray:
    """How many of each row's last tokens are taught, shape (n,); the first token has nothing before it."""
    lengths = np.array([len(ids) for ids in rows.ids])
    return np.asarray(np.minimum(rows.n_answer + prompt_tokens, lengths - 1))


def teacher_loss(
    model: Any, rows: AnswerRows, pad_id: int, batch: AnswerRows, *, temperature: float
) -> Any:
    """Share of rows in their batch's mean divergence from the teacher, in nats times temperature squared.

    The mean is over the places that are taught.

    Source: Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", section 2.
    """
    import torch

    assert rows.teacher is not None
    device = str(next(model.parameters()).device)
    places = np.array([len(top.ids) for top in rows.teacher])
    longest, k = int(places.max()), min(top.ids.shape[1] for top in rows.teacher)
    ids = np.zeros((len(rows), longest, k), np.int64)
    taught = np.zeros((len(rows), longest, k), np.float32)
    inside = np.zeros((len(rows), longest), np.float32)
    for row, (top, n) in enumerate(zip(rows.teacher, places.tolist(), strict=True)):
        ids[row, longest - n :], taught[row, longest - n :] = top.ids[:, :k], top.logprobs[:, :k]
        inside[row, longest - n :] = 1.0
    given, mask = pad_right(rows, pad_id, device)
    logits = last_logits(model, given, mask, longest)
    ours = torch.log_softmax(logits / temperature, -1).gather(-1, torch.from_numpy(ids).to(device))
    divergence = lumped_divergence(torch.from_numpy(taught).to(device), ours)
    weight = torch.from_numpy(inside).to(device)
    n_taught = sum(len(top.ids) for top in batch.teacher or ())
    return (divergence * weight).sum() / n_taught * temperature**2


def mean_divergence(model: Any, rows: AnswerRows, pad_id: int, *, temperature: float) -> float:
    """Mean divergence a taught token of the model from the teacher, in nats, at the temperature taught."""
    import torch

    assert rows.teacher is not None
    places = np.array([len(top.ids) for top in rows.teacher])
    total = 0.0
    with torch.inference_mode():
        for index in length_sorted_batches([len(row) for row in rows.ids], 8):
            part = rows.take(index)
            loss = teacher_loss(model, part, pad_id, part, temperature=temperature)
            total += float(loss) * int(places[index].sum())
    return total / max(1, int(places.sum())) / temperature**2


def lumped_divergence(reference: Any, other: Any) -> Any:
    """KL(reference || other) over the k tokens of the last axis and the lump of all others, in nats."""
    import torch

    tiny = 1e-7
    p, q = reference.exp(), other.exp()
    rest_p = (1.0 - p.sum(-1)).clamp(min=tiny)
    rest_q = (1.0 - q.sum(-1)).clamp(min=tiny)
    lump = rest_p * (torch.log(rest_p) - torch.log(rest_q))
    return ((p * (reference - other)).sum(-1) + lump).clamp(min=0.0)


def _write(path: Path, rows: AnswerRows) -> None:
    tops = rows.teacher or ()
    buffer = io.BytesIO()
    np.savez(
        buffer,
        ids=np.concatenate([np.asarray(ids, np.int32) for ids in rows.ids]),
        lengths=np.array([len(ids) for ids in rows.ids], np.int32),
        n_answer=rows.n_answer,
        places=np.array([len(top.ids) for top in tops], np.int32),
        top_ids=np.concatenate([top.ids for top in tops]),
        top_logprobs=np.concatenate([top.logprobs for top in tops]),
    )
    write_atomic(path, buffer.getvalue())


def _read(path: Path) -> AnswerRows | None:
    """Rows kept before; None where there are none or the file is damaged."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as kept:
            ids = np.split(kept["ids"], np.cumsum(kept["lengths"])[:-1])
            ends = np.cumsum(kept["places"])[:-1]
            tops = zip(np.split(kept["top_ids"], ends), np.split(kept["top_logprobs"], ends), strict=True)
            return AnswerRows(
                ids=[row.tolist() for row in ids],
                n_answer=kept["n_answer"],
                teacher=[TopTokens(ids=top, logprobs=logprobs) for top, logprobs in tops],
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
