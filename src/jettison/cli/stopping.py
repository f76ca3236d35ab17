"""A run that is told to end by SIGTERM, as a scheduler does, ends as one that Ctrl-C interrupts."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_CODE = 128 + signal.SIGTERM


class Terminated(KeyboardInterrupt):
    """SIGTERM came: what is open is closed on the way out, workers among it."""


@contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """Let SIGTERM unwind the block; a second one ends the process at once."""
    if threading.current_thread() is not threading.main_thread():  # handlers cannot be set elsewhere
        yield
        return

    def stop(_: int, __: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
