"""Step `prompt`: the same model asked in fewer words. It costs no training, so it comes first."""

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
    code_version: ClassVar[int] = 2
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
    """Whether `max_tokens` is lowered to what 99 % of the known answers need. Written answers must keep the
    score within it."""
    constrain: bool = True
    """Whether answers of kind `extract` are held to the schema of train's, where none is set and the score
    holds; shorter prompts are then tried with it. Labels and choices are always held to."""
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
            notes = self._constrained(search)
            prompt = self._slim(search)
            prompt, limit = self._bounded(search, prompt)
        finally:
            model.close()
        settings = {**candidate.settings, **search.held, "prompt": msgspec.to_builtins(prompt)}
        if self.prefix_cache is not None:
            settings["prefix_cache"] = self.prefix_cache
        for entry in candidate.files:
            if entry.path != MANIFEST:
                link_or_copy(candidate.path / entry.path, context.folder / entry.path)
        notes |= limit | {
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

    def _constrained(self, search: "_Search") -> dict[str, Any]:
        """Hold the answers to the schema of the known ones, where the score holds; what was found."""
        if not self.constrain or search.kind != "extract" or "schema" in search.candidate.settings:
            return {}
        schema = parts.schema_of(search.known)
        if schema is None:
            return {"schema": "none: not all answers are JSON objects"}
        held = search.holds("answers held to the schema of train's", search.whole, {"schema": schema})
        if held:
            search.held = {"schema": schema}
            # What a schema brings must not be lost again.
            search.reached = max(search.reached, search.now)
        return {"schema": "of train's answers" if held else "none: the score does not hold with it"}

    def _bounded(self, search: "_Search", prompt: Prompt) -> tuple[Prompt, dict[str, Any]]:
        """The prompt with its limit, and what was found."""
        if not self.limit_answers:
            return prompt, {}
        is_label = search.kind == "classify"
        said = [prompt.word(label) for label in search.candidate.labels] if is_label else search.known
        limit, how = parts.answer_limit(said, search.candidate.path)
        notes = {"answer_limit": {"tokens": limit, "counted": how, "before": prompt.max_tokens}}
        if limit is None or limit >= prompt.max_tokens:
            return prompt, notes
        bounded = msgspec.structs.replace(prompt, max_tokens=limit)
        # A label is as long as it is; a text may be written otherwise than the known ones.
        tried = f"answers of at most {limit} tokens"
        if is_label or (not search.is_late() and search.holds(tried, bounded, {})):
            return bounded, notes
        notes["answer_limit"]["kept"] = prompt.max_tokens
        return prompt, notes


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
        self.kind = str(candidate.settings.get("kind", context.data.kind))
        known = [known_answer(e, self.kind) for e in (*context.data.train, *context.data.dev_fit)]
        self.known = [answer for answer in known if answer is not None]
        """Answers that somebody has said."""
        self.held: dict[str, Any] = {}
        """Further settings that were found to hold."""
        self.trials: list[dict[str, Any]] = []
        outputs = dev_outputs(model, examples, asked=candidate.name)
        scores = dev_scores(outputs, examples, context.data)
        self._score: Callable[[Sequence[Output]], float] = self._by_scorer
        self.judged_by = f"scorer {context.data.scorers[0]!r}"
        if not np.isfinite(scores).any():
            # Nobody has said what is right: what the whole prompt brings is what must stay.
            self._wanted = [output.label for output in outputs]
            self._score, self.judged_by = self._by_agreement, "agreement with the whole prompt"
        self.before = self.now = self.reached = self._score(outputs)

    def first(self, variants: Sequence[Prompt], prompt: Prompt, what: str) -> Prompt:
        """The first of the variants that holds the score, or else the prompt as it is."""
        for variant in variants:
            if len(self.trials) >= self.step.max_trials or self.is_late():
                return prompt
            tried = _shots(len(variant.shots)) if what == "shots" else what
            if self.holds(tried, variant, {}):
                return variant
        return prompt

    def holds(self, tried: str, variant: Prompt, more: dict[str, Any]) -> bool:
        """Whether the score holds with this prompt, what is held already and these settings."""
        outputs = dev_outputs(self._asked(variant, more), self.examples, asked=self.candidate.name)
        score = self._score(outputs)
        holds = score >= self.reached - self.step.tolerance
        self.trials.append(
            {
                "tried": tried,
                "fixed_characters": parts.fixed_characters(variant),
                "dev_fit_score": score,
                "holds": holds,
            }
        )
        share = min(1.0, len(self.trials) / self.step.max_trials)
        self.context.progress("trying shorter prompts", share)
        if holds:
            self.now = score
        return holds

    def _asked(self, prompt: Prompt, more: dict[str, Any]) -> PromptedModel:
        said = {"prompt": msgspec.to_builtins(prompt)}
        settings = {**self.candidate.settings, **self.held, **more, **said}
        return self.model.with_settings(msgspec.structs.replace(self.candidate, settings=settings))

    def _by_scorer(self, outputs: Sequence[Output]) -> float:
        return float(np.nanmean(dev_scores(outputs, self.examples, self.context.data)))

    def _by_agreement(self, outputs: Sequence[Output]) -> float:
        return float(np.mean([o.label == w for o, w in zip(outputs, self._wanted, strict=True)]))

    def is_late(self) -> bool:
        """Whether the time for this step is over."""
        return self.context.deadline is not None and self.context.deadline.is_over()


def _shots(n: int) -> str:
    return "1 shot" if n == 1 else f"{n} shots"
