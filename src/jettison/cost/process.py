"""The parent's side of a measuring process: start it with its threads pinned, ask, and say how it died."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
from types import TracebackType
from typing import Any

from jettison import errors
from jettison.candidate import Candidate
from jettison.cost.http_target import HttpTarget
from jettison.cost.protocol import receive_message, send_message
from jettison.errors import JettisonError

ANSWER_WITHIN_S = 900.0

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "RAYON_NUM_THREADS",
)


def pinned_environment(threads: int) -> dict[str, str]:
    """This process's environment with every library's thread count set, before any is imported."""
    pinned = dict.fromkeys(_THREAD_VARIABLES, str(threads))
    # Threads that spin while they wait burn CPU-seconds that no task asked for.
    return {**os.environ, **pinned, "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}


class MeasuredProcess:
    """A fresh process that holds one candidate, or a client of one address. Use it in a `with` block."""

    def __init__(self, target: Candidate | HttpTarget, *, threads: int) -> None:
        self.target = target
        # A pipe would block a worker that says much.
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  closed in `close`
        self._process = subprocess.Popen(
            [sys.executable, "-m", "jettison.cost.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=pinned_environment(threads),
        )

    def ask(self, verb: str, **arguments: Any) -> dict[str, Any]:
        """Have the worker do one thing and return what it found.

        Raises:
            JettisonError: The worker raised (ours again, with its message), died, or took too long.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            send_message(self._process.stdin, {"do": verb, **arguments})
            ready, _, _ = select.select([self._process.stdout], [], [], ANSWER_WITHIN_S)
            if not ready:
                raise self._error(f"answered nothing for {ANSWER_WITHIN_S:.0f} s at `{verb}`")
            reply: dict[str, Any] = receive_message(self._process.stdout)
        except (EOFError, BrokenPipeError) as error:
            raise self._error(f"ended with {self._exit()} at `{verb}`") from error
        if "raised" in reply:
            raise self._raised(*reply["raised"])
        return reply

    def close(self) -> None:
        """End the process, kindly if it still listens. May be called twice."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None and not stream.closed:
                with contextlib.suppress(BrokenPipeError):  # it died with a message still unread
                    stream.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stderr.close()

    def __enter__(self) -> "MeasuredProcess":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _raised(self, kind: str, message: str) -> JettisonError:
        """The worker's error as ours, of the same class when it is one of ours."""
        found = getattr(errors, kind, None)
        if isinstance(found, type) and issubclass(found, JettisonError):
            return found(message)
        return self._error(f"raised {kind}: {message}")

    def _error(self, what: str) -> JettisonError:
        tail = self._stderr_tail()
        return JettisonError(
            f"the process that measures {self.target.name!r} must answer until it is closed, "
            f"but it {what}." + (f" Its last words:\n{tail}" if tail else "")
        )

    def _exit(self) -> str:
        code = self._process.wait(timeout=10)
        if code >= 0:
            return f"exit code {code}"
        name = signal.Signals(-code).name
        return f"{name} (often: out of memory)" if name == "SIGKILL" else name

    def _stderr_tail(self) -> str:
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - 2000))
        return self._stderr.read().decode(errors="replace").strip()
