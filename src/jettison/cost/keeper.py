"""What becomes of a run when a candidate dies in the middle of it, or somebody interrupts."""

from collections.abc import Iterator
from contextlib import contextmanager

from jettison.cost.subject import Subject
from jettison.errors import JettisonError


class Keeper:
    """Marks who died and goes on, where that is wanted; else lets errors through."""

    def __init__(self, is_kept: bool) -> None:
        self.is_kept = is_kept
        self.marks: tuple[str, ...] = ()

    @contextmanager
    def dying(self, subject: Subject) -> Iterator[None]:
        """A step of one subject; not to be entered once it has died."""
        try:
            yield
        except JettisonError as error:
            if not self.is_kept:
                raise
            subject.died = str(error)

    @contextmanager
    def interrupted(self) -> Iterator[None]:
        """The steps that an interruption may cut short once something was measured."""
        try:
            yield
        except KeyboardInterrupt:
            if not self.is_kept:
                raise
            self.marks = ("interrupted: the figures are of the rounds up to then.",)


def died_marks(subject: Subject) -> tuple[str, ...]:
    """Says that a subject died, and how much of it is kept."""
    if subject.died is None:
        return ()
    n = len(subject.latencies_s)
    return (f"its process died after {n:,} answers, whose figures are kept: {subject.died}",)
