"""Two runs with one seed, in folders of their own, give one decision: weights, answers and verdicts."""

import shutil
from pathlib import Path

import msgspec
import pytest

from jettison.decision import Decision, NotWorse
from jettison.loop.config import RunConfig
from jettison.loop.run import run
from tiny import make_tiny_task, train_tiny_bert

RECIPES = [
    {"name": "linear", "steps": [{"step": "distill_linear", "augment": 200}]},
    {
        "name": "healed",
        "steps": [{"step": "narrow"}, {"step": "distill", "epochs": 1}, {"step": "quantize"}],
    },
]
TASK = """\
format = 1
name = "tiny"
kind = "classify"
[data]
path = "data.jsonl"
[data.columns]
input = "text"
expected = "label"
split = "split"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: data, and a trained classifier."""
    folder = tmp_path_factory.mktemp("user")
    sizes = {"train": 160, "dev": 300, "unlabelled": 60, "test": 500}
    task = make_tiny_task(folder / "made", out_of_scope=False, **sizes)
    data = task.development
    splits = {"train": data.train, "dev": data.dev, "unlabelled": data.unlabelled}
    splits["test"] = task.read_test(purpose="to write it down").examples
    rows = [
        {"text": example.input, "label": example.expected, "split": split}
        for split, examples in splits.items()
        for example in examples
    ]
    (folder / "data.jsonl").write_bytes(b"\n".join(msgspec.json.encode(row) for row in rows))
    (folder / "task.toml").write_text(TASK)
    train_tiny_bert(folder / "model", data)
    return folder


def decided(folder: Path, budget: str | None) -> Decision:
    """What a run in this folder decides in this time."""
    config = RunConfig(
        task=str(folder / "task.toml"),
        incumbent=str(folder / "model"),
        output=str(folder / "run"),
        recipes=RECIPES,
        gates=(NotWorse(margin=0.05),),
        epsilons=(0.02,),
        n_cost_tasks=20,
        cost_s=0.3,
        cost_openings=1,
        n_shown=1,
        safety=False,
        seed=3,
        budget=budget,
    )
    return run(config).decision


def without_clocks(decision: Decision) -> dict[str, object]:
    """A decision without what a clock has a part in: costs, and the words made of them."""
    return {
        "verdict": decision.verdict,
        "chosen": decision.chosen,
        "candidates": [
            (c.name, c.digest, c.role, c.verdict, c.scores, c.n, [gate for gate in c.gates if gate.slice])
            for c in decision.candidates
        ],
        "gates": decision.gates,
        "test": (decision.test_digest, decision.n_test_reads),
        "seed": decision.seed,
    }


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_two_runs_with_one_seed_give_one_decision(folder: Path, tmp_path: Path) -> None:
    found = []
    for name, budget in (("here", None), ("there", "10h")):  # a deadline that nothing comes near
        shutil.copytree(folder, tmp_path / name, ignore=shutil.ignore_patterns("made"))
        found.append(decided(tmp_path / name, budget))
    here, there = found
    assert without_clocks(here) == without_clocks(there)
    assert here.chosen is not None
    assert any(gate.flips and gate.flips.churn + gate.flips.harmful for gate in here.candidates[1].gates)
