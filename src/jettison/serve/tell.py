"""Structured log lines of the gateway: one JSON object a line on stderr, never a text, never a key."""

import logging
import sys
import time
from typing import Any

import msgspec

logger = logging.getLogger("jettison.serve")


def tell(event: str, **facts: Any) -> None:
    """Log one event with its facts."""
    if logger.isEnabledFor(logging.INFO):
        line = {"time": round(time.time(), 3), "event": event, **facts}
        logger.info(msgspec.json.encode(line, enc_hook=str).decode())


def to_stderr() -> None:
    """Send the gateway's lines to stderr, as the command does."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
