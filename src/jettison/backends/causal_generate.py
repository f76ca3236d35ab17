"""Completions of a causal model: batches padded on the left, a common preamble computed once.

Decoding is `transformers.generate`'s own. Sampling adds Gumbel noise of each request's own seed to its
logits and takes the best, which is a draw from the softmax: so an answer depends on its request, and
not on what else is in the batch.
"""

import copy
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from jettison.backends.causal_trunk import Trunk
from jettison.backends.language_tokens import LanguageTokens
from jettison.language import Ask, Completion
from jettison.record import Cost
from jettison.registry import need

N_TOP = 20
"""First tokens that a completion names with their log-probability."""


def generate(
    model: Any,
    tokens: LanguageTokens,
    prompts: Sequence[Sequence[int]],
    asks: Sequence[Ask],
    *,
    trunk: Trunk,
    device: str,
) -> list[Completion]:
    """Complete prompts together.

    Args:
        model: Of `transformers`.
        tokens: The model's tokenizer.
        prompts: Token ids, each longer than the trunk and beginning with it.
        asks: One per prompt, with one `max_tokens`.
        trunk: What the prompts share.
        device: Where the model is.
    """
    torch = need("torch", "torch")
    started, cpu_from = time.perf_counter(), time.process_time()
    ids, mask = padded([prompt[trunk.n_tokens :] for prompt in prompts], tokens.pad)
    past = None
    if trunk.fresh is not None:
        front = torch.tensor([list(prompts[0][: trunk.n_tokens])] * len(prompts))
        ids = torch.cat([front, ids], 1)
        mask = torch.cat([torch.ones_like(front), mask], 1)
        past = trunk.fresh()
        past.batch_repeat_interleave(len(prompts))
    watch = _Watch(asks, tokens, ids.shape[1])
    with torch.inference_mode():
        made = model.generate(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            past_key_values=past,
            generation_config=greedy_config(model, tokens.pad, asks[0].max_tokens),
            logits_processor=[watch],
            stopping_criteria=[watch.stopped],
        )
    new = made[:, ids.shape[1] :].cpu()
    watch.finish(new)
    n = len(prompts)
    wall_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu_from
    return [
        watch.completion(
            row,
            new[row].tolist(),
            ends_of(model),
            Cost(
                prompt_tokens=len(prompts[row]),
                latency_s=wall_s / n,
                cpu_s=cpu_s / n,
                first_token_s=watch.first_s - started,
            ),
        )
        for row in range(n)
    ]


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


def padded(rows: Sequence[Sequence[int]], pad: int) -> tuple[Any, Any]:
    """Ids and mask of rows, padded on the left, two int64 tensors of shape (n, n_tokens)."""
    torch = need("torch", "torch")
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), pad)
    mask = torch.zeros((len(rows), longest), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, longest - len(row) :] = torch.tensor(list(row))
        mask[i, longest - len(row) :] = 1
    return ids, mask


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
