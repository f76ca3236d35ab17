"""Turns an engine for language models into a model of the task: asks the prompt, reads the answer.

Labels and choices are weighed by their likelihood after the prompt where the engine can say it, so
that confidences, calibration, cascades and students work as they do for any classifier. An engine
that only completes is asked for the answer, and is held to the labels where it can be.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from jettison.backends.verifier import answer_features, read_verifier
from jettison.candidate import Candidate
from jettison.errors import BrokenArtifact, Unsupported
from jettison.language import Ask, Completion, Continuation, LanguageModel, Likelihood
from jettison.model import Decoder, Output, mapped_confidence, softmax
from jettison.record import Cost
from jettison.task import Input, Question
from jettison.task.log_files import input_id
from jettison.task.prompt import Prompt

NORMALISE = ("none", "length", "unconditional")
WEIGHED = ("classify", "choose", "rank")
"""Kinds whose answer is one of a list, or an order of it."""
SAMPLES_TEMPERATURE = 0.7
_BLANK_LINES = re.compile(r"\A(?:[^\S\n]*\n)+")


def open_prompted(
    engine: LanguageModel, candidate: Candidate, *, known: Mapping[str, Completion] | None = None
) -> "PromptedModel":
    """A model of the task out of an engine and the candidate's settings.

    Settings: `kind` (of the task, `classify`), `prompt` (a `Prompt`), `normalise` (of likelihoods:
    `none`, `length` by characters, `unconditional` by the likelihood without the question),
    `samples` (answers whose agreement is the confidence; 1 is one greedy answer), `schema` (of JSON
    to extract).

    Args:
        engine: What answers the prompt.
        candidate: Its labels and settings are used.
        known: Answers given before, by `jettison.task.log_files.input_id`; such inputs are not asked.

    Raises:
        BrokenArtifact: A setting is none that a prompt can have.
    """
    return PromptedModel(engine, candidate, known=known)


class PromptedModel:
    """A language model behind a prompt. `labels` is empty where answers are free text or choices."""

    def __init__(
        self, engine: LanguageModel, candidate: Candidate, *, known: Mapping[str, Completion] | None = None
    ) -> None:
        settings = candidate.settings
        self._known = dict(known or {})
        self.labels = candidate.labels
        self._engine = engine
        self._settings = settings
        self._kind = str(settings.get("kind", "classify"))
        try:
            self._prompt = msgspec.convert(settings.get("prompt", {}), Prompt)
        except msgspec.ValidationError as error:
            raise BrokenArtifact(
                f"settings.prompt of {candidate.path} must be a prompt: {error}."
            ) from error
        self._normalise = settings.get("normalise", self._prompt.normalise)
        if self._normalise not in NORMALISE:
            raise BrokenArtifact(
                f"settings.normalise of {candidate.path} must be one of {list(NORMALISE)}, "
                f"got {self._normalise!r}."
            )
        self._samples = int(settings.get("samples", 1))
        self._decoder = Decoder(candidate.labels, candidate.out_of_scope, candidate.calibration)
        self._temperature = candidate.calibration.temperature
        self._verifier = read_verifier(candidate.path)
        self._likely = True
        """Whether the engine says likelihoods; learned from the first time it is asked."""
        self._chat: bool | None = self._prompt.chat
        self._alone: dict[str, float] = {}

    @property
    def engine(self) -> LanguageModel:
        """What answers the prompt."""
        return self._engine

    def predict(self, inputs: Sequence[Input]) -> list[Output]:
        """One output per input, in the inputs' order."""
        told = {
            row: self._known[key]
            for row, asked in enumerate(inputs)
            # With choices of its own a question is more than its text.
            if self._known and isinstance(asked, str) and (key := input_id(asked)) in self._known
        }
        unknown = [asked for row, asked in enumerate(inputs) if row not in told]
        found = iter(self._asked(unknown) if unknown else ())
        return [
            self._read(asked, [told[row]]) if row in told else next(found)
            for row, asked in enumerate(inputs)
        ]

    def _asked(self, inputs: Sequence[Input]) -> list[Output]:
        if self._kind in WEIGHED and self._likely:
            try:
                return self._weighed(inputs)
            except Unsupported:
                # An engine that only completes puts a chat through its template itself.
                self._likely, self._chat = False, self._prompt.chat
        return self._completed(inputs)

    def answered(self, inputs: Sequence[Input]) -> tuple[list[Output], np.ndarray]:
        """Free answers, and what a verifier sees of each, shape (n_inputs, n_features)."""
        k = self._samples
        answers = self._engine.complete([self._ask(one, i) for one in inputs for i in range(k)])
        rows = [answers[i * k : (i + 1) * k] for i in range(len(inputs))]
        outputs = [self._read(asked, row) for asked, row in zip(inputs, rows, strict=True)]
        features = [
            answer_features(_parts(asked)[0], row, output.label)
            for asked, row, output in zip(inputs, rows, outputs, strict=True)
        ]
        return outputs, np.array(features)

    def close(self) -> None:
        """Close the engine."""
        self._engine.close()

    def with_settings(self, candidate: Candidate) -> "PromptedModel":
        """The same engine, still open, behind another prompt; closing one closes both."""
        return PromptedModel(self._engine, candidate)

    def context(self, asked: Input) -> str:
        """What the engine reads before the answer, as one text."""
        text, choices = _parts(asked)
        if self._chat is not False:
            try:
                messages = self._prompt.messages(text, choices, self.labels)
                rendered = self._engine.render(messages, answer_prefix=self._prompt.answer_prefix)
            except Unsupported:
                self._chat = False
            else:
                self._chat = True
                return rendered
        return self._prompt.text(text, choices, self.labels)

    def _weighed(self, inputs: Sequence[Input]) -> list[Output]:
        options = [self.labels if self._kind == "classify" else _parts(asked)[1] for asked in inputs]
        contexts = [self.context(asked) for asked in inputs]
        # After a chat's header the answer begins at once; after a text, with what sets it off.
        space = "" if self._chat and not self._prompt.answer_prefix else self._prompt.before_answer
        asked = [
            Continuation(context=context, text=f"{space}{self._prompt.word(option)}")
            for context, some in zip(contexts, options, strict=True)
            for option in some
        ]
        said = iter(self._engine.likelihoods(asked))
        if self._normalise == "unconditional":
            self._weigh_alone({one.text for one in asked})
        found = [[next(said) for _ in some] for some in options]
        rows = [
            np.array([self._score(o, space, one) for o, one in zip(some, given, strict=True)], np.float32)
            for some, given in zip(options, found, strict=True)
        ]
        if self._kind == "classify":
            outputs = self._decoder.outputs(np.stack(rows))
        else:
            outputs = [self._chosen(row, some) for row, some in zip(rows, options, strict=True)]
        return [
            msgspec.structs.replace(output, cost=_read_cost(given))
            for output, given in zip(outputs, found, strict=True)
        ]

    def _score(self, option: str, space: str, likelihood: Likelihood) -> float:
        if self._normalise == "length":
            return likelihood.logprob / max(1, len(self._prompt.word(option)))
        if self._normalise == "unconditional":
            return likelihood.logprob - self._alone[f"{space}{self._prompt.word(option)}"]
        return likelihood.logprob

    def _weigh_alone(self, texts: set[str]) -> None:
        """Learn how likely options are without a question: how common each is by itself.

        Source: after the answer prefix, Brown et al. 2020 (GPT-3), section 2.4; after nothing, lm-eval.
        """
        new = sorted(texts - self._alone.keys())
        bare = self._prompt.alone
        if bare is None:
            bare = self._prompt.answer_prefix.strip() or "Answer:"
        found = self._engine.likelihoods([Continuation(context=bare, text=t) for t in new]) if new else []
        self._alone.update((text, one.logprob) for text, one in zip(new, found, strict=True))

    def _chosen(self, row: np.ndarray, choices: Sequence[str]) -> Output:
        if not len(row):
            return Output(label="", confidence=0.0, error="the question has no choices")
        order = np.argsort(-row, kind="stable")
        shares = softmax(row[None, :], self._temperature)[0]
        best = int(order[0])
        label = json.dumps(order.tolist()) if self._kind == "rank" else choices[best]
        confidence = mapped_confidence(float(shares[best]), self._settings)
        return Output(label=label, confidence=confidence, logits=row)

    def _completed(self, inputs: Sequence[Input]) -> list[Output]:
        asks = [self._ask(asked, sample) for asked in inputs for sample in range(self._samples)]
        answers = self._engine.complete(asks)
        k = self._samples
        return [self._read(asked, answers[i * k : (i + 1) * k]) for i, asked in enumerate(inputs)]

    def _ask(self, asked: Input, sample: int) -> Ask:
        text, choices = _parts(asked)
        options = self.labels if self._kind == "classify" else choices
        prompt = self._prompt
        schema: dict[str, Any] | None = self._settings.get("schema")
        if self._kind == "rank":
            schema = {"type": "array", "items": {"type": "integer"}, "maxItems": len(choices)}
        return Ask(
            messages=() if self._chat is False else prompt.messages(text, choices, self.labels),
            text=prompt.text(text, choices, self.labels) if self._chat is False else None,
            answer_prefix=prompt.answer_prefix,
            max_tokens=prompt.max_tokens,
            stop=prompt.stop,
            temperature=SAMPLES_TEMPERATURE if self._samples > 1 else 0.0,
            seed=int(self._settings.get("seed", 0)) + sample,
            json_schema=schema,
            choices=tuple(prompt.word(o) for o in options) if self._kind in ("classify", "choose") else (),
        )

    def _read(self, asked: Input, answers: Sequence[Completion]) -> Output:
        failed = next((answer for answer in answers if answer.error is not None), None)
        if failed is not None:
            return Output(
                label="",
                confidence=0.0,
                error=failed.error,
                unanswered=any(answer.unanswered for answer in answers),
                cost=answers[0].cost,
            )
        if self._kind in ("classify", "choose"):
            options = self.labels if self._kind == "classify" else _parts(asked)[1]
            labels = [self._label_in(answer.text, options) for answer in answers]
            row = self._logits_of(answers[0], options) if len(answers) == 1 else None
            if row is not None and options[int(row.argmax())] == labels[0]:
                output = (
                    self._decoder.outputs(row[None, :])[0]
                    if self._kind == "classify"
                    else self._chosen(row, options)
                )
                return msgspec.structs.replace(output, logprob=_logprob(answers), cost=answers[0].cost)
        else:
            labels = [_free(answer.text) for answer in answers]
        label, n_agree = Counter(labels).most_common(1)[0]
        confidence = n_agree / len(labels) if len(labels) > 1 else self._sureness(answers[0], label)
        if self._verifier is not None and self._kind not in WEIGHED:
            confidence = self._verifier.chance(answer_features(_parts(asked)[0], answers, label))
        return Output(
            label=label,
            confidence=mapped_confidence(confidence, self._settings) if label else 0.0,
            logprob=_logprob(answers),
            cost=_sum_of([answer.cost for answer in answers]),
        )

    def _label_in(self, answer: str, options: Sequence[str]) -> str:
        """The option an answer names: as it is, whatever its case, by its letter, or alone in the text."""
        said = {option: self._prompt.word(option).casefold().strip() for option in options}
        plain = answer.casefold().strip().strip("\"'`*.:;!()[] ")
        exact = [option for option, word in said.items() if word == plain]
        if exact:
            return exact[0]
        if self._kind == "choose" and len(plain) == 1 and 0 <= ord(plain) - ord("a") < len(options):
            return options[ord(plain) - ord("a")]
        named = [option for option, word in said.items() if word and word in plain]
        # A longer label that holds a shorter one names only itself.
        named = [o for o in named if not any(said[o] != said[p] and said[o] in said[p] for p in named)]
        return named[0] if len(named) == 1 else ""

    def _logits_of(self, answer: Completion, options: Sequence[str]) -> np.ndarray | None:
        """Log-probability of each option by the first token that begins it, if each has its own."""
        begins: list[list[float]] = [[] for _ in options]
        words = [self._prompt.word(option).casefold().strip() for option in options]
        for token, logprob in (answer.top_logprobs or {}).items():
            said = token.casefold().strip()
            owners = [i for i, word in enumerate(words) if said and word.startswith(said)]
            if len(owners) > 1:
                return None
            for i in owners:
                begins[i].append(logprob)
        if not all(begins):
            return None
        return np.array([np.logaddexp.reduce(some) for some in begins], np.float32)

    def _sureness(self, answer: Completion, label: str) -> float:
        """Probability of the answer: of a label, of all its tokens; of a text, the mean token's."""
        logprobs = answer.token_logprobs
        if not label or not logprobs:
            return 0.0
        total = sum(logprobs) if self._kind in WEIGHED else sum(logprobs) / len(logprobs)
        # Kept off the ends, where log-odds have no end.
        return min(max(math.exp(min(total, 0.0)), 1e-6), 1.0 - 1e-6)


