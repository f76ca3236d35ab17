"""Scorer of the number that an answer ends in."""

import math
import re

from jettison.errors import InvalidInput
from jettison.evaluate.score_text import TextScorer, check_choice

# A minus after a digit or bracket takes away; it is no sign.
_SIGN = r"(?<![\w.,)%])(?<![\d)%]\s)[-+−]?\s?[$€£]?\s?"
_WHOLE = r"\d{1,3}(?:[,\u202f\u00a0 ']\d{3})+(?!\d)|\d+"
_NUMBER = re.compile(
    rf"(?=[-+−$€£.\d])(?P<sign>{_SIGN})?(?:"
    r"(?P<mixed>\d+)\s+(?P<top2>\d+)\s?/\s?(?P<bottom2>[1-9]\d*)"
    r"|(?P<top>\d+)\s?/\s?(?P<bottom>[1-9]\d*)(?!\s?/)"
    rf"|(?P<whole>{_WHOLE})?(?P<part>\.\d+)?(?P<power>[eE][-+]?\d{{1,3}})?"
    r")(?P<percent>\s?(?:%|percent\b|per cent\b))?"
)
MOST_CHARACTERS = 200
"""A number lies within so many characters before the last digit."""
_DIGIT = re.compile(r"\d")
_COMMA = str.maketrans(",.", ".,")


class NumericScorer(TextScorer):
    """1 when the last number of the answer is that of a right answer, within a tolerance.

    Settings: `absolute` and `relative` tolerance (the larger room counts; 1e-9 and 1e-6), `marker`
    (`####`: where it stands, the first number after its last occurrence counts), `decimal` (`.` or
    `,`). Thousands separators, currency signs, `3/4`, `1 1/2` and `1e3` are read. A percentage is right
    as written or as a share: `50 %` is 50 and 0.5.
    """

    def __init__(
        self,
        *,
        out_of_scope: str | None = None,
        absolute: float = 1e-9,
        relative: float = 1e-6,
        marker: str = "####",
        decimal: str = ".",
    ) -> None:
        super().__init__(out_of_scope=out_of_scope)
        check_choice("numeric", "decimal", decimal, (".", ","))
        for name, value in (("absolute", absolute), ("relative", relative)):
            if not (math.isfinite(value) and value >= 0):
                raise InvalidInput(f"{name} of scorer 'numeric' must be zero or more, got {value}.")
        self._absolute, self._relative = absolute, relative
        self._marker, self._decimal = marker, decimal

    def compare(self, answer: str, right: str) -> float:
        """0 where either holds no number."""
        said, wanted = self._readings(answer), self._readings(right)
        return float(
            any(
                math.isclose(a, b, rel_tol=self._relative, abs_tol=self._absolute)
                for a in said
                for b in wanted
            )
        )

    def _readings(self, text: str) -> tuple[float, ...]:
        """The number, and of a percentage also the share."""
        _, marked, after = text.rpartition(self._marker) if self._marker else ("", "", text)
        found = last_number(after, decimal=self._decimal, first=bool(marked))
        if found is None:
            return ()
        value, is_percent = found
        return (value, value / 100) if is_percent else (value,)


def last_number(text: str, *, decimal: str = ".", first: bool = False) -> tuple[float, bool] | None:
    """The last number of a text (or the first), and whether a percent sign follows; None without any."""
    part = _near_first(text) if first else _near_last(text)
    plain = part.translate(_COMMA) if decimal == "," else part
    found = None
    for match in _NUMBER.finditer(plain):
        value = _value(match)
        if value is None or not math.isfinite(value):
            continue
        found = (value, match["percent"] is not None)
        if first:
            break
    return found


def _near_first(text: str) -> str:
    found = _DIGIT.search(text)
    return text[max(0, found.start() - 10) : found.start() + MOST_CHARACTERS] if found else ""


def _near_last(text: str) -> str:
    end = next((i for i in range(len(text), 0, -1) if text[i - 1].isdigit()), 0)
    return text[max(0, end - MOST_CHARACTERS) : end + 10]


def _value(match: re.Match[str]) -> float | None:
    negative = any(sign in (match["sign"] or "") for sign in "-−")
    if match["mixed"]:
        value = int(match["mixed"]) + int(match["top2"]) / int(match["bottom2"])
    elif match["top"]:
        value = int(match["top"]) / int(match["bottom"])
    elif match["whole"] or match["part"]:
        digits = re.sub(r"\D", "", match["whole"] or "0")
        value = float(digits + (match["part"] or "") + (match["power"] or ""))
    else:
        return None
    return -value if negative else value
