"""Any engine behind a prompt answers any kind of task."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from jettison.backends.fake_language import FakeLanguage
from jettison.backends.open import open_model
from jettison.backends.prompted import PromptedModel, open_prompted
from jettison.candidate import Candidate, write_candidate
from jettison.errors import BrokenArtifact, Unsupported
from jettison.evaluate import evaluate
from jettison.language import Ask, Completion, Continuation, Likelihood
from jettison.record import Cost, read_records
from jettison.task import Example, Question
from jettison.task.prompt import Message
from jettison.testing import check_backend

LABELS = ("music", "alarm", "weather")


class Told:
    """An engine that says what it is told to, and keeps what it was asked."""

    def __init__(
        self, *answers: Completion, likely: dict[str, float] | None = None, chat: bool = True
    ) -> None:
        self.answers, self.likely, self.chat = list(answers), likely, chat
        self.asks: list[Ask] = []
        self.continuations: list[Continuation] = []
        self.n_closed = 0

    def complete(self, asks: Sequence[Ask]) -> list[Completion]:
        self.asks += asks
        return [self.answers[i % len(self.answers)] for i in range(len(asks))]

    def likelihoods(self, asked: Sequence[Continuation]) -> list[Likelihood]:
        if self.likely is None:
            raise Unsupported("no likelihoods.")
        self.continuations += asked
        return [
            Likelihood(logprob=self.likely[one.text], n_tokens=2, n_characters=len(one.text), greedy=False)
            for one in asked
        ]

    def render(self, messages: Sequence[Message], *, answer_prefix: str = "") -> str:
        if not self.chat:
            raise Unsupported("no template.")
        return "".join(f"<{m.role}>{m.content}" for m in messages) + f"<assistant>{answer_prefix}"

    def logits(self, texts: Sequence[str]) -> list[np.ndarray]:
        raise Unsupported("no logits.")

    def close(self) -> None:
        self.n_closed += 1


def model(
    tmp_path: Path, engine: Told | FakeLanguage, labels: Sequence[str] = LABELS, **settings: object
) -> PromptedModel:
    return open_prompted(engine, candidate(tmp_path, labels=labels, **settings))


def candidate(tmp_path: Path, *, labels: Sequence[str] = LABELS, **settings: object) -> Candidate:
    folder = tmp_path / f"c{len(list(tmp_path.iterdir()))}"
    folder.mkdir()
    (folder / "note.txt").write_text("an engine in memory")
    return write_candidate(
        folder, name="told", backend="fake_language", labels=tuple(labels), settings=settings
    )


def said(text: str, *logprobs: float, **fields: object) -> Completion:
    return Completion(text=text, token_logprobs=logprobs or None, **fields)


def test_labels_are_weighed_after_the_rendered_prompt(tmp_path: Path) -> None:
    engine = Told(likely={"tunes": -1.0, "alarm": -3.0, "weather": -2.0})
    asking = model(tmp_path, engine, prompt={"template": "Q: {input}", "words": {"music": "tunes"}})
    [output] = asking.predict(["play"])
    assert (output.label, output.logits.tolist()) == ("music", [-1.0, -3.0, -2.0])
    # softmax of -1, -3, -2 at its top: 1 / (1 + e^-2 + e^-1)
    assert output.confidence == pytest.approx(1 / (1 + np.exp(-2) + np.exp(-1)))
    assert engine.continuations[0] == Continuation(context="<user>Q: play<assistant>", text="tunes")


def test_without_a_chat_template_the_answer_follows_a_space(tmp_path: Path) -> None:
    engine = Told(likely={" music": -1.0, " alarm": -3.0, " weather": -2.0}, chat=False)
    model(tmp_path, engine, prompt={"template": "Q: {input}\n", "answer_prefix": "A:"}).predict(["play"])
    assert engine.continuations[0].context == "Q: play\nA:"


@pytest.mark.parametrize(
    ("rule", "chosen"), [("none", "no"), ("length", "certainly"), ("unconditional", "maybe")]
)
def test_choices_are_weighed_by_the_rule_asked_for(tmp_path: Path, rule: str, chosen: str) -> None:
    class Alone(Told):
        def likelihoods(self, asked: Sequence[Continuation]) -> list[Likelihood]:
            common = {" no": -1.5, " certainly": -2.0, " maybe": -6.0}
            before, self.likely = (
                self.likely,
                common if asked and asked[0].context == "Answer:" else self.likely,
            )
            found = super().likelihoods(asked)
            self.likely = before
            return found

    # By character, without its space: no -2/2, certainly -3/9, maybe -2.5/5.
    # Against alone: -0.5, -1.0, +3.5.
    engine = Alone(likely={" no": -2.0, " certainly": -3.0, " maybe": -2.5}, chat=False)
    asking = model(tmp_path, engine, labels=(), kind="choose", normalise=rule)
    [output] = asking.predict([Question(text="is it?", choices=("no", "certainly", "maybe"))])
    assert output.label == chosen
    assert output.logits.shape == (3,)


@pytest.mark.parametrize(
    ("prompt", "after"),
    [({}, "Answer:"), ({"answer_prefix": " So:"}, "So:"), ({"answer_prefix": " So:", "alone": ""}, "")],
)
def test_what_stands_for_the_question_when_choices_are_weighed_alone(prompt, after, tmp_path):
    engine = Told(likely={" a": -2.0, " b": -1.0}, chat=False)
    asking = model(tmp_path, engine, labels=(), kind="choose", normalise="unconditional", prompt=prompt)
    asking.predict([Question(text="q", choices=("a", "b"))])
    alone = [Continuation(context=after, text=text) for text in (" a", " b")]
    assert [one for one in engine.continuations if not one.context.startswith("q")] == alone


def test_ranking_gives_the_choices_best_first(tmp_path: Path) -> None:
    engine = Told(likely={" a": -2.0, " b": -1.0, " c": -3.0}, chat=False)
    [output] = model(tmp_path, engine, labels=(), kind="rank").predict(
        [Question(text="q", choices=("a", "b", "c"))]
    )
    assert json.loads(output.label) == [1, 0, 2]
    assert output.logits.tolist() == [-2.0, -1.0, -3.0]


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("music", "music"),
        (" Music. ", "music"),
        ("The label is weather", "weather"),
        ("music or alarm", ""),
        ("nothing of the kind", ""),
    ],
)
def test_an_answer_is_read_as_the_label_it_names(tmp_path: Path, answer: str, label: str) -> None:
    [output] = model(tmp_path, Told(said(answer, -0.1, -0.2))).predict(["play"])
    assert (output.label, output.error) == (label, None)
    assert output.confidence == pytest.approx(np.exp(-0.3) if label else 0.0)


def test_a_label_within_a_longer_one_is_not_named_by_it(tmp_path: Path) -> None:
    labels = ("card", "card arrival")
    [output] = model(tmp_path, Told(said("it is card arrival")), labels=labels).predict(["where is it"])
    assert output.label == "card arrival"


def test_first_tokens_give_logits_where_they_cover_the_labels(tmp_path: Path) -> None:
    top = {" mus": -0.5, "al": -1.5, " Wea": -2.5, "Al": -3.0, "zebra": -4.0}
    [output] = model(tmp_path, Told(said("music", -0.5, top_logprobs=top))).predict(["play"])
    np.testing.assert_allclose(output.logits, [-0.5, np.logaddexp(-1.5, -3.0), -2.5], rtol=1e-6)
    uncovered = {" mus": -0.5, "al": -1.5}
    [output] = model(tmp_path, Told(said("music", -0.5, top_logprobs=uncovered))).predict(["play"])
    assert output.logits is None
    shared = {"mus": -0.5, "m": -1.0, "al": -1.5}
    [output] = model(
        tmp_path, Told(said("music", -0.5, top_logprobs=shared)), labels=("music", "mail", "alarm")
    ).predict(["play"])
    assert output.logits is None


def test_samples_agree_or_not(tmp_path: Path) -> None:
    cost = Cost(prompt_tokens=7, completion_tokens=2)
    engine = Told(*(said(text, cost=cost) for text in ("4", "5", "4")))
    [output] = model(tmp_path, engine, labels=(), kind="generate", samples=3, seed=5).predict(["2 + 2"])
    assert (output.label, output.confidence) == ("4", pytest.approx(2 / 3))
    assert (output.cost.prompt_tokens, output.cost.completion_tokens) == (21, 6)
    assert [ask.seed for ask in engine.asks] == [5, 6, 7]
    assert all(ask.temperature > 0 for ask in engine.asks)


@pytest.mark.parametrize(
    ("written", "answer"),
    [(" Paris \n", "Paris"), ("\n  \nParis", "Paris"), ("\n    return 1\n", "    return 1"), (" \n", "")],
)
def test_a_written_answer_loses_the_space_around_it_and_no_indentation(tmp_path, written, answer):
    [output] = model(tmp_path, Told(said(written, -0.1)), labels=(), kind="generate").predict(["?"])
    assert output.label == answer


def test_text_is_as_sure_as_its_mean_token(tmp_path: Path) -> None:
    engine = Told(said(' {"a": 1} ', -0.2, -0.4))
    schema = {"type": "object"}
    [output] = model(tmp_path, engine, labels=(), kind="extract", schema=schema).predict(["a is 1"])
    assert (output.label, output.confidence) == ('{"a": 1}', pytest.approx(np.exp(-0.3)))
    assert engine.asks[0].json_schema == schema
    [unknown] = model(tmp_path, Told(said("4")), labels=(), kind="generate").predict(["2 + 2"])
    assert (unknown.label, unknown.confidence) == ("4", 0.0)


def test_one_failed_request_fails_alone(tmp_path: Path) -> None:
    engine = Told(said("4"), said("", error="time-out"))
    first, second = model(tmp_path, engine, labels=(), kind="generate").predict(["2 + 2", "3 + 3"])
    assert (first.label, first.error) == ("4", None)
    assert (second.label, second.confidence, second.error) == ("", 0.0, "time-out")


def test_closing_closes_the_engine_and_no_inputs_ask_nothing(tmp_path: Path) -> None:
    engine = Told()
    asking = model(tmp_path, engine)
    assert asking.predict([]) == []
    asking.close()
    assert (engine.asks, engine.n_closed) == ([], 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"normalise": "len"}, r"settings\.normalise of .* must be one of \['none', .*got 'len'"),
        ({"prompt": {"shots": "many"}}, r"settings\.prompt of .* must be a prompt: .*\$\.shots"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, settings: dict[str, object], message: str) -> None:
    with pytest.raises(BrokenArtifact, match=message):
        model(tmp_path, Told(), **settings)


@pytest.mark.parametrize("likelihoods", [True, False])
def test_the_fake_engine_is_a_whole_backend(tmp_path: Path, likelihoods: bool) -> None:
    ready = candidate(tmp_path, prompt={"template": "text: {input}"}, likelihoods=likelihoods)
    check_backend(ready)
    asking = open_model(ready)
    assert [o.label for o in asking.predict(["some music please", "set an alarm"])] == ["music", "alarm"]


def test_records_hold_questions_choices_and_tokens(tmp_path: Path) -> None:
    ready = candidate(tmp_path, labels=(), kind="choose", likelihoods=False)
    examples = [Example(id="1", input="b it is", expected="b", choices=("a thing", "b"))]
    [record] = evaluate(ready, examples, split="dev")
    assert (record.output, record.scores) == ("b", {"label": 1.0})
    assert record.cost.prompt_tokens > 0
    assert record.cost.completion_tokens == 1


def test_records_hold_the_log_probability_of_a_written_answer(tmp_path: Path) -> None:
    examples = [Example(id="1", input="2 + 2", expected="4")]
    one = model(tmp_path, Told(said("4", -0.25, -0.5)), labels=(), kind="generate")
    several = model(tmp_path, Told(said("4", -0.25)), labels=(), kind="generate", samples=3)
    silent = model(tmp_path, Told(said("4")), labels=(), kind="generate")
    ready = candidate(tmp_path, labels=(), kind="generate")
    found = []
    for number, asking in enumerate((one, several, silent)):
        folder = tmp_path / f"records-{number}"
        evaluate(
            ready, examples, split="dev", scorers=("exact",), folder=folder, opener=lambda _, a=asking: a
        )
        [path] = folder.glob("*.parquet")
        found += read_records(path)
    assert [record.logprob for record in found] == [-0.75, None, None]
