"""What every stage of one run shares: its settings, data, folders and watcher."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from jettison.candidate import Candidate
from jettison.compress.incumbent_language import is_language
from jettison.compress.recipe import Recipe, lineage_words
from jettison.compress.step import StepContext, apply_step, step_from
from jettison.decision import CostSummary
from jettison.evaluate.calibrate import ScopeRule, calibrate
from jettison.evaluate.recalibrate import recalibrated, uncalibrated
from jettison.evaluate.run import evaluate
from jettison.evaluate.slices import Slicer
from jettison.loop.config import RunConfig
from jettison.loop.watcher import Clock, Watcher
from jettison.record import Record, mean_score
from jettison.task import Example, Task


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

    @property
    def folder(self) -> Path:
        return Path(self.config.output)

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    @property
    def scorers(self) -> dict[str, dict[str, Any]]:
        """What judges answers, with its settings."""
        return self.task.scoring

    @property
    def scorer(self) -> str:
        """What candidates are chosen by."""
        return self.task.scorers[0]

    def make(self, recipe: Recipe, incumbent: Candidate, training_threads: int) -> Candidate:
        """Run a recipe's steps, each found again if it was done before, and calibrate the result.

        Raises:
            JettisonError: A step failed; what earlier steps made is kept.
        """
        context = StepContext(
            data=self.task.development,
            incumbent=incumbent,
            folder=self.cache,
            workspace=self.cache / "shared",
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
            candidate = apply_step(step, candidate, context, cache=self.cache / "steps", name=name)
        return self.calibrated(candidate)

    def calibrated(self, candidate: Candidate, *, scope_rule: ScopeRule = "auto") -> Candidate:
        """The candidate with confidences fitted on one half of dev."""
        return calibrate(
            candidate,
            self.task.development,
            cache=self.cache / "calibrated",
            scope_rule=scope_rule,
            records=self.records(candidate, self.dev, "dev") if is_language(candidate) else None,
            scorer=self.scorer,
            method=self.config.calibration,
        )

    def records(self, candidate: Candidate, examples: Sequence[Example], split: str) -> tuple[Record, ...]:
        """Evaluate the saved artifact, or read the records of an earlier evaluation.

        Torch may use all cores for it: its float32 answers do not depend on them beyond rounding,
        and cost is measured elsewhere. A language model is asked once: what its calibration
        changes is computed from its raw answers.
        """
        raw = uncalibrated(candidate) if is_language(candidate) else None
        if raw is not None:
            return tuple(recalibrated(self.records(raw, examples, split), candidate))
        opened = candidate
        if candidate.backend == "hf":
            cores = self.config.training_threads or os.cpu_count() or 1
            opened = msgspec.structs.replace(candidate, settings={**candidate.settings, "threads": cores})
        found = evaluate(
            opened,
            examples,
            split=split,
            scorers=self.scorers,
            folder=self.cache / "records",
            keep_logits=split == "dev" or is_language(candidate),
            progress=self.watcher.progress,
        )
        return tuple(found)
