"""Completions by `transformers.generate`, with what it does not tell: log-probabilities and times.

Sampling adds Gumbel noise of each request's own seed to its logits and takes the best, which is a draw
from the softmax: so an answer depends on its request, and not on what else is in the batch.
"""

import copy
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from jettison.backends.language_tokens import LanguageTokens
from jettison.language import Ask, Completion
from jettison.record import Cost
from jettison.registry import need

N_TOP = 20
"""First tokens that a completion names with their log-probability."""


def decode(
    model: Any,
    tokens: LanguageTokens,
    asks: Sequence[Ask],
    inputs: Mapping[str, Any],
    *,
    n_before: int,
    n_prompts: Sequence[int],
) -> list[Completion]:
    """Complete a batch of requests.

    Args:
        model: Of `transformers`.
        tokens: The model's tokenizer.
        asks: With one `max_tokens`.
        inputs: What `model.generate` is given of the prompts, a row each.
        n_before: Tokens that stand in each row before the answer.
        n_prompts: Tokens that each prompt has.
    """
    torch = need("torch", "torch")
    started, cpu_from = time.perf_counter(), time.process_time()
    watch = _Watch(asks, tokens, n_before)
    with torch.inference_mode():
        made = model.generate(
            **inputs,
            generation_config=greedy_config(model, tokens.pad, asks[0].max_tokens),
            logits_processor=[watch],
            stopping_criteria=[watch.stopped],
        )
    new = made[:, n_before:].cpu()
    watch.finish(new)
    n = len(asks)
    cost = Cost(
        latency_s=(time.perf_counter() - started) / n,
        cpu_s=(time.process_time() - cpu_from) / n,
        first_token_s=watch.first_s - started,
    )
    ends = ends_of(model)
    return [
        watch.completion(
            row, new[row].tolist(), ends, msgspec.structs.replace(cost, prompt_tokens=n_prompts[row])
        )
        for row in range(n)
    ]


def batches(asks: Sequence[Ask], lengths: Mapping[int, int], size: int) -> Iterator[list[int]]:
    """Positions of requests that may be decoded together, of like length, `size` at most."""
    order = sorted(lengths, key=lambda i: (asks[i].max_tokens, lengths[i]))
    while order:
        limit = asks[order[0]].max_tokens
        rows = [i for i in order[:size] if asks[i].max_tokens == limit]
        order = order[len(rows) :]
        yield rows


def greedy_config(model: Any, pad: int, max_tokens: int) -> Any:
    """The checkpoint's own rules of generation (penalties, ends), decoding greedily."""
    config = copy.deepcopy(model.generation_config)
    for name in ("temperature", "top_p", "top_k", "typical_p", "min_p"):
        if hasattr(config, name):
            setattr(config, name, None)
    config.update(
        do_sample=False, num_beams=1, max_new_tokens=max_tokens, max_length=None, pad_token_id=pad
    )
    return config


def ends_of(model: Any) -> set[int]:
    """Tokens that end an answer."""
    ends = model.generation_config.eos_token_id
    return set(ends) if isinstance(ends, list) else {ends}


class _Watch:
    """Sits in the generation loop: adds noise where an answer is sampled, and notes log-probabilities.

    They are of the distribution before temperature, after the checkpoint's own penalties.
    """

    def __init__(self, asks: Sequence[Ask], tokens: LanguageTokens, n_prompt: int) -> None:
        torch = need("torch", "torch")
        self._asks = asks
        self._tokenizer = tokens.tokenizer
        self._n_prompt = n_prompt
        self._noise = {
            row: torch.Generator().manual_seed(ask.seed)
            for row, ask in enumerate(asks)
            if ask.temperature > 0
        }
        self._tail = max([8, *(2 * len(stop.encode()) + 8 for ask in asks for stop in ask.stop)])
        self._now: Any = None
        self._taken: list[Any] = []
        self._top: Any = None
        self.first_s = time.perf_counter()

    def __call__(self, ids: Any, scores: Any) -> Any:
        """Logits in, logits to take the best of out; shape (n, n_vocabulary)."""
        torch = need("torch", "torch")
        self._note(ids[:, -1])
        self._now = torch.log_softmax(scores.float(), -1)
        if self._top is None:
            self.first_s = time.perf_counter()
            self._top = self._now.topk(min(N_TOP, scores.shape[-1]), -1)
        if not self._noise:
            return scores
        changed = scores.float().clone()
        for row, source in self._noise.items():
            waited = torch.empty(scores.shape[-1]).exponential_(generator=source).to(scores.device)
            changed[row] = changed[row] / self._asks[row].temperature - waited.log()
        return changed

    def stopped(self, ids: Any, scores: Any, **_: Any) -> Any:
        """Which rows hold one of their stop strings, shape (n,), bool."""
        torch = need("torch", "torch")
        if not any(ask.stop for ask in self._asks):
            return torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
        tails = self._tokenizer.batch_decode(ids[:, self._n_prompt :][:, -self._tail :])
        held = [any(s in tail for s in ask.stop) for ask, tail in zip(self._asks, tails, strict=True)]
        return torch.tensor(held, device=ids.device)

    def finish(self, new: Any) -> None:
        """Note the last token."""
        if new.shape[1]:
            self._note(new[:, -1])

    def _note(self, taken: Any) -> None:
        if self._now is not None:
            self._taken.append(self._now.gather(1, taken.to(self._now.device)[:, None])[:, 0].cpu())
            self._now = None

    def completion(self, row: int, ids: list[int], ends: set[int], cost: Cost) -> Completion:
        """The answer of one row, cut where it ends."""
        n = next((i for i, token in enumerate(ids) if token in ends), len(ids))
        text = self._tokenizer.decode(ids[:n], skip_special_tokens=True)
        ended = n < len(ids)
        cuts = [text.find(stop) for stop in self._asks[row].stop if stop and stop in text]
        if cuts:
            text, ended = text[: min(cuts)], True
            n = self._tokens_of(ids[:n], len(text))
        n_said = min(len(ids), max(n, 1))
        return Completion(
            text=text,
            finish="stop" if ended else "length",
            token_logprobs=tuple(float(step[row]) for step in self._taken[:n_said]),
            top_logprobs=self._first_tokens(row),
            cost=msgspec.structs.replace(cost, completion_tokens=n),
        )

    def _first_tokens(self, row: int) -> dict[str, float] | None:
        if self._top is None:
            return None
        found: dict[str, float] = {}
        best = zip(self._top.indices[row].tolist(), self._top.values[row].tolist(), strict=True)
        for token, logprob in best:
            found.setdefault(self._tokenizer.decode([token]), logprob)
        return found

    def _tokens_of(self, ids: Sequence[int], n_characters: int) -> int:
        """Tokens that the first characters of their text take."""
        for n in range(len(ids) + 1):
            if len(self._tokenizer.decode(ids[:n], skip_special_tokens=True)) >= n_characters:
                return n
        return len(ids)
