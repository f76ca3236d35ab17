"""Is a candidate that is equal on average and worse on a slice found and blocked?

CLINC150 and the shared incumbent. The candidate is made on purpose, in the biases of its last layer: the
incumbent's own weights in int8, with the scores of three intents about bills lowered, and those of other
intents moved until exactly as many in-scope answers are right as the incumbent's, on dev and on test (whose
labels are read for that: the truth of a plant must be known). `suites find` looks on dev for where it loses
most, among all the columns that a run computes; a run then has what was found as a required slice on test.
Prints one JSON object a figure; finished work in `--work` is used again.

    python benchmarks/planted_slice.py [--work DIR]
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).parent))

import msgspec
import numpy as np

from beside import SHARED
from jettison import registry
from jettison.candidate import MANIFEST, Candidate
from jettison.cli.progress import Screen
from jettison.compress.step import Made, StepContext
from jettison.decision import CandidateReport
from jettison.files import link_or_copy, read_json, write_json
from jettison.loop.config import RunConfig, read_config
from jettison.loop.run import Nomination, Outcome, nomination, run
from jettison.loop.suites import FoundSlices, find_slices
from jettison.loop.workspace import Workspace
from jettison.record import Record, read_records
from jettison.task import Example

TASK = """\
format = 1
name = "clinc150-imbalanced"
kind = "classify"
[data]
path = "data.jsonl"
[data.columns]
input = "text"
expected = "label"
split = "split"
slices = ["domain"]
[labels]
out_of_scope = "oos"
"""
SETTINGS = """\
format = 1
task = "task.toml"
incumbent = "{incumbent}"
output = "run"
seed = 0
training_threads = 1
cost_s = 1.0
cost_openings = 1
n_cost_tasks = 40
epsilons = []

[[recipes]]
name = "{name}"
steps = [
  {shift}
  {{step = "export", target = "onnx"}},
  {{step = "quantize", method = "dynamic"}},
  {{step = "settings", max_tokens = "data"}},
]

[[gates]]
type = "not_worse"
margin = 0.01
slices = ["scope=in"]

[suites]
tiers = ["in_domain", "out_of_domain"]
attacked = 0
{suites}
"""
BILLS = ("bill_balance", "bill_due", "pay_bill")
LOWERED = 4.9
"""Logits; little enough that the rest can make good for it, exactly."""
MOVES = (-1.0, -0.5, -0.25, 0.25, 0.5, 1.0)
MOST_MOVED = 60
PLAIN, PLANTED = "onnx-int8", "planted"


class ShiftLabels(msgspec.Struct, frozen=True, kw_only=True):
    """Add some logits to labels' biases in the last layer."""

    name: ClassVar[str] = "shift_labels"
    code_version: ClassVar[int] = 1
    reads_data: ClassVar[bool] = False
    libraries: ClassVar[tuple[str, ...]] = ("safetensors",)

    by: dict[str, float]

    def make(self, candidate: Candidate, context: StepContext) -> Made:
        from safetensors.numpy import load_file, save_file

        for entry in candidate.files:
            if entry.path not in (MANIFEST, "model.safetensors"):
                link_or_copy(candidate.path / entry.path, context.folder / entry.path)
        weights = dict(load_file(candidate.path / "model.safetensors"))
        bias = weights["classifier.bias"].copy()
        for label, logits in self.by.items():
            bias[candidate.labels.index(label)] += logits
        weights["classifier.bias"] = bias
        save_file(weights, context.folder / "model.safetensors", metadata={"format": "pt"})
        return Made()


class Answered(NamedTuple):
    """In-scope answers of the plain candidate on one split, and how many the incumbent has right."""

    logits: np.ndarray
    right: np.ndarray
    """Index of the right label, shape (n_examples,)."""
    wanted: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("bench-runs") / "planted_slice")
    folder = parser.parse_args().work.resolve()
    if not SHARED.exists():
        raise SystemExit(f"the shared data must stand in {SHARED}; set JETTISON_SHARED.")
    registry.register("steps", "shift_labels", ShiftLabels)
    write_task(folder)
    by = shifts(folder)
    with Screen() as screen:
        chosen = nomination(settings(folder, by, suites=""), watcher=screen)
    found = found_on_dev(chosen)
    write_json(folder / "found.json", found)
    for one in found.slices:
        said = f"elsewhere {one.rest_loss:.4f}, n = {one.n}, of {found.n_searched} searched"
        print(line(f"found on dev: {one.name}", one.loss, None, None, "share", said))
    carried = [i for i, one in enumerate(found.slices, 1) if one.where]
    if not carried:
        raise SystemExit("the planted slice was not found on dev.")
    required = ", ".join(f'"found_{i}=yes"' for i in carried)
    with Screen() as screen:
        outcome = run(
            settings(folder, by, suites=f'found = "found.json"\ngates = [{required}]'), watcher=screen
        )
    print("\n".join(figures(outcome, by)))


