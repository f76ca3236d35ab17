"""Who may ask when: keeps to the agreed rates, and leaves a server alone when it asks for that."""

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """Time, as an argument: tests bring one of their own."""

    def now(self) -> float:
        """Seconds, from any start."""

    def wait(self, seconds: float) -> None:
        """Come back after so many seconds, or sooner once `stop` was called."""

    def stop(self) -> None:
        """Wake whoever waits; nobody waits from then on."""


class SystemClock:
    """The machine's own clock."""

    def __init__(self) -> None:
        self._stopped = threading.Event()

    def now(self) -> float:
        """Seconds since some start that never changes."""
        return time.monotonic()

    def wait(self, seconds: float) -> None:
        """Sleep, unless stopped."""
        self._stopped.wait(max(0.0, seconds))

    def stop(self) -> None:
        """Wake everyone."""
        self._stopped.set()


class Pace:
    """Requests and tokens spread evenly over the minute, over all threads."""

    def __init__(
        self, *, requests_per_minute: float | None, tokens_per_minute: float | None, clock: Clock
    ) -> None:
        self._request_s = 60.0 / requests_per_minute if requests_per_minute else 0.0
        self._token_s = 60.0 / tokens_per_minute if tokens_per_minute else 0.0
        self._clock = clock
        self._lock = threading.Lock()
        self._next = clock.now()
        self._held_until = self._next
        self._stopped = False

    def take_turn(self, n_tokens: int) -> None:
        """Wait until one more request of about so many tokens may go out."""
        while not self._stopped:
            with self._lock:
                now = self._clock.now()
                start = max(self._next, self._held_until)
                if start <= now:
                    self._next = now + max(self._request_s, self._token_s * n_tokens)
                    return
            self._clock.wait(start - now)

    def settle(self, *, expected_tokens: int, used_tokens: int) -> None:
        """Make up for a request that took more tokens than was thought, or fewer."""
        with self._lock:
            self._next = max(
                self._clock.now(), self._next + self._token_s * (used_tokens - expected_tokens)
            )

    def hold(self, seconds: float) -> None:
        """Nobody asks for so long."""
        with self._lock:
            self._held_until = max(self._held_until, self._clock.now() + seconds)

    def stop(self) -> None:
        """Wake whoever waits."""
        self._stopped = True
        self._clock.stop()
