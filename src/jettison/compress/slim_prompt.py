"""Step `prompt`: the same model asked in fewer words. It costs no training, so it comes first."""

import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar

import msgspec
import numpy as np

from jettison.backends.open import open_model
from jettison.backends.prompted import PromptedModel
from jettison.candidate import MANIFEST, Candidate
from jettison.compress import prompt_parts as parts
from jettison.compress.answer_rows import known_answer
from jettison.compress.dev_scores import dev_outputs, dev_scores
from jettison.compress.step import Made, StepContext
from jettison.errors import NotEnoughData, StepFailed
from jettison.files import link_or_copy
from jettison.model import Output
from jettison.task import Example
from jettison.task.prompt import Prompt

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class SlimPrompt(msgspec.Struct, frozen=True, kw_only=True):
    """Leave out shots and sentences while the first half of dev is answered as well; bound the answers.

    Works for every backend that is asked a prompt, endpoints included: only settings change. Chosen on
    few examples, the result is a candidate like any other, to be judged on examples it was not chosen on.
    """

    name: ClassVar[str] = "prompt"
    code_version: ClassVar[int] = 1
    reads_data: ClassVar[bool] = True
    libraries: ClassVar[tuple[str, ...]] = ()

    shots: bool = True
    """Whether fewer shots are tried."""
    systems: tuple[str, ...] = ()
    """Shorter instructions to try in place of the prompt's `system`."""
    templates: tuple[str, ...] = ()
    """Shorter templates to try in place of the prompt's; each must hold `{input}`."""
    sentences: bool = True
    """Whether sentences of the instruction and the template are left out one by one, longest first."""
    limit_answers: bool = True
    """Whether `max_tokens` is lowered to what 99 % of the known answers need."""
    constrain: bool = True
    """Whether answers of kind `extract` are held to the schema of train's, where none is set. Labels and
    choices are always held to."""
    prefix_cache: bool | None = None
    """Written to the setting of that name, for servers that are told whether to keep what prompts share."""
    tolerance: Share = 0.005
    """Mean dev score that a shorter prompt may lose against the whole one."""
    n_examples: Annotated[int, msgspec.Meta(ge=10)] = 200
    """Dev examples that each trial is judged on."""
    max_trials: Annotated[int, msgspec.Meta(ge=1)] = 40

    def make(self, candidate: Candidate, context: StepContext) -> Made:
        """Try, keep what holds, write the settings.

        Raises:
            StepFailed: The candidate is asked no prompt.
            NotEnoughData: The first half of dev is empty.
        """
        examples = context.data.dev_fit[: self.n_examples]
        if not examples:
            raise NotEnoughData("step 'prompt' needs dev examples to choose on, got none.")
        threads = {"threads": context.threads} if "threads" in candidate.settings else {}
        ready = msgspec.structs.replace(candidate, settings={**candidate.settings, **threads})
        model = open_model(ready)
        try:
            if not isinstance(model, PromptedModel):
                raise StepFailed(
                    f"step 'prompt' must start from a model that is asked a prompt, got backend "
                    f"{candidate.backend!r} ({candidate.name})."
                )
            search = _Search(self, model, ready, examples, context)
            prompt = self._slim(search)
        finally:
            model.close()
        settings, notes = self._bounded(candidate, prompt, context)
        for entry in candidate.files:
            if entry.path != MANIFEST:
                link_or_copy(candidate.path / entry.path, context.folder / entry.path)
        notes |= {
            "fixed_characters_before": parts.fixed_characters(search.whole),
            "fixed_characters": parts.fixed_characters(prompt),
            "judged_by": search.judged_by,
            "dev_fit_score_before": search.before,
            "dev_fit_score": search.now,
            "n_examples": len(examples),
            "trials": search.trials,
        }
        return Made(settings=settings, notes=notes, resolved={"prompt": settings["prompt"]})

    def _slim(self, search: "_Search") -> Prompt:
        prompt = search.whole
        if self.shots:
            prompt = search.first(parts.fewer_shots(prompt), prompt, "shots")
        given = {"system": self.systems, "template": self.templates}
        for field, texts in given.items():
            shorter = sorted((t for t in texts if len(t) < len(getattr(prompt, field))), key=len)
            variants = [msgspec.structs.replace(prompt, **{field: text}) for text in shorter]
            prompt = search.first(variants, prompt, field)
        if self.sentences:
            for field in given:
                prompt = self._fewer_sentences(search, prompt, field)
        return prompt

    def _fewer_sentences(self, search: "_Search", prompt: Prompt, field: str) -> Prompt:
        """Leave out each sentence once, longest first, and keep it out where the score holds."""
        for sentence in sorted(parts.sentences(getattr(prompt, field)), key=len, reverse=True):
            left = parts.sentences(getattr(prompt, field))
            stripped = [one.strip() for one in left]
            if sentence.strip() not in stripped:
                continue
            shorter = parts.without_sentence(prompt, field, stripped.index(sentence.strip()))
            if shorter is not None:
                prompt = search.first([shorter], prompt, f"{field} without {sentence.strip()[:60]!r}")
        return prompt

    def _bounded(
        self, candidate: Candidate, prompt: Prompt, context: StepContext
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Settings with the prompt, its limit and its form, and what was found."""
        data = context.data
        kind = str(candidate.settings.get("kind", data.kind))
        known = [known_answer(e, kind) for e in (*data.train, *data.dev_fit)]
        answers = [answer for answer in known if answer is not None]
        notes: dict[str, Any] = {}
        if self.limit_answers:
            said = [prompt.word(label) for label in candidate.labels] if kind == "classify" else answers
            limit, how = parts.answer_limit(said, candidate.path)
            notes["answer_limit"] = {"tokens": limit, "counted": how, "before": prompt.max_tokens}
            if limit is not None and limit < prompt.max_tokens:
                prompt = msgspec.structs.replace(prompt, max_tokens=limit)
        settings = {**candidate.settings, "prompt": msgspec.to_builtins(prompt)}
        if self.constrain and kind == "extract" and "schema" not in settings:
            schema = parts.schema_of(answers)
            notes["schema"] = "of train's answers" if schema else "none: not all answers are JSON objects"
            settings |= {"schema": schema} if schema else {}
        if self.prefix_cache is not None:
            settings["prefix_cache"] = self.prefix_cache
        return settings, notes


class _Search:
    """Judges prompts on dev, one engine for all."""

    def __init__(
        self,
        step: SlimPrompt,
        model: PromptedModel,
        candidate: Candidate,
        examples: Sequence[Example],
        context: StepContext,
    ) -> None:
        self.step, self.model, self.candidate, self.context = step, model, candidate, context
        self.examples = examples
        self.whole = msgspec.convert(candidate.settings.get("prompt", {}), Prompt)
        self.trials: list[dict[str, Any]] = []
        outputs = dev_outputs(model, examples, asked=candidate.name)
        scores = dev_scores(outputs, examples, context.data)
        self._score: Callable[[Sequence[Output]], float] = self._by_scorer
        self.judged_by = f"scorer {context.data.scorers[0]!r}"
        if not np.isfinite(scores).any():
            # Nobody has said what is right: what the whole prompt brings is what must stay.
            self._wanted = [output.label for output in outputs]
            self._score, self.judged_by = self._by_agreement, "agreement with the whole prompt"
        self.before = self.now = self._score(outputs)

    def first(self, variants: Sequence[Prompt], prompt: Prompt, what: str) -> Prompt:
        """The first of the variants that holds the score, or else the prompt as it is."""
        for variant in variants:
            if len(self.trials) >= self.step.max_trials or self._is_late():
                return prompt
            outputs = dev_outputs(self._asked(variant), self.examples, asked=self.candidate.name)
            score = self._score(outputs)
            holds = score >= self.before - self.step.tolerance
            self.trials.append(
                {
                    "tried": _shots(len(variant.shots)) if what == "shots" else what,
                    "fixed_characters": parts.fixed_characters(variant),
                    "dev_fit_score": score,
                    "holds": holds,
                }
            )
            self.context.progress("trying shorter prompts", len(self.trials) / self.step.max_trials)
            if holds:
                self.now = score
                return variant
        return prompt

    def _asked(self, prompt: Prompt) -> PromptedModel:
        settings = {**self.candidate.settings, "prompt": msgspec.to_builtins(prompt)}
        return self.model.with_settings(msgspec.structs.replace(self.candidate, settings=settings))

    def _by_scorer(self, outputs: Sequence[Output]) -> float:
        return float(np.nanmean(dev_scores(outputs, self.examples, self.context.data)))

    def _by_agreement(self, outputs: Sequence[Output]) -> float:
        return float(np.mean([o.label == w for o, w in zip(outputs, self._wanted, strict=True)]))

    def _is_late(self) -> bool:
        return self.context.deadline is not None and time.monotonic() > self.context.deadline


def _shots(n: int) -> str:
    return "1 shot" if n == 1 else f"{n} shots"
