"""What every stage of one run shares: its settings, data, folders and watcher."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from jettison.backends.abstain import as_told
from jettison.backends.cascade import open_cascade
from jettison.backends.open import open_model
from jettison.candidate import Candidate
from jettison.compress.deadline import Deadline
from jettison.compress.embedder_index import is_embedder
from jettison.compress.incumbent_language import is_language
from jettison.compress.recipe import Recipe, lineage_words
from jettison.compress.step import StepContext, apply_step, step_from
from jettison.decision import CostSummary
from jettison.evaluate.calibrate import ScopeRule, calibrate
from jettison.evaluate.recalibrate import recalibrated, uncalibrated
from jettison.evaluate.replay import (
    DECODED,
    Replay,
    calibrated_outputs,
    input_key,
    output_of,
    outputs_by_input,
)
from jettison.evaluate.run import evaluate, evaluation_file
from jettison.evaluate.slices import Slicer
from jettison.evaluate.suites.build import Suite
from jettison.loop.config import RunConfig
from jettison.loop.watcher import Clock, Watcher
from jettison.model import Model, Output
from jettison.record import Record, mean_score
from jettison.task import Example, Input, Task

STEP_S = 5.0
"""Least time kept for each step that is to follow a training in its recipe."""
SMALL_BYTES = 500_000_000
"""Artifacts under it are opened once for each core that answers."""


def asked_once(candidate: Candidate) -> bool:
    """Whether calibration is computed from a candidate's raw answers: they are no logits of labels."""
    return is_language(candidate) or is_embedder(candidate)


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A calibrated candidate with what dev says of it."""

    candidate: Candidate
    recipe: Recipe
    records: tuple[Record, ...]
    """Of all dev examples."""
    cost: CostSummary | None = None
    members: tuple[str, ...] = ()
    """Names of the arms, of a cascade."""
    scorer: str = "label"
    """The task's first: what candidates are chosen by."""

    @property
    def name(self) -> str:
        return self.candidate.name

    @property
    def dev_score(self) -> float | None:
        """Mean score on dev: of labels, the share that is right."""
        return mean_score(self.records, self.scorer)

    @property
    def words(self) -> tuple[str, ...]:
        return lineage_words(self.candidate)

    def records_of(self, examples: Sequence[Example]) -> list[Record]:
        """Its records of some dev examples."""
        wanted = {example.id for example in examples}
        return [record for record in self.records if record.example_id in wanted]


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """One run: where it keeps things and how it makes and judges candidates."""

    config: RunConfig
    task: Task
    slicer: Slicer
    dev: tuple[Example, ...]
    """Dev examples with computed slices."""
    watcher: Watcher
    clock: Clock
    failing: dict[Path, tuple[Record, ...]] = field(default_factory=dict)
    """Evaluations of this run in which an example failed: it is asked again in the next run, not before."""
    took_s: dict[str, float] = field(default_factory=dict)
    """Seconds that a step of each name took when it was last made."""
    suite: Suite | None = None
    """What `[suites]` built; `task` is then the suite's."""
    whole: Task | None = None
    """The task that the suite was built of: reading the suite's test split reads this one's too."""

    @property
    def folder(self) -> Path:
        return Path(self.config.output)

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    @property
    def shared(self) -> Path:
        """What steps keep for one another: the teacher's answers."""
        return self.cache / "shared"

    @property
    def scorers(self) -> dict[str, dict[str, Any]]:
        """What judges answers, with its settings."""
        return self.task.scoring

    @property
    def scorer(self) -> str:
        """What candidates are chosen by."""
        return self.task.scorers[0]

    def make(
        self,
        recipe: Recipe,
        incumbent: Candidate,
        training_threads: int,
        *,
        deadline: Deadline | None = None,
    ) -> Candidate:
        """Run a recipe's steps, each found again if it was done before, and calibrate the result.

        Args:
            recipe: What to do.
            incumbent: What to start from.
            training_threads: Threads to do it with.
            deadline: When the last step should be done: a training ends early enough for what follows it.

        Raises:
            OutOfTime: A step could not begin in time; what earlier steps made is kept.
            JettisonError: A step failed; what earlier steps made is kept.
        """
        context = StepContext(
            data=self.task.development,
            incumbent=incumbent,
            folder=self.cache,
            workspace=self.shared,
            seed=self.config.seed,
            threads=training_threads,
            progress=self.watcher.progress,
        )
        candidate = incumbent
        for index, settings in enumerate(recipe.steps):
            self.watcher.progress(f"{recipe.name}: {settings['step'].replace('_', ' ')}", None)
            last = index == len(recipe.steps) - 1
            step = step_from(settings)
            name = recipe.name if last else None
            if deadline is not None:
                kept_s = self._follow_s(recipe.steps[index + 1 :])
                context = replace(context, deadline=deadline.earlier(kept_s))
            candidate = apply_step(step, candidate, context, cache=self.cache / "steps", name=name)
            self.took_s[step.name] = candidate.lineage[-1].duration_s or 0.0
        return self.calibrated(candidate)

    def _follow_s(self, steps: Sequence[dict[str, Any]]) -> float:
        """Seconds to keep for steps that are to follow: what they took before, and never nothing."""
        return sum(max(STEP_S, self.took_s.get(step["step"], 0.0)) for step in steps)

    def calibrated(
        self, candidate: Candidate, *, scope_rule: ScopeRule = "auto", as_today: bool = False
    ) -> Candidate:
        """The candidate with confidences fitted on one half of dev, from its answers to all of dev.

        It abstains where the run's settings say so; the incumbent is left `as_today`.
        """
        return calibrate(
            candidate,
            self.task.development,
            cache=self.cache / "calibrated",
            scope_rule=scope_rule,
            false_alarm_share=self.config.false_alarm_share,
            abstain=self.config.when_out_of_scope == "abstain" and not as_today,
            records=self.records(candidate, self.dev, "dev") if can_replay(candidate) else None,
            scorer=self.scorer,
            method=self.config.calibration,
        )

    def records(
        self,
        candidate: Candidate,
        examples: Sequence[Example],
        split: str,
        *,
        keep_logits: bool | None = None,
    ) -> tuple[Record, ...]:
        """Evaluate the saved artifact, or read the records of an earlier evaluation.

        On dev each model is asked once: what calibration changes is computed from the answers it
        gave before, and a cascade answers from its arms' answers. All cores are used, a model
        for each where it is small: the answers do not depend on them, and cost is measured elsewhere.

        Args:
            candidate: As it stands on disk.
            examples: Of one split.
            split: Its name.
            keep_logits: Whether records hold logits; None keeps those of dev and of language models.
        """
        raw = uncalibrated(candidate) if asked_once(candidate) else None
        if raw is not None:
            return tuple(recalibrated(self.records(raw, examples, split), candidate))
        if split == "dev" and len(examples) < len(self.dev) and self.is_kept(candidate, self.dev, split):
            by_id = {record.example_id: record for record in self.records(candidate, self.dev, split)}
            return tuple(by_id[example.id] for example in examples)
        path = self.records_path(candidate, examples, split, keep_logits=keep_logits)
        if path in self.failing:
            return self.failing[path]
        found = evaluate(
            candidate,
            examples,
            split=split,
            scorers=self.scorers,
            folder=self.cache / "records",
            keep_logits=_keeps(candidate, split, keep_logits),
            progress=self.watcher.progress,
            opener=partial(self._opened, examples=examples, split=split),
            workers=self._workers(candidate),
        )
        if any(record.error is not None for record in found):
            self.failing[path] = tuple(found)
        return tuple(found)

    def records_path(
        self,
        candidate: Candidate,
        examples: Sequence[Example],
        split: str,
        *,
        keep_logits: bool | None = None,
    ) -> Path:
        """Where `records` keeps what it finds."""
        return evaluation_file(
            self.cache / "records",
            (uncalibrated(candidate) if asked_once(candidate) else None) or candidate,
            examples,
            split=split,
            scorers=self.scorers,
            keep_logits=_keeps(candidate, split, keep_logits),
        )

    def is_kept(self, candidate: Candidate, examples: Sequence[Example], split: str) -> bool:
        """Whether `records` would ask nobody, with logits."""
        return self.records_path(candidate, examples, split, keep_logits=True).is_file()

    def _opened(self, candidate: Candidate, *, examples: Sequence[Example], split: str) -> Model:
        """The candidate as a model: of answers known already where they are all there is to it."""
        if candidate.backend == "cascade":
            arms = partial(_Arm, self, examples, split)
            inputs: list[Any] = [example.asked for example in examples]
            outputs = as_told(open_cascade(candidate, opener=arms).predict(inputs), candidate)
            return Replay(candidate.labels, outputs_by_input(examples, outputs))
        raw = uncalibrated(candidate)
        if raw is not None and split == "dev" and self.is_kept(raw, examples, split):
            known = calibrated_outputs(self.records(raw, examples, split), candidate)
            if known is not None:
                return Replay(candidate.labels, outputs_by_input(examples, as_told(known, candidate)))
        if candidate.backend == "hf" and self._workers(candidate) == 1:
            settings = {**candidate.settings, "threads": self._cores}
            candidate = msgspec.structs.replace(candidate, settings=settings)
        return open_model(candidate)

    def _workers(self, candidate: Candidate) -> int:
        """Models of it that answer side by side: small ones, and no more threads than cores."""
        if candidate.backend not in ("hf", "onnx", "openvino") or candidate.artifact_bytes > SMALL_BYTES:
            return 1
        return max(1, self._cores // int(candidate.settings.get("threads", 1)))

    @property
    def _cores(self) -> int:
        """Cores to make and evaluate candidates with."""
        return self.config.training_threads or os.cpu_count() or 1


class _Arm:
    """An arm of a cascade that answers from its records: all of a split, or just what it is asked."""

    def __init__(
        self, workspace: Workspace, examples: Sequence[Example], split: str, candidate: Candidate
    ) -> None:
        self.labels = candidate.labels
        self._workspace = workspace
        self._examples = examples
        self._split = split
        self._candidate = candidate

    def predict(self, inputs: Sequence[Input]) -> list[Output]:
        """The arm's outputs, in the inputs' order."""
        examples = self._examples
        if not self._workspace.is_kept(self._candidate, examples, self._split):
            wanted = {input_key(one) for one in inputs}
            examples = [example for example in examples if input_key(example.asked) in wanted]
        records = self._workspace.records(self._candidate, examples, self._split, keep_logits=True)
        answers = outputs_by_input(examples, [output_of(record) for record in records])
        return Replay(self.labels, answers).predict(inputs)

    def close(self) -> None:
        """Nothing is open."""


def can_replay(candidate: Candidate) -> bool:
    """Whether answers given before calibration say what comes after it."""
    return asked_once(candidate) or candidate.backend in ("cascade", *DECODED)


def _keeps(candidate: Candidate, split: str, keep_logits: bool | None) -> bool:
    return asked_once(candidate) or (split == "dev" if keep_logits is None else keep_logits)
