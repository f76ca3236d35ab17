"""What became of each request of one block: when it was due, sent, begun, done; column by column.

Times are seconds from the start of the block, on one monotonic clock.
"""

import msgspec
import numpy as np

MISSED = np.inf
"""Latency of a request that failed or timed out: it lies beyond every limit."""


class Wire(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes of one block on its connections, as the kernel counted them."""

    sent_bytes: int
    """Of the TCP streams, what was sent again not counted twice."""
    received_bytes: int
    resent_bytes: int | None
    """Sent again because it was lost; None where the kernel does not tell."""
    n_segments: int
    """Packets both ways; each has headers of its own on top of the streams."""
    n_connections: int


class Calls(msgspec.Struct, frozen=True, kw_only=True):
    """Requests in the order in which they were due; all columns have shape (n,)."""

    rows: list[int]
    """Which input was asked."""
    due_s: list[float]
    sent_s: list[float]
    late_s: list[float]
    """How long after it could have been sent it was: the fault of the client, not of the target."""
    done_s: list[float]
    """When the last of the answer, or its failure, was there."""
    first_s: list[float | None]
    """When the first token was there; None where the answer is no stream."""
    errors: list[str | None]
    outputs: list[str | None]
    prompt_tokens: list[int | None]
    completion_tokens: list[int | None]
    payload_bytes: list[int]
    """Bodies sent and received; 0 where nothing goes over a wire."""
    gaps_s: list[float] = msgspec.field(default_factory=list)
    """Between consecutive chunks of text of every stream, pooled, shape (n_gaps,)."""
    n_escalated: int | None = None
    """Of a cascade here: inputs that its fallback was asked; None where it is not told."""
    cpu_s: float | None = None
    """CPU-seconds of the answers: of the model where it runs in this process, else None."""
    client_cpu_s: float = 0.0
    """CPU-seconds that the client itself took."""
    busy_s: float | None = None
    """Wall seconds in which the model worked; None where it is elsewhere."""
    wall_s: float = 0.0
    wire: Wire | None = None
    stopped: str | None = None
    """Why the block ended before its last request; those after it were never sent and are not here."""

    @property
    def latency_s(self) -> np.ndarray:
        """From when each was due to the end of its answer, shape (n,); `MISSED` where it failed."""
        return self._or_missed(np.asarray(self.done_s) - np.asarray(self.due_s))

    @property
    def service_s(self) -> np.ndarray:
        """From when each was sent to the end of its answer, shape (n,); `MISSED` where it failed."""
        return self._or_missed(np.asarray(self.done_s) - np.asarray(self.sent_s))

    @property
    def first_token_s(self) -> np.ndarray:
        """From when each was due to its first token, shape (n_streamed,); `MISSED` where it failed."""
        found = []
        for first, due, error in zip(self.first_s, self.due_s, self.errors, strict=True):
            if error is not None:
                found.append(MISSED)
            elif first is not None:
                found.append(first - due)
        return np.asarray(found) if any(f is not None for f in self.first_s) else np.empty(0)

    @property
    def token_s(self) -> np.ndarray:
        """Seconds a token after the first, one figure an answer that says how many it has."""
        found = [
            (done - first) / (n - 1)
            for done, first, n in zip(self.done_s, self.first_s, self.completion_tokens, strict=True)
            if first is not None and n is not None and n > 1
        ]
        return np.asarray(found)

    @property
    def is_ok(self) -> np.ndarray:
        """Which were answered, shape (n,)."""
        return np.asarray([error is None for error in self.errors], bool)

    def since(self, warm_s: float) -> "Calls":
        """Only those due at or after a moment: what came before it warmed the queue up."""
        kept = [i for i, due in enumerate(self.due_s) if due >= warm_s]
        if len(kept) == len(self.due_s):
            return self
        columns = (
            "rows", "due_s", "sent_s", "late_s", "done_s", "first_s", "errors", "outputs",
            "prompt_tokens", "completion_tokens", "payload_bytes",
        )  # fmt: skip
        picked = {name: [getattr(self, name)[i] for i in kept] for name in columns}
        return msgspec.structs.replace(self, **picked)

    def _or_missed(self, times_s: np.ndarray) -> np.ndarray:
        return np.where(self.is_ok, times_s, MISSED)
