"""How a run tells its watcher where it is; the command line draws it, a library user may ignore it."""

import time
from collections.abc import Callable
from typing import Protocol


class Watcher(Protocol):
    """Hears of each stage, of progress inside it, and of each finding."""

    def stage(self, title: str, remaining_s: float | None = None) -> None:
        """A stage begins; `remaining_s` is the estimate for it and all that follows."""

    def progress(self, message: str, share: float | None = None) -> None:
        """Work inside the stage: what, and the share done in 0-1."""

    def found(self, message: str) -> None:
        """A line worth keeping on the screen."""


class Silent:
    """A watcher that does not look."""

    def stage(self, title: str, remaining_s: float | None = None) -> None:
        """Ignored."""

    def progress(self, message: str, share: float | None = None) -> None:
        """Ignored."""

    def found(self, message: str) -> None:
        """Ignored."""


OTHER_WORK_S = 30.0
"""So much of work that was not measured yet is taken to go as estimated, beside what other kinds say."""


class Clock:
    """Time spent and left, with estimates corrected by how wrong earlier ones of like work were."""

    def __init__(self, budget_s: float | None, *, now: Callable[[], float] = time.monotonic) -> None:
        self.now = now
        """Seconds since some fixed moment."""
        self._started = now()
        self._budget_s = budget_s
        self._learned: dict[str, tuple[float, float]] = {}

    def spent_s(self) -> float:
        """Seconds since the run began."""
        return self.now() - self._started

    def budget_left_s(self, *, reserve_s: float = 0.0) -> float | None:
        """Seconds left of the budget but for `reserve_s`, 0 where it is spent; None without one."""
        return None if self._budget_s is None else max(0.0, self._budget_s - self.spent_s() - reserve_s)

    def ends_at_s(self, *, reserve_s: float = 0.0) -> float | None:
        """When, by `now`, the budget but for `reserve_s` is spent; None without one."""
        return None if self._budget_s is None else self._started + self._budget_s - reserve_s

    def learn(self, *, estimate_s: float, took_s: float, work: str = "") -> None:
        """Take in how long a piece of work took against its estimate; cached work teaches nothing."""
        if took_s > 1.0:
            estimated_s, taken_s = self._learned.get(work, (0.0, 0.0))
            self._learned[work] = (estimated_s + estimate_s, taken_s + took_s)

    def corrected_s(self, estimate_s: float, *, work: str | None = None) -> float:
        """An estimate scaled by what was learned of such work, within a factor of four either way.

        Args:
            estimate_s: Seconds that were estimated.
            work: Its kind. One that was not measured yet takes what all others say together, which the
                less they were the less weighs: one slow conversion does not make every training slow.
                None is work of all kinds.
        """
        estimated_s, took_s = (0.0, 0.0) if work is None else self._learned.get(work, (0.0, 0.0))
        if estimated_s == 0.0:
            doubt_s = 0.0 if work is None else OTHER_WORK_S
            estimated_s = doubt_s + sum(estimated for estimated, _ in self._learned.values())
            took_s = doubt_s + sum(taken for _, taken in self._learned.values())
        if estimated_s == 0.0:
            return estimate_s
        return estimate_s * min(4.0, max(0.25, took_s / estimated_s))

    def left_s(self, work_s: float, *, reserve_s: float = 0.0) -> float:
        """Seconds that work, as corrected, and what must follow will take: what the budget has no time for
        is left out."""
        if self._budget_s is not None:
            work_s = min(work_s, max(0.0, self._budget_s - self.spent_s() - reserve_s))
        return work_s + reserve_s

    def has_time_for(self, estimate_s: float, *, work: str | None = None, reserve_s: float = 0.0) -> bool:
        """Whether a piece of work fits in the budget, with `reserve_s` kept for what must follow."""
        if self._budget_s is None:
            return True
        return self.spent_s() + self.corrected_s(estimate_s, work=work) + reserve_s <= self._budget_s