def _parts(asked: Input) -> tuple[str, tuple[str, ...]]:
    return (asked.text, asked.choices) if isinstance(asked, Question) else (asked, ())


def _free(text: str) -> str:
    """A written answer without space around it; its first line stays indented, as code needs it."""
    lines = _BLANK_LINES.sub("", text.rstrip())
    plain = lines.lstrip()
    # One space is the first word's own, as tokens have it.
    return plain if lines in (plain, f" {plain}") else lines


def _logprob(answers: Sequence[Completion]) -> float | None:
    """Of the whole answer; None where the engine does not say, and of several answers."""
    logprobs = answers[0].token_logprobs if len(answers) == 1 else None
    return float(sum(logprobs)) if logprobs else None


def _read_cost(found: Sequence[Likelihood]) -> Cost | None:
    """Tokens that were read to weigh one question's options: the context once, and every option."""
    if not found or found[0].n_context_tokens is None:
        return None
    read = found[0].n_context_tokens + sum(one.n_tokens for one in found)
    return Cost(prompt_tokens=read, completion_tokens=0)


def _sum_of(costs: Sequence[Cost]) -> Cost:
    """Cost of several answers together; a figure that one lacks is not known."""
    if len(costs) == 1:
        return costs[0]
    found: dict[str, Any] = {}
    for name in ("latency_s", "cpu_s", "price_usd", "prompt_tokens", "completion_tokens", "wire_bytes"):
        values = [getattr(cost, name) for cost in costs]
        found[name] = None if None in values else sum(values)
    return msgspec.structs.replace(costs[0], **found)