def write_task(folder: Path) -> None:
    """Train of the imbalanced set with its out-of-scope examples; dev and test of the full one."""
    folder.mkdir(parents=True, exist_ok=True)
    data = SHARED / "data" / "clinc150"
    full = [json.loads(line) for line in (data / "clinc150.jsonl").read_text().splitlines()]
    domain = {row["label"]: row["domain"] for row in full}
    splits = {"val": "dev", "test": "test"}
    rows = [{**row, "split": splits[row["split"]]} for row in full if row["split"] in splits]
    rows += [row for row in full if row["split"] == "train" and row["label"] == "oos"]
    for line in (data / "train_imbalanced.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["label"] != "oos":
            rows.append({**row, "domain": domain[row["label"]], "split": "train"})
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "task.toml").write_text(TASK)


def settings(folder: Path, by: dict[str, float], *, suites: str) -> RunConfig:
    """A run's settings, as a file that anybody with the step can run again."""
    path = folder / "jettison.toml"
    moved = ", ".join(f"{label!r} = {logits}" for label, logits in by.items()).replace("'", '"')
    path.write_text(
        SETTINGS.format(
            incumbent=(SHARED / "models" / "clinc-minilm").as_posix(),
            name=PLANTED if by else PLAIN,
            shift=f'{{step = "shift_labels", by = {{{moved}}}}},' if by else "",
            suites=suites,
        )
    )
    return read_config(path)


def shifts(folder: Path) -> dict[str, float]:
    """The plant: label → logits; kept in `--work`."""
    kept = folder / "plant.json"
    if kept.exists():
        return read_json(kept, dict[str, float])
    with Screen() as screen:
        plain = nomination(settings(folder, {}, suites=""), watcher=screen)
    workspace, candidate = plain.workspace, plain.contenders[0].candidate
    # Asked as the run will ask: the activations of dynamic int8 are scaled by what else is in a batch.
    read = workspace.task.read_test(purpose="the labels of a plant")
    test = workspace.slicer.apply(read.examples)
    on_test = [_asked(workspace, one, test) for one in (candidate, plain.incumbent.candidate)]
    splits = [
        answered(candidate.labels, plain.contenders[0].records, plain.incumbent.records),
        answered(candidate.labels, *on_test),
    ]
    by = planted_shifts(candidate.labels, splits)
    write_json(kept, by)
    return by


def _asked(workspace: Workspace, candidate: Candidate, examples: Sequence[Example]) -> Sequence[Record]:
    return workspace.records(candidate, examples, "test", keep_logits=True)


def answered(labels: Sequence[str], ours: Sequence[Record], theirs: Sequence[Record]) -> Answered:
    """Logits of the one and the right answers of the other, in scope."""
    inside = [r for r in ours if r.expected != "oos"]
    return Answered(
        logits=np.array([r.logits for r in inside], float),
        right=np.array([labels.index(str(r.expected)) for r in inside]),
        wanted=sum(_is_right(r) for r in theirs if r.expected != "oos"),
    )


def planted_shifts(labels: Sequence[str], splits: Sequence[Answered]) -> dict[str, float]:
    """Bills are lowered; then one other label at a time is moved, always the one that brings both splits
    nearest to the incumbent's count of right answers while no answer about bills comes back."""
    bills = [labels.index(label) for label in BILLS]
    others = [k for k, label in enumerate(labels) if k not in bills and label != "oos"]
    by = np.zeros(len(labels))
    by[bills] -= LOWERED
    for _ in range(MOST_MOVED):
        now = [_Moved(split, by, bills) for split in splits]
        if not sum(one.off for one in now):
            break
        tries = {(k, m): sum(one.off_after(k, m) for one in now) for k in others for m in MOVES}
        k, move = min(tries, key=lambda one: tries[one])
        if tries[k, move] >= sum(one.off for one in now):
            break
        by[k] += move
    return {label: float(logits) for label, logits in zip(labels, by, strict=True) if logits}


