"""The process in which one target is measured: `python -m jettison.cost.worker`.

It opens one candidate, or connects to one address, and does as it is told over stdin and
stdout. Only the standard library is imported before the clock starts, so that the time to
load holds the imports too.
"""

import os
import sys
import time
from collections.abc import Sequence
from typing import Any, BinaryIO

from jettison.cost.cpu_time import children_time_s, cpu_time_s

_STARTED_S = time.perf_counter()


class Worker:
    """One open candidate or address, and the inputs it is measured on."""

    def __init__(self) -> None:
        self._model: Any = None
        self._target: Any = None
        self._player: Any = None
        self._inputs: list[Any] = []
        self._watch: Any = None

    def open(
        self, candidate: dict[str, Any], threads: int, modules: Sequence[str] | None = None
    ) -> dict[str, Any]:
        """Import the backend, load the candidate; seconds since this process began to import.

        Args:
            candidate: As `candidate_message` writes it.
            threads: Of the backend.
            modules: Imported first, those that an earlier process needed, so that import and opening
                are told apart; None: they are not.

        Returns:
            `load_s` of both, and `import_s` of the imports alone, None without `modules`.
        """
        if modules is not None:
            import contextlib
            import importlib

            for name in modules:
                # One that cannot be imported by itself is imported by the one that needs it.
                with contextlib.suppress(Exception):
                    importlib.import_module(name)
        import_s = time.perf_counter() - _STARTED_S if modules is not None else None
        import msgspec

        from jettison.backends.open import open_model
        from jettison.cost.protocol import candidate_from

        found = candidate_from(candidate)
        settings = {**found.settings, "threads": threads}
        self._model = open_model(msgspec.structs.replace(found, settings=settings))
        return {"load_s": time.perf_counter() - _STARTED_S, "import_s": import_s}

    def modules(self) -> dict[str, Any]:
        """Names of all modules that are imported now, in the order in which that began."""
        return {"modules": [name for name in sys.modules if name != "__main__"]}

    def reach(self, target: dict[str, Any]) -> dict[str, Any]:
        """Take an address instead of a candidate; nothing is sent before the first input."""
        import msgspec

        from jettison.cost.http_target import HttpTarget

        self._target = msgspec.convert(target, HttpTarget)
        return {}

    def take(self, inputs: list[Any]) -> dict[str, Any]:
        """Keep the inputs, and answer the first: the one that pays for what is set up late."""
        import msgspec

        from jettison.task import Question

        self._inputs = [i if isinstance(i, str) else msgspec.convert(i, Question) for i in inputs]
        if self._target is not None:
            from jettison.cost.play_http import HttpPlayer

            self._player = HttpPlayer(self._target, self._inputs)
            call = self._player.play([0], [0.0])
            return {"first_answer_s": float(call.done_s[0]), "error": call.errors[0]}
        started = time.perf_counter()
        output = self._model.predict(self._inputs[:1])[0]
        return {"first_answer_s": time.perf_counter() - started, "error": output.error}

    def block(self, rows: list[int], repeats: int) -> dict[str, Any]:
        """Answer some inputs one at a time: each one's wall time, and the CPU time of all threads.

        `waited_s` is the part of the wall time in which this process was ready but other work
        had the CPU; 0 where the system does not tell.
        """
        texts = [[self._inputs[row]] for row in rows] * repeats
        predict, clock = self._model.predict, time.perf_counter_ns
        latencies_ns, outputs = [], []
        cpu_from, waited_from = cpu_time_s(), waited_time_s()
        for text in texts:
            started = clock()
            output = predict(text)
            latencies_ns.append(clock() - started)
            outputs += output
        cpu_s, waited_s = cpu_time_s() - cpu_from, waited_time_s() - waited_from
        return {
            "cpu_s": cpu_s,
            "waited_s": waited_s,
            "latencies_ns": latencies_ns,
            "traffic": _traffic(outputs),
        }

    def batches(self, rows: list[int], batch: int, repeats: int) -> dict[str, Any]:
        """Answer some inputs in length-sorted batches, `repeats` times; wall seconds of it all."""
        texts = sorted(
            (self._inputs[row] for row in rows), key=lambda i: len(i if isinstance(i, str) else i.text)
        )
        parts = [texts[start : start + batch] for start in range(0, len(texts), batch)]
        started = time.perf_counter()
        for _ in range(repeats):
            for part in parts:
                self._model.predict(part)
        return {"wall_s": time.perf_counter() - started, "n_tasks": repeats * len(texts)}

    def play(
        self,
        rows: list[int],
        due_s: list[float],
        max_batch: int = 1,
        timeout_s: float = 30.0,
        concurrency: int | None = None,
    ) -> dict[str, Any]:
        """Answer inputs as they fall due: a `jettison.cost.calls.Calls`.

        `max_batch` and `timeout_s` are of a candidate, `concurrency` is of an address.
        """
        import msgspec

        from jettison.cost.play_local import play_local

        if self._player is not None:
            calls = self._player.play(rows, due_s, concurrency=concurrency)
        else:
            calls = play_local(
                self._model.predict,
                self._inputs,
                rows,
                due_s,
                max_batch=max_batch,
                timeout_s=timeout_s,
                children_time_s=children_time_s,
            )
        found: dict[str, Any] = msgspec.to_builtins(calls)
        return found

    def memory(self) -> dict[str, Any]:
        """Memory of the phase that ends here, children included; the next phase begins.

        A `jettison.cost.memory.MemoryUse`.
        """
        import msgspec

        from jettison.cost.memory import PhaseWatch

        if self._watch is None:
            self._watch = PhaseWatch()
        found: dict[str, Any] = msgspec.to_builtins(self._watch.end_phase())
        return found

    def close(self) -> dict[str, Any]:
        """Give the candidate back."""
        if self._model is not None:
            self._model.close()
        if self._player is not None:
            self._player.close()
        return {}


