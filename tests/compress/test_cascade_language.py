"""Cascades of language models for choices, objects and free text, by probability or by agreement."""

import json
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jettison import registry
from jettison.backends.prompted import PromptedModel, open_prompted
from jettison.candidate import Candidate, write_candidate
from jettison.compress.cascade import make_cascade
from jettison.errors import Unsupported
from jettison.evaluate import evaluate
from jettison.language import Ask, Completion, Continuation, Likelihood
from jettison.record import Cost, Record, mean_score
from jettison.task import Development, Example
from jettison.task.prompt import Message

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


def open_unsure(candidate: Candidate) -> PromptedModel:
    return open_prompted(Unsure(candidate.settings["share_known"]), candidate)


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
