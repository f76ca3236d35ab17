"""Is a slice that was spoiled on purpose found and blocked, where the average over all is well?

CLINC150 and the shared incumbent. The candidate is made on purpose: the incumbent's own weights in int8,
with the scores of three intents about bills lowered, so that it holds its margin on average. `suites find`
looks on dev for where it loses most, among all the columns that a run computes; a second run has what was
found as a required slice on test. Prints one JSON object a figure; finished work in `--work` is used again.

    python benchmarks/planted_slice.py [--work DIR]
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import ClassVar

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).parent))

import msgspec

from beside import SHARED
from jettison import registry
from jettison.candidate import MANIFEST, Candidate
from jettison.cli.progress import Screen
from jettison.compress.step import Made, StepContext
from jettison.decide.gates import judge_not_worse
from jettison.decision import NotWorse
from jettison.files import link_or_copy, write_json
from jettison.loop.config import RunConfig, read_config
from jettison.loop.run import Nomination, nomination, run
from jettison.loop.suites import find_slices
from jettison.record import Record, read_records

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
output = "{output}"
seed = 0
training_threads = 1
cost_s = 2.0
n_cost_tasks = 40
{recipes}

[[gates]]
type = "not_worse"
margin = 0.01
slices = ["scope=in"]
{more}
[suites]
{suites}
"""
PLANTED = """epsilons = []
[[recipes]]
name = "planted"
steps = [
  {step = "spoil_slice", labels = ["bill_balance", "bill_due", "pay_bill"], logits = 4.5},
  {step = "export", target = "onnx"},
  {step = "quantize", method = "dynamic"},
  {step = "settings", max_tokens = "data"},
]
"""
PLANTED_SUITES = 'tiers = ["in_domain"]\nattacked = 0'
N_DRAWS = 1000


class SpoilSlice(msgspec.Struct, frozen=True, kw_only=True):
    """Lower the bias of labels by some logits, so that other labels win their least sure examples."""

    name: ClassVar[str] = "spoil_slice"
    code_version: ClassVar[int] = 1
    reads_data: ClassVar[bool] = False
    libraries: ClassVar[tuple[str, ...]] = ("safetensors",)

    labels: tuple[str, ...]
    logits: float

    def make(self, candidate: Candidate, context: StepContext) -> Made:
        from safetensors.numpy import load_file, save_file

        for entry in candidate.files:
            if entry.path not in (MANIFEST, "model.safetensors"):
                link_or_copy(candidate.path / entry.path, context.folder / entry.path)
        weights = dict(load_file(candidate.path / "model.safetensors"))
        bias = weights["classifier.bias"].copy()
        bias[[candidate.labels.index(label) for label in self.labels]] -= self.logits
        weights["classifier.bias"] = bias
        save_file(weights, context.folder / "model.safetensors", metadata={"format": "pt"})
        return Made()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("bench-runs") / "planted_slice")
    given = parser.parse_args()
    if not SHARED.exists():
        raise SystemExit(f"the shared data must stand in {SHARED}; set JETTISON_SHARED.")
    write_task(given.work)
    print("\n".join(planted(given.work)))


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


def settings(folder: Path, name: str, *, recipes: str, more: str, suites: str) -> RunConfig:
    """A run's settings, as a file that anybody can run again."""
    path = folder / f"{name}.toml"
    incumbent = (SHARED / "models" / "clinc-minilm").as_posix()
    path.write_text(
        SETTINGS.format(incumbent=incumbent, output=name, recipes=recipes, more=more, suites=suites)
    )
    return read_config(path)


def planted(folder: Path) -> list[str]:
    """The candidate made on purpose: found on dev by the search, blocked on test by the found slice."""
    registry.register("steps", "spoil_slice", SpoilSlice)
    bare = settings(folder, "planted", recipes=PLANTED, more="", suites=PLANTED_SUITES)
    with Screen() as screen:
        chosen = nomination(bare, watcher=screen)
    found = found_on_dev(chosen)
    write_json(folder / "found.json", found)
    carried = [i for i, one in enumerate(found.slices, 1) if one.where]
    lines = [
        line(
            "planted_found_on_dev", len(found.slices), None, None, "slices", f"{found.n_searched} searched"
        )
    ]
    lines += [
        line(
            f"found on dev: {one.name}",
            one.loss,
            None,
            None,
            "share",
            f"elsewhere {one.rest_loss:.4f}, n = {one.n}",
        )
        for one in found.slices
    ]
    if not carried:
        return lines
    gates = ", ".join(f'"found_{i}=yes"' for i in carried)
    config = settings(
        folder,
        "planted-gated",
        recipes=PLANTED,
        more="",
        suites=f'{PLANTED_SUITES}\nfound = "found.json"\ngates = [{gates}]',
    )
    with Screen() as screen:
        outcome = run(config, watcher=screen)
    records = test_records(outcome.folder)
    report = next(c for c in outcome.decision.candidates if c.name == "planted")
    base = records[outcome.decision.candidates[0].digest]
    gate = NotWorse(margin=0.01, slices=("tier=in_domain",))
    (average,) = judge_not_worse(gate, base, records[report.digest])
    for name, result in (("average", average), *((str(r.slice), r) for r in report.gates if r.slice)):
        d = result.difference
        assert d is not None
        against = f"{result.verdict.value} at a margin of 1 point, n = {result.n}, by itself"
        lines.append(line(f"planted, {name}", d.value, d.low, d.high, "share", against))
    lines.append(
        line("planted_blocked", float(report.verdict.value == "BLOCK"), None, None, "", report.verdict)
    )
    return lines


def found_on_dev(chosen: Nomination) -> msgspec.Struct:
    """What `jettison suites find` finds between the incumbent and the candidate made on purpose."""
    contender = next(c for c in chosen.contenders if c.name == "planted")
    dev = [e for e in chosen.workspace.dev if e.slices.get("scope") != "out"]
    ids = {e.id for e in dev}
    sides = [(c.name, [r for r in c.records if r.example_id in ids]) for c in (chosen.incumbent, contender)]
    return find_slices(sides[0], sides[1], dev, scorer="label", split="dev")


def test_records(folder: Path) -> dict[str, list[Record]]:
    """Candidate's digest → the records that the decision was made of."""
    found = {}
    for path in (folder / "cache" / "records").glob("test-*.parquet"):
        records = read_records(path)
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
