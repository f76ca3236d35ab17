"""A candidate may abstain from what looks out of scope: right on a stranger, a miss on everyone else."""

from pathlib import Path

import msgspec
import pytest

from fake_runs import config_at
from gateways import ask, config_of, running
from jettison.backends.abstain import abstains
from jettison.backends.open import open_model
from jettison.decide.metrics import summarize
from jettison.errors import InvalidInput
from jettison.evaluate import evaluate
from jettison.evaluate.calibrate import calibrate
from jettison.evaluate.recalibrate import uncalibrated
from jettison.loop.run import run
from jettison.model import ScopeRanks
from jettison.route import Cascade, Single
from jettison.serve.calls import Answer, Reply
from jettison.serve.routing import CascadeNode
from jettison.task import Development
from releasing import EXAMPLES, LABELS, make_candidate, make_release


def test_what_is_flagged_is_answered_by_the_out_of_scope_label(tmp_path: Path) -> None:
    plain = evaluate(
        make_candidate(tmp_path / "plain", margin=2.0), EXAMPLES, split="test", scorers=("label",)
    )
    careful = make_candidate(tmp_path / "careful", margin=2.0, when_out_of_scope="abstain")
    found = evaluate(careful, EXAMPLES, split="test")
    assert 0 < sum(r.abstained for r in found if r.expected != "oos") < 40
    for before, after in zip(plain, found, strict=True):
        withheld = before.flagged or before.output == "oos"
        assert after.abstained == withheld
        assert after.output == ("oos" if withheld else before.output)
        # Right on what is out of scope, a miss on what is not.
        assert after.scores["label"] == float(after.output == after.expected)
        assert (after.in_scope, after.flagged) == (before.in_scope, before.flagged)
    n_kept = sum(not r.abstained for r in found)
    assert summarize(found)["all"]["coverage"] == n_kept / len(found)
    assert summarize(plain)["all"]["coverage"] == 1.0


def test_calibration_makes_a_candidate_abstain_and_so_another_one(tmp_path: Path) -> None:
    fruit = tuple(msgspec.structs.replace(e, id=f"d{e.id}", input=f"{e.input} more") for e in EXAMPLES)
    data = Development(
        name="fruit",
        kind="classify",
        labels=LABELS,
        out_of_scope="oos",
        train=(),
        dev=(*EXAMPLES, *fruit),
        unlabelled=(),
    )
    raw = make_candidate(tmp_path / "raw")
    careful = calibrate(raw, data, cache=tmp_path / "cache", abstain=True)
    plain = calibrate(raw, data, cache=tmp_path / "cache")
    assert careful.digest != plain.digest
    assert (abstains(careful), abstains(plain)) == (True, False)
    texts = [example.input for example in EXAMPLES]
    for one, other in zip(
        open_model(careful).predict(texts), open_model(plain).predict(texts), strict=True
    ):
        assert one.abstained == (other.flagged or other.label == "oos")
    found = uncalibrated(careful)
    assert found is not None
    assert not abstains(found)


def test_a_served_release_abstains(tmp_path: Path) -> None:
    careful = make_candidate(tmp_path / "careful", margin=2.0, when_out_of_scope="abstain")
    make_release(tmp_path, candidate=careful)
    outputs = open_model(careful).predict([f"pear {i}" for i in range(12)])
    assert {output.label for output in outputs} == {"pear", "oos"}
    with running(config_of(tmp_path, release=str(tmp_path / "7"))) as gateway:
        for i, output in enumerate(outputs):
            said = ask(gateway, f"pear {i}").json["choices"][0]["message"]["content"]
            assert said == output.label


def test_a_served_cascade_abstains_by_its_own_rank_as_the_one_offline_does() -> None:
    ranks = ScopeRanks([0.0, 0.5, 1.0], 0.2)
    plan = Cascade(lean=Single(candidate="a"), fallback=Single(candidate="b"), threshold=0.5)
    live = CascadeNode(
        None,
        None,
        plan,
        behind=None,
        metrics=None,
        out_of_scope="oos",
        ranks=ranks,
        abstains=True,  # type: ignore[arg-type]
    )
    for rank, said in ((0.1, "oos"), (0.9, "pear")):
        reply = Reply(candidate="", model="", answer=Answer(text="pear"), output="pear", in_scope=rank)
        told = live._told(reply, "lean")
        assert (told.output, told.answer.text) == (said, said)


def test_a_run_without_an_out_of_scope_label_cannot_abstain(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"when_out_of_scope must be left out of a run on a task"):
        run(config_at(tmp_path, when_out_of_scope="abstain"))
