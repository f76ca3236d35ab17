"""Asks a model a batch so that a failure stays with the input that caused it."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue

from jettison.errors import BrokenArtifact, CannotWrite, Unanswered, WrongEndpoint
from jettison.model import Model, Output
from jettison.record import Record
from jettison.task import Input

Asked = Callable[[Model, Sequence[Input]], list[Output]]
"""Asks a model one batch."""


def ask(model: Model, inputs: Sequence[Input]) -> list[Output]:
    """One output per input; where the whole batch fails, each input is asked by itself.

    An answer that was lost on the way to or from a server is marked `unanswered`.

    Raises:
        BrokenArtifact: The model answers with too few or too many outputs.
        WrongEndpoint: It runs elsewhere, and no input would be answered.
        CannotWrite: An answer that was paid for cannot be kept, and neither could the next.
    """
    try:
        outputs = model.predict(inputs)
    except (WrongEndpoint, CannotWrite):
        raise
    except Exception as error:  # noqa: BLE001 - a foreign runtime may raise anything
        if len(inputs) > 1:
            return [output for text in inputs for output in ask(model, [text])]
        lost = isinstance(error, Unanswered)
        reason = str(error) if lost else f"{type(error).__name__}: {error}"
        return [Output(label="", confidence=0.0, error=reason, unanswered=lost)]
    if len(outputs) != len(inputs):
        raise BrokenArtifact(
            f"a model must give one output per input, got {len(outputs)} for {len(inputs)} inputs. "
            "Check the backend with `jettison.testing.check_backend`."
        )
    return outputs


def ask_batches(
    models: Sequence[Model], batches: Iterable[Sequence[Input]], *, asked: Asked = ask
) -> Iterator[list[Output]]:
    """Outputs of each batch, in the batches' order: several models of one candidate work side by side.

    Each is asked by one thread at a time, and a batch is answered whole by one of them, so that the
    answers are those of one model alone.

    Args:
        models: At least one; all of the same candidate.
        batches: Taken a few ahead of what is answered.
        asked: Asks one batch; it must bear being called by several threads.

    Raises:
        As `ask`.
    """
    if len(models) == 1:
        yield from (asked(models[0], batch) for batch in batches)
        return
    free: SimpleQueue[Model] = SimpleQueue()
    for model in models:
        free.put(model)

    def answered(batch: Sequence[Input]) -> list[Output]:
        model = free.get()
        try:
            return asked(model, batch)
        finally:
            free.put(model)

    waiting: deque[Future[list[Output]]] = deque()
    with ThreadPoolExecutor(len(models)) as pool:
        try:
            for batch in batches:
                waiting.append(pool.submit(answered, batch))
                if len(waiting) > len(models):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for left in waiting:
                left.cancel()


def check_answered(outputs: Sequence[Output | Record], asked: str) -> None:
    """Refuse to go on with answers missing that the model may well have had.

    Args:
        outputs: One for each input.
        asked: Who was asked, for the message.

    Raises:
        Unanswered: Some were lost on the way.
    """
    lost = [output for output in outputs if output.unanswered]
    if not lost:
        return
    first = lost[0]
    where = f" (the first at {first.example_id})" if isinstance(first, Record) else ""
    raise Unanswered(
        f"{asked} left {len(lost):,} of {len(outputs):,} inputs unanswered{where}: {first.error} "
        "None counts as wrong. The answers that came are kept; run it again to ask for the rest alone."
    )
