"""A whole run on the fake backend: a task of made-up questions, a fake incumbent, a fake step."""

import json
import random
from pathlib import Path
from typing import ClassVar

import msgspec

from jettison.candidate import Candidate, write_candidate
from jettison.compress.step import Made, StepContext
from jettison.decision import NotWorse
from jettison.loop.config import RunConfig

LABELS = ("billing", "delivery", "refund")
TWO_POINTS = (NotWorse(margin=0.02),)


class FakeLean(msgspec.Struct, frozen=True, kw_only=True):
    """A step on fakes: another accuracy, another price."""

    name: ClassVar[str] = "fake_lean"
    code_version: ClassVar[int] = 1
    reads_data: ClassVar[bool] = False
    libraries: ClassVar[tuple[str, ...]] = ()

    accuracy: float = 0.97
    latency_s: float = 0.0002

    def make(self, candidate: Candidate, context: StepContext) -> Made:
        settings = {**candidate.settings, "accuracy": self.accuracy, "latency_s": self.latency_s}
        return Made(settings=settings)


def task_at(folder: Path, n_test: int = 1500) -> Path:
    rng = random.Random(0)
    sizes = {"train": 300, "dev": 800, "test": n_test}
    lines = []
    for split, size in sizes.items():
        for i in range(size):
            label = rng.choice(LABELS)
            text = f"{split} {i}: my {label} question about order {rng.randrange(10**9)}"
            lines.append({"id": f"{split}-{i}", "text": text, "label": label, "split": split})
    (folder / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    path = folder / "task.toml"
    path.write_text(
        'format = 1\nname = "questions"\nkind = "classify"\n[data]\npath = "data.jsonl"\n'
        '[data.columns]\ninput = "text"\nexpected = "label"\nid = "id"\nsplit = "split"\n'
    )
    return path


def config_at(folder: Path, *lean: dict[str, object], gates=TWO_POINTS, **more) -> RunConfig:
    (folder / "large").mkdir()
    incumbent = {"accuracy": 0.97, "latency_s": 0.0008}
    write_candidate(folder / "large", name="large", backend="fake", labels=LABELS, settings=incumbent)
    recipes = [
        {"name": step["name"], "steps": [{"step": "fake_lean", **without_name(step)}]} for step in lean
    ]
    return RunConfig(
        task=str(task_at(folder)),
        incumbent=str(folder / "large"),
        output=str(folder / "run"),
        recipes=recipes,
        gates=gates,
        n_cost_tasks=20,
        cost_s=0.6,
        cost_openings=1,
        **more,
    )


def without_name(step: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in step.items() if key != "name"}
