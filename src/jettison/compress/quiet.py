"""Keeps converters of other projects off the terminal; what they made is checked by its answers."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_converters() -> Iterator[None]:
    """Hold back warnings, log lines and progress bars for as long as the block runs."""
    level = logging.root.manager.disable
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(level)
