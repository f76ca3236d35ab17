"""Models against suites: attacks on them, and where two of them differ, before the tiers are written."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np

from jettison.backends.open import open_model
from jettison.candidate import Candidate
from jettison.decide.gates import judge_not_worse
from jettison.decide.pairing import pair_records, score_pairs
from jettison.decision import GateResult, NotWorse
from jettison.errors import InvalidInput
from jettison.evaluate.run import evaluate
from jettison.evaluate.scorers import close_scorers, open_scorers
from jettison.evaluate.suites.attack import ROBUST, Attack, attack_all, attack_records
from jettison.evaluate.suites.behaviour import BehaviourResult, BehaviourTest, check_labels, run_tests
from jettison.evaluate.suites.discover import discover_slices
from jettison.loop.compare_models import candidate_of
from jettison.record import Record
from jettison.stats.binomial import clopper_pearson
from jettison.stats.interval import Interval
from jettison.task import Example, Task

Progress = Callable[[str, float | None], None]


class Attacked(msgspec.Struct, frozen=True, kw_only=True):
    """One model under attack."""

    name: str
    digest: str
    attacks: tuple[Attack, ...]
    records: tuple[Record, ...]

    @property
    def n_right(self) -> int:
        """Examples answered rightly before the attack."""
        return sum(one.was_right for one in self.attacks)

    @property
    def success_share(self) -> Interval | None:
        """Right answers that were turned wrong; None where none was right."""
        won = sum(one.succeeded for one in self.attacks)
        return clopper_pearson(won, self.n_right) if self.n_right else None

    @property
    def mean_queries(self) -> float:
        return float(np.mean([one.n_queries for one in self.attacks]))


def attacked(
    source: str,
    task: Task,
    examples: Sequence[Example],
    *,
    budget: int,
    seed: int,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Attacked:
    """Attack a model (candidate, release, or whatever `take_in` takes) on examples of a task.

    Raises:
        JettisonError: The model cannot be opened, or the task brings choices.
    """
    if task.kind in ("choose", "rank", "embed"):
        raise InvalidInput(f"an attack needs a task of one text an example, got kind {task.kind!r}.")
    with tempfile.TemporaryDirectory() as folder:
        candidate = candidate_of(source, task, cache=cache or Path(folder))
        return attacked_candidate(
            candidate, task, examples, name=source, budget=budget, seed=seed, progress=progress
        )


def attacked_candidate(
    candidate: Candidate,
    task: Task,
    examples: Sequence[Example],
    *,
    name: str,
    budget: int,
    seed: int,
    progress: Progress | None = None,
) -> Attacked:
    """The same for a candidate that is there already."""
    first = task.scorers[0]
    scorer = open_scorers({first: task.scoring[first]}, out_of_scope=task.out_of_scope)[first]
    model = open_model(candidate)
    try:
        attacks = attack_all(model, examples, scorer, budget=budget, seed=seed, progress=progress)
    finally:
        model.close()
        getattr(scorer, "close", lambda: None)()
    return Attacked(
        name=name,
        digest=candidate.digest,
        attacks=attacks,
        records=attack_records(attacks, digest=candidate.digest),
    )


def judge_robust(
    incumbent: Attacked, candidate: Attacked, *, margin: float, alpha: float = 0.025, seed: int = 0
) -> GateResult:
    """Whether the candidate stands its own attacks as well as the incumbent stands its."""
    gate = NotWorse(scorer=ROBUST, margin=margin, alpha=alpha)
    (result,) = judge_not_worse(gate, incumbent.records, candidate.records, seed=seed)
    return result


def drawn(examples: Sequence[Example], n: int, *, seed: int) -> tuple[Example, ...]:
    """At most n examples, a draw that the seed fixes, in their order."""
    if len(examples) <= n:
        return tuple(examples)
    chosen = np.random.default_rng(seed).choice(len(examples), n, replace=False)
    return tuple(examples[i] for i in sorted(chosen.tolist()))


@contextlib.contextmanager
def opened(sources: Sequence[str], task: Task) -> Iterator[list[Candidate]]:
    """Every source as a candidate, all of them before any is asked: a path mistyped costs no answers.

    Raises:
        JettisonError: One cannot be opened.
    """
    with tempfile.TemporaryDirectory() as cache:
        yield [candidate_of(source, task, cache=Path(cache) / str(i)) for i, source in enumerate(sources)]


def answers_of(source: str, task: Task, examples: Sequence[Example], *, split: str) -> list[Record]:
    """Records of any model on examples, in order."""
    with tempfile.TemporaryDirectory() as cache:
        candidate = candidate_of(source, task, cache=Path(cache))
        return evaluate(candidate, examples, split=split, scorers=task.scoring)


class FoundSlices(msgspec.Struct, frozen=True, kw_only=True):
    """What `jettison suites find` writes: confirmed subgroups where B loses most to A, with examples."""

    a: str
    b: str
    split: str
    scorer: str
    slices: tuple["FoundSliceReport", ...]
    n_searched: int
    n_tested: int
    n_search: int
    n_validate: int
    alpha: float


class FoundSliceReport(msgspec.Struct, frozen=True, kw_only=True):
    """One confirmed subgroup."""

    name: str
    where: dict[str, str]
    """Its rule, by which `suites build --found` marks test examples; empty for a cluster."""
    n: int
    loss: float
    rest_loss: float
    p_value: float
    examples: tuple[str, ...]
    """Texts that A answered rightly and B wrongly, up to ten."""


def find_slices(
    a: tuple[str, Sequence[Record]],
    b: tuple[str, Sequence[Record]],
    examples: Sequence[Example],
    *,
    scorer: str,
    split: str,
    alpha: float = 0.05,
    seed: int = 0,
) -> FoundSlices:
    """Search for subgroups where B loses to A more than elsewhere (`discover_slices`).

    Args:
        a: Name and records of the incumbent.
        b: Name and records of the candidate, on the same examples.
        examples: With the texts.
        scorer: What is lost.
        split: Where the examples are from, for the reader.
        alpha: Chance that anything is reported where nothing is to be found.
        seed: Of the halves and the clusters.

    Raises:
        NotEnoughData: Too few examples are scored for both.
    """
    scored = {s.pair.incumbent.example_id: s for s in score_pairs(pair_records(a[1], b[1]), scorer)}
    judged = [example for example in examples if example.id in scored]
    loss = [scored[e.id].incumbent - scored[e.id].candidate for e in judged]
    found = discover_slices(judged, loss, alpha=alpha, seed=seed)
    reports = []
    for one in found.found:
        worst = [judged[i].input for i in one.members if loss[i] > 0][:10]
        reports.append(
            FoundSliceReport(
                name=one.name,
                where=one.where,
                n=one.n,
                loss=one.loss,
                rest_loss=one.rest_loss,
                p_value=one.p_value,
                examples=tuple(worst),
            )
        )
    return FoundSlices(
        a=a[0],
        b=b[0],
        split=split,
        scorer=scorer,
        slices=tuple(reports),
        n_searched=found.n_searched,
        n_tested=found.n_tested,
        n_search=found.n_search,
        n_validate=found.n_validate,
        alpha=alpha,
    )


def tested(
    source: str, task: Task, tests: Sequence[BehaviourTest], *, seed: int
) -> tuple[BehaviourResult, ...]:
    """Run tests of behaviour on any model; free answers are judged by the task's first scorer.

    Raises:
        JettisonError: The model cannot be opened, the task brings choices, or a test names a label that
            is none of the task's.
    """
    if task.kind in ("choose", "rank", "embed"):
        raise InvalidInput(f"tests must be of a task of one text an example, got kind {task.kind!r}.")
    check_labels(tests, task.labels)
    first = task.scorers[0]
    scorer = open_scorers({first: task.scoring[first]}, out_of_scope=task.out_of_scope)[first]
    with tempfile.TemporaryDirectory() as cache:
        model = open_model(candidate_of(source, task, cache=Path(cache)))
        try:
            return run_tests(model, tests, scorer=scorer if task.kind != "classify" else None, seed=seed)
        finally:
            model.close()
            close_scorers({first: scorer})
