"""Encoder-decoder language models in torch: each context is encoded once, whatever is asked after it."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jettison.backends.device import cast, placed
from jettison.backends.hf import load_pretrained
from jettison.backends.language_decode import batches, decode
from jettison.backends.language_tokens import (
    LanguageTokens,
    apply_template,
    at_last_word,
    load_language_tokenizer,
    padded,
)
from jettison.backends.prompted import PromptedModel, open_prompted
from jettison.candidate import Candidate
from jettison.errors import JettisonError, Unsupported
from jettison.language import Ask, Completion, Continuation, Likelihood
from jettison.registry import need
from jettison.task.prompt import Message

LONGEST = 512
"""Tokens, where neither settings nor the model say."""


def open_seq2seq(candidate: Candidate) -> PromptedModel:
    """Open an encoder-decoder checkpoint behind the candidate's prompt.

    Raises:
        MissingExtra: torch or transformers is not installed.
        BrokenArtifact: The checkpoint does not load.
    """
    return open_prompted(Seq2SeqEngine(candidate), candidate)


class Seq2SeqEngine:
    """A `transformers` encoder-decoder. The context is read by the encoder, the answer by the decoder.

    Settings: `threads` (1), `dtype` (`auto`: bfloat16 on a GPU, float32 on a CPU), `device` (`auto`: a
    GPU where there is one), `batch_size` (16), `max_context` (tokens; the model's own limit, else 512),
    `trust_remote_code` (False).
    """

    def __init__(self, candidate: Candidate) -> None:
        torch = need("torch", "torch")
        settings = candidate.settings
        torch.set_num_threads(int(settings.get("threads", 1)))
        self._device, dtype = placed(settings, backend="hf_seq2seq")
        model = load_pretrained(
            candidate.path,
            "AutoModelForSeq2SeqLM",
            trust_remote_code=bool(settings.get("trust_remote_code", False)),
        )
        self._model: Any = cast(model, dtype).to(self._device).eval()
        self._batch = int(settings.get("batch_size", 16))
        limit = getattr(model.config, "max_position_embeddings", None)
        longest = int(settings.get("max_context", limit or LONGEST))
        self._tokens = LanguageTokens(
            load_language_tokenizer(candidate),
            add_bos=False,
            max_context=min(longest, int(limit)) if limit else longest,
        )

    def likelihoods(self, asked: Sequence[Continuation]) -> list[Likelihood]:
        """Likelihood of each continuation as the decoder's text, in the requests' order.

        Source: lm-evaluation-harness: context and continuation are read apart, trailing white space of
        the context belongs to the continuation, which gets no end token.

        Raises:
            InvalidInput: A continuation has no token, or more than the model can read.
        """
        split = [at_last_word(one) for one in asked]
        endings = self._tokens.encode([text for _, text in split])
        for one, ending in zip(asked, endings, strict=True):
            self._tokens.check_ending(one.text, len(ending))
        unique = list(dict.fromkeys(context for context, _ in split))
        read = dict(zip(unique, self._tokens.marked(unique), strict=True))
        rows_of: dict[str, list[int]] = {context: [] for context in read}
        for row, (context, _) in enumerate(split):
            rows_of[context].append(row)
        found: dict[int, Likelihood] = {}
        order = sorted(read, key=lambda context: len(read[context]))
        for start in range(0, len(order), self._batch):
            some = order[start : start + self._batch]
            rows = [row for context in some for row in rows_of[context]]
            owners = [i for i, context in enumerate(some) for _ in rows_of[context]]
            given = [read[context] for context in some]
            scored = self._score(given, owners, [endings[row] for row in rows])
            for row, owner, (logprob, greedy) in zip(rows, owners, scored, strict=True):
                found[row] = Likelihood(
                    logprob=logprob,
                    n_tokens=len(endings[row]),
                    n_characters=len(asked[row].text),
                    greedy=greedy,
                    n_context_tokens=len(given[owner]),
                )
        return [found[row] for row in range(len(asked))]

    def complete(self, asks: Sequence[Ask]) -> list[Completion]:
        """Greedy or sampled answers, in batches of like length."""
        found: dict[int, Completion] = {}
        prompts: dict[int, list[int]] = {}
        for row, ask in enumerate(asks):
            try:
                text = ask.text if ask.text is not None else self.render(ask.messages)
            except JettisonError as error:
                found[row] = Completion(text="", finish="error", error=str(error))
            else:
                [prompts[row]] = self._tokens.marked([text])
        for rows in batches(asks, {row: len(ids) for row, ids in prompts.items()}, self._batch):
            given = [prompts[row] for row in rows]
            ids, mask = padded(given, self._tokens.pad, "right")
            inputs = {"input_ids": ids.to(self._device), "attention_mask": mask.to(self._device)}
            # The decoder's row begins with its start token.
            made = decode(
                self._model,
                self._tokens,
                [asks[row] for row in rows],
                inputs,
                n_before=1,
                n_prompts=[len(prompt) for prompt in given],
            )
            found.update(zip(rows, made, strict=True))
        return [found[row] for row in range(len(asks))]

    def render(self, messages: Sequence[Message], *, answer_prefix: str = "") -> str:
        """The chat by the model's own template; few such models have one.

        Raises:
            Unsupported: The tokenizer has no chat template.
        """
        if not getattr(self._tokens.tokenizer, "chat_template", None):
            raise Unsupported("the model has no chat template.")
        return apply_template(self._tokens.tokenizer, messages) + answer_prefix

    def logits(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Not to be had: such a model finds a text likely only as the answer to another.

        Raises:
            Unsupported: Always.
        """
        raise Unsupported("an encoder-decoder says no probabilities of a text that answers nothing.")

    def close(self) -> None:
        """Drop the weights."""
        self._model = None

    def _score(
        self, contexts: Sequence[list[int]], owners: Sequence[int], endings: Sequence[list[int]]
    ) -> list[tuple[float, bool]]:
        """Log-probability of each ending after the context that owns it, and whether greedy takes it."""
        torch = need("torch", "torch")
        ids, mask = padded(contexts, self._tokens.pad, "right")
        ids, mask = ids.to(self._device), mask.to(self._device)
        found = []
        with torch.inference_mode():
            encoded = self._model.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state
            for start in range(0, len(endings), 4 * self._batch):
                some = [list(ending) for ending in endings[start : start + 4 * self._batch]]
                chosen = torch.tensor(owners[start : start + len(some)], device=self._device)
                first = self._model.generation_config.decoder_start_token_id
                if first is None:
                    first = self._model.config.decoder_start_token_id
                shifted, _ = padded([[first, *ending[:-1]] for ending in some], self._tokens.pad, "right")
                out = self._model(
                    encoder_outputs=(encoded[chosen],),
                    attention_mask=mask[chosen],
                    decoder_input_ids=shifted.to(self._device),
                    use_cache=False,
                )
                logprobs = torch.log_softmax(out.logits.float(), -1)
                for row, ending in enumerate(some):
                    wanted = torch.tensor(ending, device=self._device)
                    here = logprobs[row, : len(ending)]
                    taken = here.gather(1, wanted[:, None])
                    found.append((float(taken.sum()), bool((here.argmax(-1) == wanted).all())))
        return found
