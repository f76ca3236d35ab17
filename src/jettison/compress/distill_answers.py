"""Step `distill_answers`: a smaller language model learns what a black box answers."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import msgspec
import numpy as np

from jettison.backends.causal import CausalEngine
from jettison.backends.prompted import open_prompted
from jettison.candidate import Candidate, check_safe
from jettison.compress import checkpoint_facts as facts
from jettison.compress.answer_rows import PromptTokens, answer_said, known_answer
from jettison.compress.answers import TaughtAnswer, distinct, taught_answers
from jettison.compress.causal import CHAT_FILES, save_causal
from jettison.compress.checkpoint import TOKENIZER_FILES, torch_run
from jettison.compress.dev_scores import dev_outputs, dev_scores, gain_notes, groups_of
from jettison.compress.finetune_language import random_part
from jettison.compress.step import Made, StepContext, equal_part
from jettison.compress.tuning import Tuned, Tuning, tune, tuned_notes
from jettison.errors import InvalidInput, NotEnoughData, StepFailed
from jettison.files import file_sha256, value_sha256
from jettison.task import Example, Input

AtLeastOne = Annotated[int, msgspec.Meta(ge=1)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
WORTH = 0.005
"""Gain of dev score for twice the answers that is worth asking for more."""


class DistillAnswers(msgspec.Struct, frozen=True, kw_only=True):
    """Ask the incumbent once, drop what it is unsure of and what repeats, train on the rest.

    The incumbent may be anything that answers: an endpoint, a GGUF file, a checkpoint of other tokens.
    """

    name: ClassVar[str] = "distill_answers"
    code_version: ClassVar[int] = 1
    reads_data: ClassVar[bool] = True
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers", "peft")

    model: str | None = None
    """Folder of the causal checkpoint that learns; None: the candidate itself."""
    samples: AtLeastOne = 1
    """Answers asked for an input, whose agreement is the confidence; 1 is one greedy answer."""
    min_confidence: Share = 0.5
    """Answers of less are dropped; those of unknown confidence stay."""
    min_agreement: Share = 0.6
    """The same of several samples: the least share that says the same."""
    right_answers: bool = True
    """Whether a right answer of train, where there is one, is taught in the teacher's place."""
    curve: tuple[Annotated[float, msgspec.Meta(gt=0, lt=1)], ...] = (0.25, 0.5)
    """Shares of the answers, in 0-1, also tried, to see what more of them would bring."""
    mode: Literal["full", "lora"] = "lora"
    """What is trained: every weight, or low-rank changes that are merged in the end."""
    epochs: AtLeastOne = 3
    learning_rate: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """Peak of the one-cycle schedule; None takes 3e-5 (full) or 3e-4 (lora)."""
    batch_size: AtLeastOne = 8
    patience: AtLeastOne = 2
    """Epochs without a better one after which it stops."""
    seeds: AtLeastOne = 1
    """Runs from different seeds; the best on dev is kept and the spread is noted."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the multiplications in training; auto takes bfloat16 where the hardware has it."""
    lora_rank: AtLeastOne = 16
    max_tokens: Annotated[int, msgspec.Meta(ge=8)] = 1024
    """Longest prompt with its answer; a longer one loses its beginning."""

    def source_digest(self) -> str | None:
        """Digest of the student's files; None where the candidate itself learns."""
        if self.model is None:
            return None
        folder = _folder(self.model)
        names = ("config.json", *TOKENIZER_FILES, *CHAT_FILES)
        paths = [*sorted(folder.glob("*.safetensors")), *(folder / name for name in names)]
        return value_sha256([[p.name, file_sha256(p)] for p in paths if p.is_file()])

    def make(self, candidate: Candidate, context: StepContext) -> Made:
        """Ask, filter, train at each share, save.

        Raises:
            StepFailed: There is no causal checkpoint to train, or training diverged.
            InvalidInput: There is none at `model`.
            NotEnoughData: No answer is left to learn from.
        """
        student = self._student(candidate, context)
        pairs, counts = self._answers(context)
        tokens = PromptTokens(student, self.max_tokens)
        rows = tokens.rows(pairs)
        judged = self._judged(context)
        kind = context.data.kind
        stop = tokens.rows([(e.asked, str(known_answer(e, kind))) for e in judged])
        tuning = Tuning.of(self)
        shares = [*sorted(self.curve), 1.0]
        points: list[dict[str, Any]] = []
        scores: list[np.ndarray] = []
        for number, share in enumerate(shares):
            part = random_part(rows, share, context.seed)
            runs = msgspec.structs.replace(tuning, seeds=self.seeds if share == 1.0 else 1)
            deadline = equal_part(context.deadline, len(shares) - number)
            tuned = tune(student, part, stop, runs, context, pad_id=tokens.pad_id, deadline=deadline)
            found = _scores(student, tuned, judged, context)
            scores.append(found)
            known = found[np.isfinite(found)]
            points.append(
                {
                    "n_answers": len(part),
                    "dev_fit_score": float(known.mean()) if len(known) else None,
                    "dev_fit_loss": tuned.log.best_dev_loss,
                }
            )
        save_causal(tuned.model, context.folder, source=student.path)
        notes: dict[str, Any] = {"answers": counts, **tuned_notes(tuned), "curve": points}
        if len(scores) > 1:
            notes["more_answers"] = _worth(scores[-1], scores[-2], shares[-2], judged)
        return Made(
            backend="hf_causal",
            settings=student.settings,
            notes=notes,
            licence=student.licence,
            resolved={"learning_rate": tuning.rate, "precision": tuned.precision},
        )

    def _student(self, candidate: Candidate, context: StepContext) -> Candidate:
        """What learns, asked as the candidate is."""
        if self.model is None:
            if candidate.backend != "hf_causal":
                raise StepFailed(
                    f"step 'distill_answers' must be given a checkpoint to train as `model`, got none, and "
                    f"{candidate.name} is of backend {candidate.backend!r}."
                )
            return candidate
        folder = _folder(self.model)
        config = facts.read_config(folder)
        keys = ("kind", "prompt", "normalise", "schema", "samples")
        asked = {key: candidate.settings[key] for key in keys if key in candidate.settings}
        n_layers = config.get("num_hidden_layers") or config.get("n_layer")
        settings = {"kind": context.data.kind, **asked, **({"n_layers": n_layers} if n_layers else {})}
        return Candidate(
            path=folder,
            name=folder.name,
            backend="hf_causal",
            labels=candidate.labels,
            digest="",
            settings=settings,
            licence=facts.read_licence(folder),
        )

    def _answers(self, context: StepContext) -> tuple[list[tuple[Input, str]], dict[str, Any]]:
        """Inputs with what is taught of them, and how many were left out and why."""
        data = context.data
        examples = (*data.train, *data.unlabelled)
        places = distinct([e.asked for e in examples], [e.asked for e in data.dev])
        kept = [examples[place] for place in places]
        said = {e.id: known_answer(e, data.kind) if self.right_answers else None for e in kept}
        asked = [e for e in kept if said[e.id] is None]
        given = taught_answers(context.incumbent, context, [e.asked for e in asked], samples=self.samples)
        teaching = {e.id: one for e, one in zip(asked, given, strict=True)}
        pairs: list[tuple[Input, str]] = []
        for example in kept:
            right = said[example.id]
            if right is None and self._is_sure(teaching[example.id]):
                right = answer_said(teaching[example.id].answer, example.asked, data.kind)
            if right:
                pairs.append((example.asked, right))
        if not pairs:
            raise NotEnoughData(
                f"step 'distill_answers' needs answers to learn from, got none of {len(examples)} inputs. "
                "Lower min_confidence or min_agreement."
            )
        counts = {
            "inputs": len(examples),
            "near_duplicates": len(examples) - len(kept),
            "asked": len(asked),
            "failed": sum(one.error is not None for one in given),
            "unsure": sum(one.error is None and not self._is_sure(one) for one in given),
            "unknown_confidence": sum(one.error is None and one.confidence == 0 for one in given),
            "taught": len(pairs),
        }
        return pairs, counts

    def _is_sure(self, given: TaughtAnswer) -> bool:
        if given.error is not None or not given.answer:
            return False
        least = self.min_agreement if given.by_agreement else self.min_confidence
        return given.confidence == 0 or given.confidence >= least

    def _judged(self, context: StepContext) -> list[Example]:
        """The first half of dev with right answers, or where there are none with the teacher's."""
        kind = context.data.kind
        found = [e for e in context.data.dev_fit if known_answer(e, kind) is not None]
        if found:
            return found
        blind = context.data.dev_fit
        given = taught_answers(context.incumbent, context, [e.asked for e in blind], samples=1)
        return [
            msgspec.structs.replace(e, expected=answer_said(one.answer, e.asked, kind))
            for e, one in zip(blind, given, strict=True)
            if one.error is None and one.answer
        ]


