"""When to leave a broken server alone, and how many retries all requests together may cost."""

import random
import time
from collections.abc import Callable


class Breaker:
    """Opens after failures in a row; after a pause lets one request through, and closes if it is well.

    Args:
        failures: In a row, after which it opens.
        pause_s: The first pause; it doubles, up to a minute, each time the trial fails.
        clock: Seconds, monotonic.
    """

    MOST_PAUSE_S = 60.0

    def __init__(
        self, failures: int, pause_s: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit, self._first_s, self._clock = failures, pause_s, clock
        self._n_failed = 0
        self._pause_s = pause_s
        self._until = 0.0
        self._is_trying = False
        self._trial_s = 0.0

    @property
    def state(self) -> str:
        """`closed`, `open`, or `half_open`: the pause is over, the next request is the trial."""
        if self._n_failed < self._limit:
            return "closed"
        return "open" if self._clock() < self._until or self._is_trying else "half_open"

    def wait_s(self) -> float:
        """How long until a request may be tried; 0 where it may now."""
        if self._n_failed < self._limit:
            return 0.0
        return max(0.05, self._until - self._clock()) if self.state == "open" else 0.0

    def admit(self) -> bool:
        """Whether to send a request now; while half open, only the first may."""
        if self._n_failed < self._limit:
            return True
        now = self._clock()
        # A trial whose end nobody reported (its client went away) is given up after a while.
        if now < self._until or (self._is_trying and now < self._trial_s + self.MOST_PAUSE_S):
            return False
        self._is_trying, self._trial_s = True, now
        return True

    def succeeded(self) -> None:
        """An answer came."""
        self._n_failed = 0
        self._pause_s = self._first_s
        self._is_trying = False

    def failed(self) -> None:
        """None came, or the server said that it is broken."""
        self._n_failed += 1
        if self._n_failed >= self._limit:
            jitter = 1 + 0.1 * random.random()
            self._until = self._clock() + self._pause_s * jitter
            if self._is_trying:
                self._pause_s = min(self.MOST_PAUSE_S, self._pause_s * 2)
            self._is_trying = False

    def released(self) -> None:
        """A request ended that says nothing of the server's health."""
        self._is_trying = False


class RetryBudget:
    """Retries as a share of requests, so that they never multiply an outage. A few are always allowed."""

    LEAST = 10

    def __init__(self, share: float) -> None:
        self._share = share
        self._tokens = float(self.LEAST)

    def earn(self) -> None:
        """One request was made."""
        self._tokens = min(self._tokens + self._share, 10.0 * self.LEAST)

    def spend(self) -> bool:
        """Whether one retry may be made."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
