"""Where a training stands on its schedule: by its steps, or by the clock where these would end too late."""

from jettison.compress.deadline import Deadline

FREE_SHARE = 0.5
"""Of the time to the deadline, in which the clock changes nothing, however slow the first steps are."""


class Pace:
    """Turns steps into places on a schedule that ends by the deadline.

    A training that ends within the free share of its time, or that would by its speed so far end in time,
    goes by its steps alone: two runs of one seed then train alike, bit for bit, with a deadline or
    without. What would end too late goes on by the clock from where it is, so that the learning rate
    has fallen when the time is over.
    """

    def __init__(self, n_steps: int, deadline: Deadline | None) -> None:
        self._n_steps = n_steps
        self._deadline = deadline
        self._started_s = 0.0 if deadline is None else deadline.clock()
        self._hurried: tuple[float, int] | None = None
        """When it began to go by the clock, and at which step."""

    def place(self, step: int) -> float:
        """Place on the schedule, in steps from 0 to `n_steps`, of the step that comes next.

        Args:
            step: Steps that are done.
        """
        if self._deadline is None:
            return step
        now, end = self._deadline.clock(), self._deadline.at_s
        if self._hurried is None:
            spent_s, given_s = now - self._started_s, end - self._started_s
            if spent_s < FREE_SHARE * given_s or spent_s * self._n_steps <= given_s * step:
                return step
            self._deadline.cut()
            self._hurried = (now, step)
        since, reached = self._hurried
        share = min(1.0, (now - since) / max(1e-9, end - since))
        return max(step, reached + share * (self._n_steps - reached))
