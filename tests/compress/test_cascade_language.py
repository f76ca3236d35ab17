"""Cascades of language models for choices, objects and free text: by probability, agreement, a verifier."""

import json
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from jettison import registry
from jettison.backends.prompted import PromptedModel, open_prompted
from jettison.backends.verifier import FILE
from jettison.candidate import Candidate, write_candidate
from jettison.compress.cascade import make_cascade
from jettison.compress.step import StepContext, apply_step, step_from
from jettison.errors import BrokenArtifact, NotEnoughData, StepFailed, Unsupported
from jettison.evaluate import evaluate
from jettison.language import Ask, Completion, Continuation, Likelihood
from jettison.record import Cost, Record, mean_score
from jettison.task import Development, Example
from jettison.task.prompt import Message
from jettison.testing import check_step

KINDS = {"choose": "label", "extract": "field_f1", "generate": "normalized_exact"}
N_DEV, N_NEW = 600, 400


class Unsure:
    """Knows three orders in four, and seldom guesses the others; it sounds as sure as it is."""

    def __init__(self, share_known: float) -> None:
        self._share_known = share_known

    def complete(self, asks: Sequence[Ask]) -> list[Completion]:
        return [self._complete(ask) for ask in asks]

    def _complete(self, ask: Ask) -> Completion:
        said = ask.messages[-1].content if ask.messages else str(ask.text)
        number = int(re.findall(r"order (\d+)", said)[-1])
        draw = zlib.crc32(f"{number}".encode()) / 2**32
        knows = draw < self._share_known
        guess = number if knows else zlib.crc32(f"{number} {ask.seed}".encode()) % 7
        if ask.choices:
            text = f"order {number}" if knows else ask.choices[guess % len(ask.choices)]
        else:
            text = json.dumps({"order": guess}) if ask.json_schema else f"order {guess}"
        return Completion(text=text, token_logprobs=(-0.02 if knows else -1.0,), cost=Cost())

    def likelihoods(self, asked: Sequence[Continuation]) -> list[Likelihood]:
        raise Unsupported("no likelihoods.")

    def render(self, messages: Sequence[Message], *, answer_prefix: str = "") -> str:
        return messages[-1].content

    def logits(self, texts: Sequence[str]) -> list[np.ndarray]:
        raise NotImplementedError

    def close(self) -> None:
        pass


class Level(Unsure):
    """Sounds as sure of a guess as of what it knows; only its least likely token tells them apart."""

    def _complete(self, ask: Ask) -> Completion:
        said = super()._complete(ask)
        knows = said.token_logprobs == (-0.02,)
        return msgspec.structs.replace(said, token_logprobs=(-0.5, -0.5) if knows else (-0.01, -0.99))


def open_unsure(candidate: Candidate) -> PromptedModel:
    kind = Level if candidate.settings.get("level") else Unsure
    return open_prompted(kind(candidate.settings["share_known"]), candidate)


@pytest.fixture(autouse=True)
def unsure() -> None:
    registry.register("backends", "unsure", open_unsure)


def arm(folder: Path, kind: str, share_known: float, **settings: Any) -> Candidate:
    folder.mkdir()
    (folder / "note.txt").write_text(f"{share_known}")
    schema = {"schema": {"type": "object", "properties": {"order": {"type": "integer"}}}}
    given = {"kind": kind, "share_known": share_known, **(schema if kind == "extract" else {}), **settings}
    return write_candidate(folder, name=folder.name, backend="unsure", labels=(), settings=given)


def examples(kind: str, start: int, n: int) -> tuple[Example, ...]:
    found = []
    for number in range(start, start + n):
        answer = json.dumps({"order": number}) if kind == "extract" else f"order {number}"
        choices = (f"order {number}", "order 0", "order 1", "order 2") if kind == "choose" else ()
        found.append(
            Example(
                id=str(number), input=f"Where is order {number}?", expected=answer, choices=choices,
                references=() if kind == "choose" else (answer,),
            )
        )  # fmt: skip
    return tuple(found)


