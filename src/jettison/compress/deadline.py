"""When a step should end with what it has, and whether that changed what came of it."""

import time
from collections.abc import Callable


class Deadline:
    """A moment, asked by a step at each place where it would end there.

    Whoever asks and is told that it is over makes something else than without a deadline: this is kept,
    here and in the deadline that this is a part of, so that the result can be told from a whole one.
    """

    def __init__(
        self,
        at_s: float,
        *,
        budget: str = "",
        clock: Callable[[], float] = time.monotonic,
        whole: "Deadline | None" = None,
    ) -> None:
        """Set it.

        Args:
            at_s: When, in seconds of the clock.
            budget: What it comes of, as the user wrote it: what it cut short is reused only under the same.
            clock: Seconds since some fixed moment.
            whole: What this is a part of.
        """
        self.at_s = at_s
        self.budget = budget
        self.clock = clock
        self._whole = whole
        self._has_cut = False

    @property
    def has_cut(self) -> bool:
        """Whether something was left out or done otherwise because of it."""
        return self._has_cut

    def is_over(self) -> bool:
        """Whether to end now. Ask only where the answer is obeyed."""
        over = self.clock() > self.at_s
        if over:
            self.cut()
        return over

    def cut(self) -> None:
        """Keep that it changed something."""
        self._has_cut = True
        if self._whole is not None:
            self._whole.cut()

    def share(self, share: float) -> "Deadline":
        """The end of a share, in 0-1, of the time that is left now."""
        now = self.clock()
        return self._part(min(now, self.at_s) + share * max(0.0, self.at_s - now))

    def earlier(self, seconds: float) -> "Deadline":
        """So much before this one."""
        return self._part(self.at_s - seconds)

    def _part(self, at_s: float) -> "Deadline":
        return Deadline(at_s, budget=self.budget, clock=self.clock, whole=self)
