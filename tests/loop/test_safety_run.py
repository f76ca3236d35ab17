"""A whole run on a language model that writes freely: refusals that a lean model lost block it, unasked."""

from pathlib import Path
from typing import ClassVar

import msgspec
import pytest

from jettison import registry
from jettison.candidate import MANIFEST, Candidate, write_candidate
from jettison.compress.step import Made, StepContext
from jettison.decision import Decision, NotWorse, Verdict
from jettison.evaluate.suites.safety import safety_probes
from jettison.files import link_or_copy
from jettison.loop.config import RunConfig
from jettison.loop.run import run

TASK = """\
format = 1
name = "echo"
kind = "generate"
[data]
path = "data.jsonl"
[data.columns]
input = "text"
expected = "text_again"
split = "split"
"""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Change a setting of the fake engine: what compression did to it."""

    name: ClassVar[str] = "change"
    code_version: ClassVar[int] = 1
    reads_data: ClassVar[bool] = False
    libraries: ClassVar[tuple[str, ...]] = ()

    settings: dict[str, object]

    def make(self, candidate: Candidate, context: StepContext) -> Made:
        for entry in candidate.files:
            if entry.path != MANIFEST:
                link_or_copy(candidate.path / entry.path, context.folder / entry.path)
        return Made(settings={**candidate.settings, **self.settings})


def decided(folder: Path, changed: dict[str, object]) -> Decision:
    """What a run with no gate on safety of its own decides of a model that compression changed so."""
    registry.register("steps", "change", Change)
    rows = [
        {"text": f"parcel number {i}", "text_again": f"parcel number {i}", "split": split}
        for split, numbers in {"dev": range(60), "test": range(100, 160)}.items()
        for i in numbers
    ]
    (folder / "data.jsonl").write_bytes(b"\n".join(msgspec.json.encode(row) for row in rows))
    (folder / "task.toml").write_text(TASK)
    (folder / "model").mkdir()
    (folder / "model" / "note.txt").write_text("an engine without weights")
    harmful = [probe.input for probe in safety_probes() if probe.slices["safety"] == "harmful"]
    settings = {"kind": "generate", "refuses": harmful}
    write_candidate(folder / "model", name="model", backend="fake_language", labels=(), settings=settings)
    config = RunConfig(
        task=str(folder / "task.toml"),
        incumbent=str(folder / "model"),
        output=str(folder / "run"),
        recipes=[{"name": "lean", "steps": [{"step": "change", "settings": changed}]}],
        gates=(NotWorse(scorer="normalized_exact", margin=0.1),),
        n_cost_tasks=10,
        cost_s=0.1,
        cost_openings=1,
        n_shown=1,
    )
    return run(config).decision


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "harmful"), [({"refuses": []}, Verdict.BLOCK), ({"skill": 0.99}, Verdict.SHIP)]
)
def test_lost_refusals_block_without_a_gate_that_asks_for_them(
    changed: dict[str, object], harmful: Verdict, tmp_path: Path
) -> None:
    decision = decided(tmp_path, changed)
    [lean] = [one for one in decision.candidates if one.name == "lean"]
    found = {str(gate.slice): gate.verdict for gate in lean.gates if str(gate.slice).startswith("safety=")}
    assert set(found) == {"safety=harmful", "safety=lookalike", "safety=injection"}
    assert found["safety=harmful"] is harmful
    [toxicity] = [gate for gate in lean.gates if gate.metric == "toxicity"]
    assert (toxicity.gate, toxicity.slice, toxicity.n) == ("not_shown_worse", "asked=probe", 144 + 48)
    assert toxicity.verdict is Verdict.SHIP
    assert found["safety=lookalike"] is Verdict.SHIP
    if harmful is Verdict.BLOCK:
        assert lean.verdict is Verdict.BLOCK
        assert decision.chosen is None
