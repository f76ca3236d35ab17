"""Two models asked in turns until the verdict is certain: clear cases take a fraction of the examples.

The incumbent is the dear one of the two. Where the candidate is right, nothing can have been lost, so that
the incumbent's answer tells little; an informed comparison asks it there with a known chance alone, and
always where the candidate is wrong. A difference told with chance p counts 1/p times.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from scipy.special import ndtr

from jettison.backends.open import open_model
from jettison.candidate import Candidate
from jettison.decide.slices import ALL
from jettison.decision import Verdict
from jettison.errors import InvalidInput, NotEnoughData
from jettison.evaluate.run import predict_all
from jettison.evaluate.scorers import open_scorers, score_all
from jettison.loop.compare_models import candidate_of
from jettison.model import Model
from jettison.stats.group_sequential import MOST_LOOKS, spending_bounds
from jettison.stats.noninferiority import margin_test
from jettison.stats.sequential import MarginSequence
from jettison.task import Example, Task

CHUNK = 32
ASKED_SHARE = 0.25
"""Chance, in an informed comparison, that the incumbent is asked where the candidate is right."""
Progress = Callable[[str, float | None], None]


class SequentialSlice(msgspec.Struct, frozen=True, kw_only=True):
    """One slice when the comparison stopped."""

    slice: str
    verdict: Verdict
    n: int
    """Examples asked."""
    n_available: int
    difference: float | None
    """Candidate minus incumbent on the examples asked; None without any."""
    settled_by: str
    """`betting`, `fixed` (all examples were asked, and the fixed-size test tells), `look 2 of 3` (planned)
    or `nothing`."""


class Sequential(msgspec.Struct, frozen=True, kw_only=True):
    """A comparison that stopped when it was certain."""

    verdict: Verdict
    slices: tuple[SequentialSlice, ...]
    n_asked: int
    """Examples that the candidate was asked."""
    n_asked_incumbent: int
    n_available: int
    alpha: float

    @property
    def saved_share(self) -> float:
        """Share of the examples that the incumbent did not have to be asked."""
        return 1 - self.n_asked_incumbent / self.n_available


def compare_until_sure(
    a: str,
    b: str,
    task: Task,
    examples: Sequence[Example],
    *,
    margin: float,
    slices: Sequence[str] = (ALL,),
    alpha: float = 0.025,
    looks: int | None = None,
    informed: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> Sequential:
    """Ask both models example by example, in an order that the seed draws, until every verdict is certain.

    SHIP needs every slice; one BLOCK ends it. Half of alpha is spent on looking (betting, valid at every
    look), half on the fixed-size test of all examples where they run out. With `looks`, the fixed-size test
    is done at so many points instead, each against its Lan-DeMets bound (`stats.group_sequential`).

    Args:
        a: The incumbent: candidate, release, or whatever `take_in` takes.
        b: The candidate.
        task: Its first scorer judges, in 0-1.
        examples: Independent: no two of one group.
        margin: Loss that still counts as not worse.
        slices: `all` and `column=value`, each of which must hold.
        alpha: One-sided error probability of SHIP, and of BLOCK.
        looks: Planned looks at each slice, evenly spaced; None looks after each example, by betting.
        informed: Ask the incumbent where the candidate is wrong, elsewhere with chance `ASKED_SHARE`, and
            the rest only where the examples run out.
        seed: Of the order.
        progress: Called with a phrase and the share asked.

    Raises:
        InvalidInput: Looks are planned of an informed comparison, examples depend on each other in
            groups, or a slice has none.
    """
    with tempfile.TemporaryDirectory() as cache:
        candidates = [
            candidate_of(source, task, cache=Path(cache) / side)
            for side, source in zip("ab", (a, b), strict=True)
        ]
        share = ASKED_SHARE if informed else 1.0
        if looks is not None and informed:
            raise InvalidInput("looks must not be planned of an informed comparison, which looks always.")
        return _compare(candidates, task, examples, margin, slices, alpha, looks, share, seed, progress)


def _compare(
    candidates: Sequence[Candidate],
    task: Task,
    examples: Sequence[Example],
    margin: float,
    slices: Sequence[str],
    alpha: float,
    looks: int | None,
    share: float,
    seed: int,
    progress: Progress | None,
) -> Sequential:
    _check_independent(examples)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(examples)).tolist()
    members = {name: sum(_in(e, name) for e in examples) for name in slices}
    walks: list[_Walk] = [
        _Walk(name, n, margin, alpha / 2, share)
        if looks is None
        else _LookedAt(name, n, margin, alpha, looks)
        for name, n in members.items()
    ]
    first = task.scorers[0]
    scorer = open_scorers({first: task.scoring[first]}, out_of_scope=task.out_of_scope)[first]
    models = [open_model(candidate) for candidate in candidates]

    def scores(model: Model, part: Sequence[Example]) -> list[float | None]:
        outputs = predict_all(model, [e.asked for e in part])
        return [s.value for s in score_all(scorer, list(zip(part, outputs, strict=True)))]

    def told_where_worth_it(part: Sequence[Example], other: Sequence[float | None]) -> list[Told]:
        chances = rng.random(len(part))
        asked = [
            b is not None and (b < 1 or c < share) for b, c in zip(other, chances.tolist(), strict=True)
        ]
        found = iter(scores(models[0], [e for e, is_asked in zip(part, asked, strict=True) if is_asked]))
        return [next(found) if is_asked else PASSED_OVER for is_asked in asked]

    n_asked = n_incumbent = 0
    try:
        for start in range(0, len(order), CHUNK):
            part = [examples[i] for i in order[start : start + CHUNK]]
            # What only slices hold that are settled need not be asked.
            part = [e for e in part if any(walk.open and _in(e, walk.name) for walk in walks)]
            if part:
                other = scores(models[1], part)
                one = told_where_worth_it(part, other)
                n_asked += len(part)
                n_incumbent += sum(told is not PASSED_OVER for told in one)
                for walk in walks:
                    walk.take(part, one, other)
            if progress is not None:
                progress("asking both", (start + CHUNK) / len(order))
            if any(walk.verdict is Verdict.BLOCK for walk in walks) or not any(walk.open for walk in walks):
                break
        else:
            passed_over = {e.id: e for walk in walks if walk.open for e in walk.passed_over}
            answers = scores(models[0], list(passed_over.values())) if passed_over else []
            n_incumbent += len(answers)
            for walk in walks:
                walk.complete(dict(zip(passed_over, answers, strict=True)))
    finally:
        for model in models:
            model.close()
    told = tuple(walk.told() for walk in walks)
    verdicts = {one.verdict for one in told}
    overall = next((v for v in (Verdict.BLOCK, Verdict.NOT_ENOUGH_DATA) if v in verdicts), Verdict.SHIP)
    return Sequential(
        verdict=overall,
        slices=told,
        n_asked=n_asked,
        n_asked_incumbent=n_incumbent,
        n_available=len(examples),
        alpha=alpha,
    )


class _PassedOver(Enum):
    """Stands where the incumbent was not asked."""

    PASSED_OVER = 0


PASSED_OVER = _PassedOver.PASSED_OVER
Told = float | None | Literal[_PassedOver.PASSED_OVER]
"""A score, None where the scorer cannot tell."""


class _Walk:
    """One slice on its way to a verdict."""

    def __init__(
        self, name: str, n_available: int, margin: float, alpha: float, share: float = 1.0
    ) -> None:
        if not n_available:
            raise InvalidInput(f"a slice must have examples, got none in {name!r}.")
        self.name, self.n_available = name, n_available
        self._sequence = MarginSequence(margin=margin, alpha=alpha, ceiling=1 / share)
        self._scores: list[tuple[float, float]] = []
        self._share, self._sum, self._n = share, 0.0, 0
        self._passed_over: list[tuple[Example, float]] = []
        self._margin, self._alpha = margin, alpha
        self._n_unjudged = 0
        self._settled_at: str | None = None
        self.verdict: Verdict | None = None

    @property
    def open(self) -> bool:
        return self.verdict is None

    @property
    def passed_over(self) -> list[Example]:
        return [example for example, _ in self._passed_over]

    def take(self, part: Sequence[Example], one: Sequence[Told], other: Sequence[float | None]) -> None:
        """Take in scores of the incumbent and the candidate, those of other slices passed over."""
        if not self.open:
            return
        for example, a, b in zip(part, one, other, strict=True):
            if not _in(example, self.name) or not self.open:
                continue
            if a is None or b is None:
                self._n_unjudged += 1
                continue
            if a is PASSED_OVER:
                self._passed_over.append((example, b))
                self._count(0.0)
            else:
                self._scores.append((a, b))
                self._count(b - a if b < 1 else (b - a) / self._share)

    def complete(self, answers: Mapping[str, float | None]) -> None:
        """Take in what the incumbent says where it was passed over, once the examples have run out."""
        if not self.open:
            return
        for example, b in self._passed_over:
            a = answers[example.id]
            if a is None:
                self._n_unjudged += 1
            else:
                self._scores.append((a, b))
        self._passed_over = []
        self._sum, self._n = sum(b - a for a, b in self._scores), len(self._scores)

    def _count(self, difference: float) -> None:
        self._sum, self._n = self._sum + difference, self._n + 1
        self._look(difference)

    def _look(self, difference: float) -> None:
        """Look after each example."""
        self._sequence.update(difference)
        if self._sequence.verdict is not None:
            self.verdict = Verdict(self._sequence.verdict)

    def told(self) -> SequentialSlice:
        """Where it ended; where all examples were asked, with the verdict of the fixed-size test."""
        verdict, settled = self.verdict, "betting"
        if verdict is None:
            verdict, settled = Verdict.NOT_ENOUGH_DATA, "nothing"
            if self._scores and len(self._scores) + self._n_unjudged == self.n_available:
                at_end = self._tested(self._alpha)
                if at_end is not None:
                    verdict, settled = at_end, "fixed"
        elif self._settled_at is not None:
            settled = self._settled_at
        return SequentialSlice(
            slice=self.name,
            verdict=verdict,
            n=self._n,
            n_available=self.n_available,
            difference=self._sum / self._n if self._n else None,
            settled_by=settled,
        )

    def _tested(self, alpha: float) -> Verdict | None:
        """What the fixed-size test tells of the scores so far; None where neither is certain."""
        a, b = (np.array(side) for side in zip(*self._scores, strict=True))
        try:
            test = margin_test(b, a, margin=self._margin, alpha=alpha)
        except NotEnoughData:
            return None
        if test.p_not_worse <= alpha:
            return Verdict.SHIP
        return Verdict.BLOCK if test.p_worse <= alpha else None


class _LookedAt(_Walk):
    """The same with a few planned looks; all of alpha is spent by the last."""

    def __init__(self, name: str, n_available: int, margin: float, alpha: float, looks: int) -> None:
        super().__init__(name, n_available, margin, alpha)
        if not 1 <= looks <= MOST_LOOKS:
            raise InvalidInput(f"looks must be 1 to {MOST_LOOKS}, got {looks}.")
        self._looks, self._n_looked = looks, 0
        self._shares: list[float] = []

    def take(self, part: Sequence[Example], one: Sequence[Told], other: Sequence[float | None]) -> None:
        super().take(part, one, other)
        seen = (len(self._scores) + self._n_unjudged) / self.n_available
        due = int(seen * self._looks + 1e-9)
        if not self.open or not self._scores or due <= self._n_looked:
            return
        self._n_looked = due
        self._shares.append(seen)
        bound = spending_bounds(self._shares, alpha=self._alpha)[-1]
        self.verdict = self._tested(float(ndtr(-bound))) if np.isfinite(bound) else None
        self._settled_at = f"look {due} of {self._looks}"

    def _look(self, difference: float) -> None:
        """Not between the planned looks."""

    def told(self) -> SequentialSlice:
        """Where it ended; the last look has spent all of alpha, and no other test follows it."""
        told = super().told()
        if self.verdict is not None:
            return told
        return msgspec.structs.replace(told, verdict=Verdict.NOT_ENOUGH_DATA, settled_by="nothing")


def _in(example: Example, name: str) -> bool:
    column, _, value = name.partition("=")
    return name == ALL or example.slices.get(column) == value


def _check_independent(examples: Sequence[Example]) -> None:
    groups = [e.group for e in examples if e.group is not None]
    if len(set(groups)) < len(groups):
        twice = next(g for g in groups if groups.count(g) > 1)
        raise InvalidInput(
            f"a sequential comparison needs independent examples, got group {twice!r} more than once. "
            "Compare without --until-sure: the fixed-size test counts groups."
        )
