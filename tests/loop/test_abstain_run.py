"""A run that abstains, to its end: decision, report, release, `jettison predict` and gateway agree."""

import json
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateways import ask, config_of, records_in, running
from jettison.candidate import Candidate, write_candidate
from jettison.cli.main import main
from jettison.decision import NotWorse, Verdict
from jettison.loop.config import RunConfig
from jettison.loop.run import Outcome, run
from jettison.record import Record, read_records
from releasing import make_decision, make_release
from tiny import FILLERS

LABELS = ("balance", "weather", "alarm", "music", "oos")
RECIPES = [{"name": "linear", "steps": [{"step": "distill_linear", "augment": 200}]}]
TASK = """\
format = 1
name = "tiny"
kind = "classify"
[data]
path = "data.jsonl"
[data.columns]
id = "id"
input = "text"
expected = "label"
split = "split"
[labels]
out_of_scope = "oos"
"""


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: data of which a fifth is out of scope, and a slow model that is right on most."""
    folder = tmp_path_factory.mktemp("user")
    rng = random.Random(0)
    rows = []
    for split, n in {"train": 200, "dev": 400, "test": 500}.items():
        for number in range(n):
            label = LABELS[number % len(LABELS)]
            words = [
                *rng.choices(FILLERS, k=4),
                label,
                *rng.choices(FILLERS, k=2),
                str(rng.randrange(10**6)),
            ]
            rows.append(
                {"id": f"{split}-{number}", "text": " ".join(words), "label": label, "split": split}
            )
    (folder / "data.jsonl").write_bytes(b"\n".join(msgspec.json.encode(row) for row in rows))
    (folder / "task.toml").write_text(TASK)
    (folder / "model").mkdir()
    settings = {"accuracy": 0.97, "latency_s": 0.001}
    write_candidate(
        folder / "model",
        name="model",
        backend="fake",
        labels=LABELS,
        out_of_scope="oos",
        settings=settings,
    )
    return folder


def decided(user: Path, output: Path) -> Outcome:
    config = RunConfig(
        task=str(user / "task.toml"),
        incumbent=str(user / "model"),
        output=str(output),
        recipes=RECIPES,
        gates=(
            NotWorse(slices=("scope=in",), margin=0.1),
            NotWorse(scorer="out_of_scope", slices=("scope=out",), margin=0.2),
        ),
        epsilons=(0.02, 0.05),
        when_out_of_scope="abstain",
        false_alarm_share=0.03,
        n_cost_tasks=20,
        cost_s=0.3,
        n_shown=2,
        safety=False,
    )
    return run(config)


@pytest.fixture(scope="module")
def abstaining(user: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return decided(user, tmp_path_factory.mktemp("runs") / "abstain")


def records_of(outcome: Outcome, digest: str) -> dict[str, Record]:
    """The test records of a candidate, by example."""
    for path in (outcome.folder / "cache" / "records").glob("test-*.parquet"):
        found = read_records(path)
        if found[0].candidate == digest:
            return {record.example_id: record for record in found}
    raise AssertionError(digest)


def predicted(release: Path, texts: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What `jettison predict` says of a file, by example."""
    with pytest.raises(SystemExit) as stopped:
        main(["predict", str(release), "--input", str(texts), "--json"])
    assert stopped.value.code == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return {row["id"]: row for row in rows}


def served(release: Path, texts: dict[str, str], state: Path) -> tuple[dict[str, str], list[Record]]:
    """What a gateway answers to each text, and what it logs."""
    with running(config_of(state, release=str(release))) as gateway:
        said = {
            name: ask(gateway, text).json["choices"][0]["message"]["content"]
            for name, text in texts.items()
        }
        return said, [record for record in records_in(gateway) if record.role == "answer"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_run_that_abstains_says_the_same_everywhere(
    user: Path, abstaining: Outcome, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    decision, release = abstaining.decision, abstaining.release
    assert decision.verdict is Verdict.SHIP
    assert release is not None
    lines = [line for line in (user / "data.jsonl").read_text().splitlines() if '"split":"test"' in line]
    (tmp_path / "test.jsonl").write_text("\n".join(lines))
    texts = {row["id"]: row["text"] for row in map(json.loads, lines)}
    expected = {row["id"]: row["label"] for row in map(json.loads, lines)}
    # The one that was chosen, and a cascade that was put to the test as well, released by hand.
    reports = {report.name: report for report in decision.candidates}
    made = {decision.chosen: release}
    cascades = [c for c in _candidates(abstaining) if c.backend == "cascade" and c.name in reports]
    made[cascades[0].name] = _released(tmp_path / "by-hand", cascades[0])
    for name, folder in made.items():
        report = reports[name]
        records = records_of(abstaining, report.digest)
        offline = predicted(folder, tmp_path / "test.jsonl", capsys)
        live, logged = served(folder, dict(list(texts.items())[:100]), tmp_path / f"state-{len(name)}")
        for example, answer in offline.items():
            record = records[example]
            assert (answer["label"], answer["abstained"]) == (record.output, record.abstained), example
            assert not answer["abstained"] or answer["label"] == "oos"
        assert live == {example: offline[example]["label"] for example in live}
        assert [r.abstained for r in logged] == [offline[example]["abstained"] for example in live]
        kept = 1 - sum(answer["abstained"] for answer in offline.values()) / len(offline)
        right = sum(answer["label"] == expected[i] for i, answer in offline.items()) / len(offline)
        assert report.scores["all"]["coverage"] == pytest.approx(kept)
        assert report.scores["all"]["accuracy"] == pytest.approx(right)
        assert 0.5 < kept < 0.95  # a fifth of the inputs is out of scope
    assert reports["incumbent"].scores["all"]["coverage"] == 1.0
    kept = reports[decision.chosen].scores["all"]["coverage"]
    assert any(
        f"{decision.chosen} abstains" in c and f"to {100 * (1 - kept):.1f} %" in c for c in decision.caveats
    )
    assert "coverage" in (abstaining.folder / "report.md").read_text()


def _candidates(outcome: Outcome) -> list[Candidate]:
    folders = (outcome.folder / "cache" / "calibrated").glob("*/candidate.json")
    return [Candidate.at(path.parent) for path in sorted(folders)]


def _released(folder: Path, candidate: Candidate) -> Path:
    decision = make_decision(candidate, chosen=candidate.name)
    report = msgspec.structs.replace(decision.candidates[0], name=candidate.name)
    decision = msgspec.structs.replace(decision, candidates=(report,))
    return make_release(folder, candidate=candidate, decision=decision).path
