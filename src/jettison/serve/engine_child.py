"""A child process that holds one model: reads asks from a socket, batches them, answers.

`python -m jettison.serve.engine_child FD MAX_BATCH MAX_WAIT_S KIND FOLDER`. Frames are a length in four
bytes, little-endian, and MessagePack. The process ends when its parent's end of the socket closes.
"""

import contextlib
import os
import queue
import socket
import struct
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from jettison.serve.spending import Spending

HEAD = struct.Struct("<I")
MOST_FRAME_BYTES = 256 * 2**20


class Asked(msgspec.Struct, array_like=True):
    """From the gateway."""

    id: int
    op: str
    """`predict`, `complete` or `embed`."""
    inputs: list[Any]


class Told(msgspec.Struct, array_like=True):
    """To the gateway: one answer an input, or why there is none."""

    id: int
    answers: list["WireAnswer"] = []
    vectors: list[list[float]] = []
    error: str | None = None
    is_refused: bool = False
    """Whether the error is the input's own fault."""


class WireAnswer(msgspec.Struct, array_like=True):
    """An `Output` or a `Completion` on its way."""

    text: str
    confidence: float | None = None
    in_scope: float | None = None
    flagged: bool | None = None
    logits: list[float] | None = None
    finish: str = "stop"
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    error: str | None = None
    arm: str | None = None
    escalated: bool = False
    cpu_s: float | None = None
    """A share of the batch's."""
    energy_j: float | None = None
    energy_tier: str | None = None


class Hello(msgspec.Struct):
    """The first frame from a child: the model is loaded, or is not."""

    error: str | None = None
    can_complete: bool = False
    can_embed: bool = False


def send(sock: socket.socket, value: Any) -> None:
    """One frame."""
    data = msgspec.msgpack.encode(value)
    sock.sendall(HEAD.pack(len(data)) + data)


def receive(sock: socket.socket) -> bytes | None:
    """One frame; None at the end."""
    head = _exactly(sock, HEAD.size)
    if head is None:
        return None
    (size,) = HEAD.unpack(head)
    return _exactly(sock, size) if size <= MOST_FRAME_BYTES else None


def _exactly(sock: socket.socket, size: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < size:
        part = sock.recv(min(2**20, size - len(parts)))
        if not part:
            return None
        parts += part
    return bytes(parts)


def serve(sock: socket.socket, model: Any, *, max_batch: int, max_wait_s: float, threads: int = 1) -> None:
    """Answer until the socket closes."""
    from jettison.serve.spending import Spending

    spending = Spending(threads)
    waiting: queue.SimpleQueue[Asked | None] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(sock, waiting), daemon=True).start()
    held: Asked | None = None
    while True:
        first = held or waiting.get()
        if first is None:
            return
        batch, held, is_over = _gather(first, waiting, max_batch, max_wait_s)
        _answer(sock, model, batch, spending)
        if is_over:
            return


def _read(sock: socket.socket, waiting: "queue.SimpleQueue[Asked | None]") -> None:
    decoder = msgspec.msgpack.Decoder(Asked)
    try:
        while (data := receive(sock)) is not None:
            waiting.put(decoder.decode(data))
    except OSError:
        pass
    finally:  # whatever ended it, a frame that is none too: nothing else will come
        waiting.put(None)


def _gather(
    first: Asked, waiting: "queue.SimpleQueue[Asked | None]", max_batch: int, max_wait_s: float
) -> tuple[list[Asked], Asked | None, bool]:
    """What is batched with the first: asks of its kind, until the batch is full or the wait is over."""
    batch, size = [first], len(first.inputs)
    deadline = time.monotonic() + max_wait_s
    while size < max_batch:
        try:
            left_s = deadline - time.monotonic()
            more = waiting.get(timeout=left_s) if left_s > 0 else waiting.get_nowait()
        except queue.Empty:
            break
        if more is None:
            return batch, None, True
        if more.op != first.op or size + len(more.inputs) > max_batch:
            return batch, more, False
        batch.append(more)
        size += len(more.inputs)
    return batch, None, False


def _answer(sock: socket.socket, model: Any, batch: Sequence[Asked], spending: "Spending") -> None:
    op = batch[0].op
    if op == "embed":
        for asked in batch:
            send(sock, _embed(model, asked))
        return
    inputs = [one for asked in batch for one in asked.inputs]
    begun = spending.begin()
    answers = _predict(model, inputs) if op == "predict" else _complete(model, inputs)
    spending.end(begun, answers)
    found = iter(answers)
    for asked in batch:
        send(sock, Told(asked.id, answers=[next(found) for _ in asked.inputs]))


