"""Head and body of a reply as one write to the network: a second one would cost as much as parsing."""

import asyncio
from typing import Any


class OneWrite:
    """A transport that holds a reply's head back until its body is there, or the loop turns.

    A whole reply is written head and body in one step of the loop, and so goes out as one. The head of a
    stream goes out as soon as the loop is free, whenever its first event comes.

    Args:
        transport: Of the connection.
        loop: That it runs on.
    """

    __slots__ = ("_held", "_loop", "_transport")

    def __init__(self, transport: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._held = b""

    def write(self, data: bytes) -> None:
        """Join what comes with what was held back, or hold it back."""
        if self._held:
            self._transport.write(self._held + data)
            self._held = b""
        else:
            self._held = data
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Send what is held back."""
        if self._held:
            held, self._held = self._held, b""
            self._transport.write(held)

    def close(self) -> None:
        """Close once everything written has been sent."""
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
