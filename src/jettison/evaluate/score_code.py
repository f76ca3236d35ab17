"""Scorer of programs: the answer's code is run with the example's unit tests in a sandbox."""

import re

from jettison.errors import InvalidInput
from jettison.evaluate.sandbox import SandboxLimits, run_program
from jettison.evaluate.scorers import Score
from jettison.model import Output
from jettison.task import Example

_FENCED = re.compile(r"```(?:[Pp]ython|py|python3)?[ \t]*\n(.*?)(?:^```|\Z)", re.DOTALL | re.MULTILINE)


class CodeScorer:
    """1 when the answer's code and then each of `Example.tests` run to their end, else 0.

    Tests are Python source, as HumanEval's `test` followed by `check(name)`. Code is taken from
    the first fenced block of the answer, or is the whole answer.

    Settings: `run_code` must be true: this runs what a model wrote on this machine; see
    `jettison.evaluate.sandbox` for what keeps it in. `continues` (false): the answer goes on from
    `Example.input`, as a completion model's does. `timeout_s` (20), `cpu_s` (10), `memory_bytes` (1 GiB).
    """

    def __init__(
        self,
        *,
        out_of_scope: str | None = None,
        run_code: bool = False,
        continues: bool = False,
        timeout_s: float = 20.0,
        cpu_s: int = 10,
        memory_bytes: int = 1 << 30,
    ) -> None:
        del out_of_scope
        if run_code is not True:
            raise InvalidInput(
                f"run_code of scorer 'code' must be true, got {run_code!r}: it runs what the model wrote "
                "on this machine. Read docs/scorers.md, then set `run_code = true`."
            )
        self._continues = continues
        self._limits = SandboxLimits(wall_s=timeout_s, cpu_s=cpu_s, memory_bytes=memory_bytes)
        self._doors: tuple[str, ...] | None = None

    def score(self, example: Example, output: Output) -> Score:
        """Judge one answer; None where the example has no tests."""
        if not example.tests:
            return Score(value=None, reason="the example has no unit tests in `tests`")
        if output.error is not None:
            return Score(value=0.0, reason="no answer")
        code = code_in(output.label)
        if self._continues:
            code = example.input + code
        run = run_program("\n\n".join((code, *example.tests)) + "\n", self._limits)
        self._doors = run.doors or self._doors
        return Score(value=float(run.passed), reason=run.reason or None)

    def facts(self) -> dict[str, object]:
        """What kept the programs in, for the evidence; None before the first has run."""
        return {"sandbox": None if self._doors is None else list(self._doors)}


def code_in(answer: str) -> str:
    """The first fenced block of Python in an answer, or all of it."""
    found = _FENCED.search(answer)
    return found.group(1) if found else answer