def _scores(student: Candidate, tuned: Tuned, judged: list[Example], context: StepContext) -> np.ndarray:
    """Scores of the tuned model on dev, shape (n,)."""
    if not judged:
        return np.empty(0)
    settings = {**student.settings, "threads": context.threads, "device": "cpu"}
    ready = msgspec.structs.replace(student, settings=settings)
    with torch_run(seed=context.seed, threads=context.threads):
        model = open_prompted(CausalEngine(ready, loaded=tuned.model), ready)
        return dev_scores(dev_outputs(model, judged, asked=student.name), judged, context.data)


def _worth(
    scores: np.ndarray, fewer: np.ndarray, share: float, judged: list[Example]
) -> dict[str, Any] | None:
    """Whether more answers are worth their price, by the gain of the last step of the curve."""
    gain = gain_notes(scores, fewer, groups_of(judged))
    if gain is None:
        return None
    verdict = "worth it" if gain["low"] > 0 else "not worth it" if gain["high"] < WORTH else "not clear"
    return {"gain": gain, "from_share": share, "verdict": verdict}


def _folder(source: str) -> Path:
    path = Path(source).expanduser()
    if not (path / "config.json").is_file() or not any(path.glob("*.safetensors")):
        raise InvalidInput(
            f"distill_answers.model must be a folder with config.json and *.safetensors, got {source!r}."
        )
    check_safe(path)
    return path