class _Moved:
    """Answers of one split at the moves made so far, and what one more would come to."""

    def __init__(self, split: Answered, by: np.ndarray, bills: Sequence[int]) -> None:
        self._logits = split.logits + by
        self._right, self._wanted = split.right, split.wanted
        self._rows = np.arange(len(self._right))
        best_two = np.argpartition(self._logits, -2, axis=1)[:, -2:]
        values = np.take_along_axis(self._logits, best_two, axis=1)
        order = np.argsort(values, axis=1)
        self._second, self._best = np.take_along_axis(best_two, order, axis=1).T
        self._about_bills = np.isin(self._right, bills)
        self._bills_right = int(((self._best == self._right) & self._about_bills).sum())
        self.off = abs(int((self._best == self._right).sum()) - self._wanted)

    def off_after(self, k: int, move: float) -> float:
        """Right answers away from the incumbent's if label k moved; endless where bills were helped."""
        rival = np.where(self._best == k, self._second, self._best)
        taken = self._logits[:, k] + move > self._logits[self._rows, rival]
        hit = np.where(taken, k, rival) == self._right
        if (hit & self._about_bills).sum() > self._bills_right:
            return float("inf")
        return abs(int(hit.sum()) - self._wanted)


def found_on_dev(chosen: Nomination) -> FoundSlices:
    """What `jettison suites find` finds between the incumbent and the candidate made on purpose."""
    contender = next(c for c in chosen.contenders if c.name == PLANTED)
    dev = [e for e in chosen.workspace.dev if e.slices.get("scope") != "out"]
    ids = {e.id for e in dev}
    sides = [(c.name, [r for r in c.records if r.example_id in ids]) for c in (chosen.incumbent, contender)]
    return find_slices(sides[0], sides[1], dev, scorer="label", split="dev")


def figures(outcome: Outcome, by: dict[str, float]) -> list[str]:
    """Right answers of both, and what each gate says by itself."""
    reports = {report.name: report for report in outcome.decision.candidates}
    incumbent, planted = outcome.decision.candidates[0], reports[PLANTED]
    records = records_on_test(outcome.folder)
    lines = [line("labels moved", len(by), None, None, "labels", "the incumbent's 151 labels")]
    for report in (incumbent, planted):
        inside = [r for r in records[report.digest] if r.slices["tier"] == "in_domain"]
        right, about = sum(map(_is_right, inside)), [r for r in inside if r.expected in BILLS]
        lines += [
            line(f"right in scope, {report.name}", right, None, None, "answers", f"of {len(inside):,}"),
            line(
                f"right about bills, {report.name}",
                sum(map(_is_right, about)),
                None,
                None,
                "answers",
                f"of {len(about)}",
            ),
        ]
    return [*lines, *_gates(planted)]


def _gates(planted: CandidateReport) -> list[str]:
    lines = []
    for result in planted.gates:
        if (d := result.difference) is not None:
            said = f"{result.verdict.value} at a margin of 1 point, n = {result.n}, by itself"
            lines.append(line(f"planted, {result.slice}", d.value, d.low, d.high, "share", said))
    blocked = float(planted.verdict.value == "BLOCK")
    return [*lines, line("planted_blocked", blocked, None, None, "", planted.verdict.value)]


def _is_right(record: Record) -> bool:
    return record.scores["label"] == 1.0


def records_on_test(folder: Path) -> dict[str, list[Record]]:
    """Candidate's digest → the records that the decision was made of.

    An arm of a cascade also has records of just what it was asked: all of the split are more.
    """
    found: dict[str, list[Record]] = {}
    for path in sorted((folder / "cache" / "records").glob("test-*.parquet"), key=os.path.getmtime):
        records = read_records(path)
        if len(records) >= len(found.get(records[0].candidate, ())):
            found[records[0].candidate] = records
    return found


def line(
    name: str, value: float | None, low: float | None, high: float | None, unit: str, against: str
) -> str:
    """One figure."""
    rounded = {
        key: None if v is None else round(float(v), 5)
        for key, v in (("value", value), ("low", low), ("high", high))
    }
    return json.dumps({"name": name, **rounded, "unit": unit, "against": against})


if __name__ == "__main__":
    main()
