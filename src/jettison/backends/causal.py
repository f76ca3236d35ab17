"""Causal language models in torch: likelihoods that share what they have in common, completions, logits.

What all contexts of a call begin with is computed once, and so is each context, however many
continuations follow it. Rounding apart, the figures are those of one plain forward pass each.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from jettison.backends.causal_pack import packs, score_packed, score_plain
from jettison.backends.causal_trunk import Trunk, TrunkCache
from jettison.backends.device import cast, placed
from jettison.backends.hf import load_pretrained
from jettison.backends.language_decode import batches, decode
from jettison.backends.language_tokens import (
    LanguageTokens,
    apply_template,
    load_language_tokenizer,
    padded,
)
from jettison.backends.prompted import PromptedModel, open_prompted
from jettison.candidate import Candidate
from jettison.errors import InvalidInput, JettisonError, Unsupported
from jettison.language import Ask, Completion, Continuation, Likelihood
from jettison.registry import need
from jettison.task.prompt import Message

TOKENS_A_PASS = {"cpu": 512, "cuda": 4096}
"""Tokens packed into one pass, about; more of them attend to nothing, fewer leave the device idle."""


def open_causal(candidate: Candidate) -> PromptedModel:
    """Open a causal checkpoint behind the candidate's prompt.

    Raises:
        MissingExtra: torch or transformers is not installed.
        BrokenArtifact: The checkpoint does not load.
    """
    return open_prompted(CausalEngine(candidate), candidate)


class CausalEngine:
    """A `transformers` causal language model.

    Settings: `threads` (1), `dtype` (`auto`: bfloat16 on a GPU, float32 on a CPU), `device` (`auto`: a
    GPU where there is one), `batch_size` (16 completions), `max_context` (tokens; the model's own limit),
    `add_bos` (as the tokenizer does by itself), `trust_remote_code` (False).
    """

    def __init__(self, candidate: Candidate, *, loaded: Any = None) -> None:
        """Open the candidate's checkpoint, or run a model `loaded` before with the candidate's settings."""
        torch = need("torch", "torch")
        settings = candidate.settings
        torch.set_num_threads(int(settings.get("threads", 1)))
        self._device, dtype = placed(settings, backend="hf_causal")
        model = loaded or load_pretrained(
            candidate.path,
            "AutoModelForCausalLM",
            trust_remote_code=bool(settings.get("trust_remote_code", False)),
        )
        self._model: Any = cast(model, dtype).to(self._device).eval()
        limit = int(getattr(model.config, "max_position_embeddings", None) or 2048)
        self._tokens = LanguageTokens(
            load_language_tokenizer(candidate),
            add_bos=settings.get("add_bos"),
            max_context=min(int(settings.get("max_context", limit)), limit),
        )
        self._batch = int(settings.get("batch_size", 16))
        self._trunks = TrunkCache(self._model, self._device)

    @cached_property
    def _packs(self) -> bool:
        return packs(self._model, self._device)

    def likelihoods(self, asked: Sequence[Continuation]) -> list[Likelihood]:
        """Likelihood of each continuation, in the requests' order.

        Raises:
            InvalidInput: A continuation has no token, or more than the model can read.
        """
        if not asked:
            return []
        pairs = self._tokens.pairs(asked)
        if self._packs:
            trunk = self._trunks.of([pair.context for pair in pairs])
            budget = TOKENS_A_PASS[self._device]
            scored = score_packed(
                self._model, pairs, trunk.fresh, trunk.n_tokens, budget=budget, device=self._device
            )
        else:
            scored = score_plain(self._model, pairs, batch=self._batch, device=self._device)
        return [
            Likelihood(
                logprob=one.logprob,
                n_tokens=len(pair.ending),
                n_characters=len(request.text),
                greedy=one.greedy,
                n_context_tokens=len(pair.context),
            )
            for request, pair, one in zip(asked, pairs, scored, strict=True)
        ]

    def complete(self, asks: Sequence[Ask]) -> list[Completion]:
        """Greedy or sampled completions, in batches of like length."""
        found: dict[int, Completion] = {}
        prompts: dict[int, tuple[int, ...]] = {}
        for row, ask in enumerate(asks):
            try:
                prompts[row] = self._prompt_ids(ask)
            except JettisonError as error:
                found[row] = Completion(text="", finish="error", error=str(error))
        for rows in batches(asks, {row: len(ids) for row, ids in prompts.items()}, self._batch):
            made = self._decoded([prompts[i] for i in rows], [asks[i] for i in rows])
            found.update(zip(rows, made, strict=True))
        return [found[row] for row in range(len(asks))]

    def render(self, messages: Sequence[Message], *, answer_prefix: str = "") -> str:
        """The chat by the model's own template, up to where the assistant answers.

        Raises:
            Unsupported: The tokenizer has no chat template.
        """
        if not getattr(self._tokens.tokenizer, "chat_template", None):
            raise Unsupported("the model has no chat template.")
        return apply_template(self._tokens.tokenizer, messages) + answer_prefix

    def logits(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Log-probabilities of every next token, shape (n_tokens - 1, n_vocabulary), float32."""
        return [
            self.logprobs_after_each(self.token_ids(text) or [self._tokens.start])[:-1] for text in texts
        ]

    def logprobs_after_each(self, ids: Sequence[int]) -> np.ndarray:
        """Log-probabilities after each of some tokens, shape (n_tokens, n_vocabulary), float32."""
        torch = need("torch", "torch")
        with torch.inference_mode():
            given = torch.tensor([list(ids)], device=self._device)
            logits = self._model(input_ids=given, use_cache=False).logits[0]
            return np.asarray(torch.log_softmax(logits.float(), -1).cpu().numpy())

    def token_ids(self, text: str) -> list[int]:
        """Ids of a text as `logits` reads it."""
        return self._tokens.encode([text])[0][: self._tokens.max_context]

    def close(self) -> None:
        """Drop the weights."""
        self._model = None
        self._trunks.forget()

    def _decoded(self, prompts: Sequence[tuple[int, ...]], asks: Sequence[Ask]) -> list[Completion]:
        """Complete one batch: what its prompts share is there already, the rest is padded on the left."""
        torch = need("torch", "torch")
        trunk = self._trunks.of(prompts) if self._packs else Trunk(0, None)
        ids, mask = padded([ids[trunk.n_tokens :] for ids in prompts], self._tokens.pad, "left")
        inputs: dict[str, Any] = {}
        if trunk.fresh is not None:
            front = torch.tensor([prompts[0][: trunk.n_tokens]] * len(prompts))
            ids, mask = torch.cat([front, ids], 1), torch.cat([torch.ones_like(front), mask], 1)
            inputs["past_key_values"] = trunk.fresh()
            inputs["past_key_values"].batch_repeat_interleave(len(prompts))
        inputs |= {"input_ids": ids.to(self._device), "attention_mask": mask.to(self._device)}
        n_prompts = [len(prompt) for prompt in prompts]
        return decode(self._model, self._tokens, asks, inputs, n_before=ids.shape[1], n_prompts=n_prompts)

    def _prompt_ids(self, ask: Ask) -> tuple[int, ...]:
        text = ask.text
        if text is None:
            text = self.render(ask.messages, answer_prefix=ask.answer_prefix)
        room = self._tokens.max_context - ask.max_tokens
        if room < 1:
            raise InvalidInput(
                f"max_tokens must leave room in the model's {self._tokens.max_context} tokens, "
                f"got {ask.max_tokens}."
            )
        return tuple(self._tokens.encode([text])[0][-room:] or [self._tokens.start])
