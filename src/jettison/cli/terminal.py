"""What the commands print: to a reader who may have gone, and without what would steer a terminal."""

import contextlib
import os
import re
import sys
from collections.abc import Iterator

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@contextlib.contextmanager
def no_fuss_when_nobody_reads() -> Iterator[None]:
    """Stop printing, and nothing else, when the reader of a pipe has gone, as `head` does."""
    try:
        yield
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit) as error:
        # rich leaves by SystemExit where the pipe is broken.
        if isinstance(error, SystemExit) and not isinstance(error.__context__, BrokenPipeError):
            raise
        drop_output()


def drop_output() -> None:
    """Send the rest of the output nowhere: Python flushes it once more on exit, and would complain."""
    with contextlib.suppress(OSError, ValueError):  # what stands in for it may be no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def printable(text: str) -> str:
    """A text from elsewhere with its control characters spelled out; lines and tabs stay."""
    return _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