def _embed(model: Any, asked: Asked) -> Told:
    from jettison.errors import InvalidInput

    try:
        return Told(asked.id, vectors=model.embed(asked.inputs))
    except InvalidInput as error:
        return Told(asked.id, error=str(error), is_refused=True)
    except Exception as error:  # noqa: BLE001 - a foreign runtime may raise anything
        return Told(asked.id, error=f"{type(error).__name__}: {error}")


def _predict(model: Any, inputs: list[str]) -> list[WireAnswer]:
    from jettison.backends.ask import ask
    from jettison.errors import JettisonError

    try:
        return [wire_output(output) for output in ask(model, inputs)]
    except JettisonError as error:
        return [WireAnswer("", error=str(error)) for _ in inputs]


def wire_output(output: Any) -> WireAnswer:
    """A backend's output as it is sent."""
    cost = output.cost
    return WireAnswer(
        text=output.label,
        confidence=output.confidence,
        in_scope=output.in_scope,
        flagged=None if output.in_scope is None else bool(output.flagged),
        logits=None if output.logits is None else output.logits.tolist(),
        prompt_tokens=None if cost is None else cost.prompt_tokens,
        completion_tokens=None if cost is None else cost.completion_tokens,
        error=output.error,
        arm=output.arm,
        escalated=output.escalated,
    )


def _complete(model: Any, inputs: list[Any]) -> list[WireAnswer]:
    import math

    from jettison.language import Ask

    try:
        asks = msgspec.convert(inputs, list[Ask])
        found = model.engine.complete(asks)
    except Exception as error:  # noqa: BLE001 - a foreign runtime may raise anything
        return [WireAnswer("", error=f"{type(error).__name__}: {error}") for _ in inputs]
    answers = []
    for one in found:
        logprobs = one.token_logprobs
        sure = math.exp(min(0.0, sum(logprobs) / len(logprobs))) if logprobs else None
        answers.append(
            WireAnswer(
                text=one.text,
                confidence=sure,
                finish=one.finish,
                prompt_tokens=one.cost.prompt_tokens,
                completion_tokens=one.cost.completion_tokens,
                error=one.error,
            )
        )
    return answers


class _Embedding:
    """An embedder as a model: token ids are read back into text by its own tokenizer."""

    def __init__(self, folder: Path, embedder: Any) -> None:
        from jettison.backends.text import load_tokenizer

        self._embedder = embedder
        self._tokenizer = load_tokenizer(folder / "tokenizer.json")

    def embed(self, inputs: list[Any]) -> list[list[float]]:
        self._check_ids(inputs)
        texts = [self._tokenizer.decode(one) if isinstance(one, list) else one for one in inputs]
        found: list[list[float]] = self._embedder.embed(texts).tolist()
        return found

    def _check_ids(self, inputs: list[Any]) -> None:
        from jettison.errors import InvalidInput

        size = self._tokenizer.get_vocab_size()
        unknown = [i for one in inputs if isinstance(one, list) for i in one if i >= size]
        if unknown:
            raise InvalidInput(f"token ids must be in 0-{size - 1}, got {unknown[0]}.")


class _Ranking(_Embedding):
    """A model that ranks by an embedder, and gives its vectors too."""

    def __init__(self, folder: Path, ranker: Any) -> None:
        super().__init__(folder, ranker.embedder)
        self.predict = ranker.predict


def _open(kind: str, folder: Path) -> tuple[Any, int]:
    """The model, and how many threads it holds."""
    if kind == "embedder":
        from jettison.backends.embedder import open_embedder

        return _Embedding(folder, open_embedder(folder)), 1
    from jettison.backends.open import open_model
    from jettison.candidate import Candidate

    candidate = Candidate.at(folder)
    model = open_model(candidate)
    opened = _Ranking(folder, model) if hasattr(model, "embedder") else model
    return opened, int(candidate.settings.get("threads") or 1)


def main(arguments: Sequence[str]) -> None:
    """Load, say hello, serve."""
    fd, max_batch, max_wait_s, kind, folder = arguments
    sock = socket.socket(fileno=int(fd))
    try:
        model, threads = _open(kind, Path(folder))
    except Exception as error:  # noqa: BLE001 - whatever it is, the gateway is to say it
        from jettison.errors import JettisonError

        known = isinstance(error, JettisonError)
        send(sock, Hello(error=str(error) if known else f"{type(error).__name__}: {error}"))
        return
    can_complete = hasattr(getattr(model, "engine", None), "complete")
    send(sock, Hello(can_complete=can_complete, can_embed=hasattr(model, "embed")))
    with contextlib.suppress(OSError):  # the gateway has gone
        serve(sock, model, max_batch=int(max_batch), max_wait_s=float(max_wait_s), threads=threads)
    # Runtimes with threads of their own may hang or crash in a tidy exit; there is nothing to tidy.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