def _traffic(outputs: Sequence[Any]) -> dict[str, float | None]:
    """What the answers were like, means per task: a `jettison.cost.moved.Traffic`."""
    costs = [output.cost for output in outputs if output.cost is not None]
    prompts = [cost.prompt_tokens for cost in costs if cost.prompt_tokens is not None]
    written = [cost.completion_tokens for cost in costs if cost.completion_tokens is not None]
    return {
        "prompt_tokens": sum(prompts) / len(prompts) if prompts else None,
        "completion_tokens": sum(written) / len(written) if written else None,
        "escalated_share": sum(output.escalated for output in outputs) / max(1, len(outputs)),
        "escalated_twice_share": sum((output.arm or "").count("fallback") > 1 for output in outputs)
        / max(1, len(outputs)),
    }


def waited_time_s(schedstat: str = "/proc/self/schedstat") -> float:
    """Seconds the main thread was ready to run but had no CPU; 0 where the system does not tell."""
    try:
        with open(schedstat) as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


def main() -> None:
    """Answer messages `{"do": name, ...}` until `close` or the end of the input."""
    stream_in, stream_out = _own_streams()
    from jettison.cost.protocol import receive_message, send_message

    worker = Worker()
    while True:
        try:
            message = receive_message(stream_in)
        except EOFError:
            return
        verb = message.pop("do")
        try:
            reply = getattr(worker, verb)(**message)
        except Exception as error:  # noqa: BLE001  the parent raises it again, whatever it is
            reply = {"raised": [type(error).__name__, str(error)]}
        send_message(stream_out, reply)
        if verb == "close":
            return


def _own_streams() -> tuple[BinaryIO, BinaryIO]:
    """The pipes to the parent, kept from libraries that print: their words go to stderr."""
    stream_in = os.fdopen(os.dup(0), "rb")
    stream_out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    return stream_in, stream_out


if __name__ == "__main__":
    main()
