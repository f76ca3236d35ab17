"""Scorer of an answer by a regular expression."""

import re

from jettison.errors import InvalidInput
from jettison.evaluate.score_text import check_choice, right_answers
from jettison.evaluate.scorers import Score
from jettison.model import Output
from jettison.task import Example

MOST_CHARACTERS = 20_000
"""A pattern may take time by the square of the text."""


class RegexScorer:
    """Whether a pattern is found in the answer; with a group in it, whether that group is right.

    Settings: `pattern`; `ignore_case` (false); `take` (`first` or `last` match). A pattern with a
    group takes the answer out of the text: `Answer: (.*)`, compared with the right answers without
    case and space around it. A pattern without one asks for a form: `^\\d{4}-\\d{2}-\\d{2}$`.
    """

    def __init__(
        self,
        *,
        out_of_scope: str | None = None,
        pattern: str,
        ignore_case: bool = False,
        take: str = "last",
    ) -> None:
        del out_of_scope
        check_choice("regex", "take", take, ("first", "last"))
        try:
            self._pattern = re.compile(pattern, re.MULTILINE | (re.IGNORECASE if ignore_case else 0))
        except re.error as error:
            raise InvalidInput(
                f"pattern of scorer 'regex' must be a regular expression, got {pattern!r}: {error}."
            ) from error
        self._take = take
        self.needs_right_answer = self._pattern.groups > 0

    def score(self, example: Example, output: Output) -> Score:
        """Judge one answer; None where a group must be compared and no right answer is known."""
        rights = right_answers(example)
        if self._pattern.groups and not rights:
            return Score(value=None, reason="nobody has said what the right answer is")
        if output.error is not None:
            return Score(value=0.0, reason="no answer")
        found = list(self._pattern.finditer(output.label[:MOST_CHARACTERS]))
        if not found:
            return Score(value=0.0, reason="the pattern is not in the answer")
        if not self._pattern.groups:
            return Score(value=1.0)
        taken = found[0 if self._take == "first" else -1].group(1) or ""
        wanted = {right.strip().casefold() for right in rights}
        return Score(value=float(taken.strip().casefold() in wanted), reason=f"took {taken.strip()[:80]!r}")