@pytest.mark.parametrize("samples", [1, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_a_certified_cascade_keeps_the_quality_and_spares_most_requests(
    kind: str, samples: int, tmp_path: Path
) -> None:
    scorer = KINDS[kind]
    lean = arm(tmp_path / "lean", kind, 0.75, samples=samples)
    large = arm(tmp_path / "large", kind, 1.0)
    dev = examples(kind, 1000, N_DEV)
    data = Development(
        name="orders", kind=kind, labels=(), out_of_scope=None, train=(), dev=dev, unlabelled=()
    )  # fmt: skip

    def judged(candidate: Candidate, some: Sequence[Example]) -> list[Record]:
        return evaluate(candidate, some, split="dev", scorers=(scorer,))

    before = judged(large, dev)
    cascade = make_cascade(
        lean, large, data, cache=tmp_path / "cache", lean_records=judged(lean, dev),
        fallback_records=before, incumbent_records=before, epsilon=0.03, scorer=scorer,
    )  # fmt: skip
    new = examples(kind, 5000, N_NEW)
    found = judged(cascade, new)
    assert mean_score(judged(lean, new), scorer) < 0.9
    assert mean_score(found, scorer) > 0.97
    escalated = sum(record.escalated for record in found) / N_NEW
    # A quarter is not known to the lean arm; guesses of which all samples agree by chance may stand.
    assert 0.15 < escalated < 0.35


def orders(kind: str, dev: Sequence[Example]) -> Development:
    given = {"train": (), "dev": tuple(dev), "unlabelled": (), "scorers": (KINDS[kind],)}
    return Development(name="orders", kind=kind, labels=(), out_of_scope=None, **given)


def context_of(folder: Path, incumbent: Candidate, data: Development) -> StepContext:
    return StepContext(data=data, incumbent=incumbent, folder=folder, workspace=folder)


@pytest.mark.parametrize("kind", ["extract", "generate"])
def test_a_verifier_trained_on_dev_tells_what_the_likelihood_does_not(kind: str, tmp_path: Path) -> None:
    scorer = KINDS[kind]
    lean = arm(tmp_path / "lean", kind, 0.75, level=True)
    large = arm(tmp_path / "large", kind, 1.0)
    data = orders(kind, examples(kind, 1000, N_DEV))

    def judged(candidate: Candidate, some: Sequence[Example]) -> list[Record]:
        return evaluate(candidate, some, split="dev", scorers=(scorer,))

    def cascade_of(one: Candidate) -> Candidate:
        before = judged(large, data.dev)
        return make_cascade(
            one, large, data, cache=tmp_path / "cache", lean_records=judged(one, data.dev),
            fallback_records=before, incumbent_records=before, epsilon=0.03, scorer=scorer,
        )  # fmt: skip

    with pytest.raises(StepFailed, match="no threshold could be certified"):
        cascade_of(lean)
    verified = check_step(step_from({"step": "verify"}), lean, context_of(tmp_path, large, data))
    notes = verified.lineage[-1].notes
    assert notes["auroc_before"] < 0.6
    assert notes["auroc"] > 0.95
    new = examples(kind, 5000, N_NEW)
    assert [r.output for r in judged(verified, new)] == [r.output for r in judged(lean, new)]
    found = judged(cascade_of(verified), new)
    assert mean_score(found, scorer) > 0.97
    assert 0.15 < sum(record.escalated for record in found) / N_NEW < 0.35


def test_a_verifier_needs_free_answers_of_both_kinds_and_enough_of_them(tmp_path: Path) -> None:
    def verified(name: str, kind: str, share: float, n: int) -> Candidate:
        lean = arm(tmp_path / name, kind, share)
        context = context_of(tmp_path, lean, orders(kind, examples(kind, 0, n)))
        return apply_step(step_from({"step": "verify"}), lean, context, cache=tmp_path / "cache")

    with pytest.raises(
        StepFailed, match=r"must start from a model that answers freely .* got kind 'choose'"
    ):
        verified("options", "choose", 0.5, 100)
    with pytest.raises(NotEnoughData, match=r"needs at least 40 judged answers .*, got \d\d"):
        verified("few", "generate", 0.5, 40)
    with pytest.raises(StepFailed, match=r"needs right and wrong answers .* all \d+ .* score 1"):
        verified("right", "generate", 1.0, 200)
    made = verified("half", "generate", 0.5, 200)
    (made.path / FILE).write_text('{"center": [0], "scale": [1], "weights": [2], "bias": 0}')
    with pytest.raises(BrokenArtifact, match="must hold 10 weights"):
        open_unsure(made)
    (made.path / FILE).write_text("[]")
    with pytest.raises(BrokenArtifact, match="must be a verifier, got: Expected `object`"):
        open_unsure(made)
