"""Causal language models in torch: likelihoods that share what they have in common, completions, logits.

What all contexts of a call begin with is computed once, and so is each context, however many
continuations follow it. Rounding apart, the figures are those of one plain forward pass each.
"""

import copy
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jettison.backends.hf import load_pretrained
from jettison.backends.prompted import PromptedModel, open_prompted
from jettison.candidate import Candidate
from jettison.errors import BrokenArtifact, InvalidInput, Unsupported
from jettison.language import Ask, Completion, Continuation, Likelihood
from jettison.record import Cost
from jettison.registry import need
from jettison.task.prompt import Message

LEAST_SHARED = 8
"""Tokens that all contexts must begin with before a pass of its own is spent on them."""


def open_causal(candidate: Candidate) -> PromptedModel:
    """Open a causal checkpoint behind the candidate's prompt.

    Raises:
        MissingExtra: torch or transformers is not installed.
        BrokenArtifact: The checkpoint does not load.
    """
    return open_prompted(CausalEngine(candidate), candidate)


class CausalEngine:
    """A `transformers` causal language model.

    Settings: `threads` (1), `dtype` (`float32`, `bfloat16`), `device` (`auto`: a GPU where there is
    one), `batch_size` (16 contexts), `max_context` (tokens; the model's own limit), `add_bos` (False:
    as the tokenizer was trained to chat, or as lm-eval does).
    """

    def __init__(self, candidate: Candidate, *, loaded: Any = None) -> None:
        """Open the candidate's checkpoint, or run a model `loaded` before with the candidate's settings."""
        torch = need("torch", "torch")
        settings = candidate.settings
        torch.set_num_threads(int(settings.get("threads", 1)))
        dtype = settings.get("dtype", "float32")
        if dtype not in ("float32", "bfloat16"):
            raise InvalidInput(f"dtype of backend 'hf_causal' must be float32 or bfloat16, got {dtype!r}.")
        wanted = settings.get("device", "auto")
        on_gpu = torch.cuda.is_available() if wanted == "auto" else wanted == "cuda"
        self._device = "cuda" if on_gpu else "cpu"
        model = loaded or load_pretrained(
            candidate.path,
            "AutoModelForCausalLM",
            trust_remote_code=bool(settings.get("trust_remote_code", False)),
        )
        self._model: Any = model.to(self._device, getattr(torch, dtype)).eval()
        self._tokenizer: Any = load_language_tokenizer(candidate)
        self._batch = int(settings.get("batch_size", 16))
        self._bos = bool(settings.get("add_bos", False))
        limit = getattr(model.config, "max_position_embeddings", None) or 2048
        self._max_context = min(int(settings.get("max_context", limit)), int(limit))
        pad = self._tokenizer.pad_token_id
        self._pad = pad if pad is not None else (self._tokenizer.eos_token_id or 0)
        # Recurrent layers and sliding windows keep no cache that could be shared like this.
        self._shares = not getattr(model.config, "sliding_window", None)

    def likelihoods(self, asked: Sequence[Continuation]) -> list[Likelihood]:
        """Likelihood of each continuation, in the requests' order."""
        pairs = [self._pair(one) for one in asked]
        by_context: dict[tuple[int, ...], list[int]] = {}
        for row, (context, _) in enumerate(pairs):
            by_context.setdefault(context, []).append(row)
        found: list[Likelihood | None] = [None] * len(asked)
        contexts = sorted(by_context, key=lambda ids: (len(ids), ids))
        shared = self._shared_prefix(contexts)
        prefix = self._prefix_cache(contexts[0][:shared]) if shared else None
        for batch in _batches(contexts, self._batch):
            rows = [row for context in batch for row in by_context[context]]
            owners = [i for i, context in enumerate(batch) for _ in by_context[context]]
            endings = [pairs[row][1] for row in rows]
            scored = self._score([c[shared:] for c in batch], endings, owners, prefix, shared)
            for row, ending, (total, greedy) in zip(rows, endings, scored, strict=True):
                found[row] = Likelihood(
                    logprob=total,
                    n_tokens=len(ending),
                    n_characters=len(asked[row].text),
                    greedy=greedy,
                )
        return [one for one in found if one is not None]

    def complete(self, asks: Sequence[Ask]) -> list[Completion]:
        """Greedy or sampled completions, in batches of like length."""
        prompts = [self._encode(self._prompt_of(ask), bos=ask.text is not None) for ask in asks]
        order = sorted(range(len(asks)), key=lambda i: (_decoding(asks[i]), len(prompts[i])))
        found: list[Completion | None] = [None] * len(asks)
        start = 0
        while start < len(order):
            rows = [order[start]]
            for i in order[start + 1 : start + self._batch]:
                if _decoding(asks[i]) != _decoding(asks[rows[0]]):
                    break
                rows.append(i)
            for i, one in zip(rows, self._generate([prompts[i] for i in rows], asks[rows[0]]), strict=True):
                found[i] = one
            start += len(rows)
        return [one for one in found if one is not None]

    def render(self, messages: Sequence[Message], *, answer_prefix: str = "") -> str:
        """The chat by the model's own template, up to where the assistant answers.

        Raises:
            Unsupported: The tokenizer has no chat template.
        """
        if not getattr(self._tokenizer, "chat_template", None):
            raise Unsupported("the model has no chat template.")
        return apply_template(self._tokenizer, messages) + answer_prefix

    def logits(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Log-probabilities of every next token, shape (n_tokens - 1, n_vocabulary), float32."""
        torch = need("torch", "torch")
        found = []
        for text in texts:
            ids = self._encode(text, bos=True)[: self._max_context]
            with torch.inference_mode():
                given = torch.tensor([ids], device=self._device)
                logits = self._model(input_ids=given, use_cache=False).logits[0, :-1]
                found.append(torch.log_softmax(logits.float(), -1).cpu().numpy())
        return found

    def token_ids(self, text: str) -> list[int]:
        """Ids of a text as `logits` reads it."""
        return self._encode(text, bos=True)[: self._max_context]

    def close(self) -> None:
        """Drop the weights."""
        self._model = None

    def _encode(self, text: str, *, bos: bool) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        start = self._tokenizer.bos_token_id
        if bos and self._bos and start is not None and ids[:1] != [start]:
            ids = [start, *ids]
        return ids

    def _pair(self, asked: Continuation) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Ids of context and continuation; the split falls where it would in the whole text.

        Source: lm-evaluation-harness, `TemplateLM._encode_pair`: trailing spaces of the context
        belong to the continuation, and the context is what the whole has before it.
        """
        context, text = asked.context, asked.text
        n_spaces = len(context) - len(context.rstrip())
        if n_spaces and context:
            context, text = context[:-n_spaces], context[-n_spaces:] + text
        before = self._encode(context, bos=True)
        whole = self._encode(context + text, bos=True)
        ending = whole[len(before) :]
        if not before:
            before = [self._start_id()]
        if not ending:
            raise InvalidInput(f"a continuation must be at least one token, got {asked.text!r}.")
        room = self._max_context + 1 - len(ending)
        return tuple(before[-max(1, room) :]), tuple(ending)

    def _start_id(self) -> int:
        start = self._tokenizer.bos_token_id
        return int(self._tokenizer.eos_token_id or 0) if start is None else int(start)

    def _prompt_of(self, ask: Ask) -> str:
        return (
            ask.text if ask.text is not None else self.render(ask.messages, answer_prefix=ask.answer_prefix)
        )

    def _shared_prefix(self, contexts: Sequence[tuple[int, ...]]) -> int:
        """Tokens that all contexts begin with, one of each left over to be asked for the next token."""
        if len(contexts) < 2 or not self._shares:
            return 0
        low, high = min(contexts), max(contexts)
        n = 0
        while n < min(len(low), len(high)) - 1 and low[n] == high[n]:
            n += 1
        return n if n >= LEAST_SHARED else 0

    def _prefix_cache(self, ids: Sequence[int]) -> Any:
        torch = need("torch", "torch")
        with torch.inference_mode():
            given = torch.tensor([list(ids)], device=self._device)
            return self._model(input_ids=given, use_cache=True, logits_to_keep=1).past_key_values

    def _score(
        self,
        contexts: Sequence[Sequence[int]],
        endings: Sequence[Sequence[int]],
        owners: Sequence[int],
        prefix: Any,
        n_prefix: int,
    ) -> list[tuple[float, bool]]:
        """Log-probability of each ending after the context that owns it, and whether greedy takes it."""
        torch = need("torch", "torch")
        longest = max(len(context) for context in contexts)
        ids = torch.full((len(contexts), longest), self._pad)
        mask = torch.zeros((len(contexts), n_prefix + longest), dtype=torch.long)
        mask[:, :n_prefix] = 1
        for row, context in enumerate(contexts):
            # Padded on the left, so that every context ends, and every ending begins, at one place.
            ids[row, longest - len(context) :] = torch.tensor(list(context))
            mask[row, n_prefix + longest - len(context) :] = 1
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        more = max(len(ending) for ending in endings) > 1
        with torch.inference_mode():
            past = None
            if prefix is not None:
                past = copy.deepcopy(prefix)
                past.batch_repeat_interleave(len(contexts))
            out = self._model(
                input_ids=ids.to(self._device),
                attention_mask=mask.to(self._device),
                position_ids=positions[:, n_prefix:].to(self._device),
                past_key_values=past,
                use_cache=more,
                logits_to_keep=1,
            )
            first = torch.log_softmax(out.logits[:, -1].float(), -1)
            totals = [float(first[owner, ending[0]]) for owner, ending in zip(owners, endings, strict=True)]
            best = first.argmax(-1).tolist()
            greedy = [best[owner] == ending[0] for owner, ending in zip(owners, endings, strict=True)]
            if more:
                long = [i for i, ending in enumerate(endings) if len(ending) > 1]
                for part in _batches(long, 4 * self._batch):
                    self._add_rest(part, endings, owners, out.past_key_values, mask, totals, greedy)
        return list(zip(totals, greedy, strict=True))

    def _add_rest(
        self,
        part: Sequence[int],
        endings: Sequence[Sequence[int]],
        owners: Sequence[int],
        past: Any,
        mask: Any,
        totals: list[float],
        greedy: list[bool],
    ) -> None:
        """Add the tokens after the first of some endings, in one pass over copies of their contexts."""
        torch = need("torch", "torch")
        chosen = torch.tensor([owners[i] for i in part], device=self._device)
        past = copy.deepcopy(past)
        past.batch_select_indices(chosen)
        width = max(len(endings[i]) for i in part) - 1
        ids = torch.full((len(part), width), self._pad)
        real = torch.zeros((len(part), width), dtype=torch.long)
        for row, i in enumerate(part):
            ids[row, : len(endings[i]) - 1] = torch.tensor(list(endings[i][:-1]))
            real[row, : len(endings[i]) - 1] = 1
        before = mask[chosen.cpu()]
        positions = before.sum(-1, keepdim=True) + torch.arange(width)
        out = self._model(
            input_ids=ids.to(self._device),
            attention_mask=torch.cat([before, real], 1).to(self._device),
            position_ids=positions.to(self._device),
            past_key_values=past,
            use_cache=True,
        )
        logprobs = torch.log_softmax(out.logits.float(), -1)
        for row, i in enumerate(part):
            for place, token in enumerate(endings[i][1:]):
                totals[i] += float(logprobs[row, place, token])
                greedy[i] = greedy[i] and int(logprobs[row, place].argmax()) == token

    def _generate(self, prompts: Sequence[Sequence[int]], ask: Ask) -> list[Completion]:
        torch = need("torch", "torch")
        room = max(1, self._max_context - ask.max_tokens)
        cut = [list(prompt)[-room:] or [self._start_id()] for prompt in prompts]
        longest = max(len(prompt) for prompt in cut)
        ids = torch.full((len(cut), longest), self._pad)
        mask = torch.zeros((len(cut), longest), dtype=torch.long)
        for row, prompt in enumerate(cut):
            ids[row, longest - len(prompt) :] = torch.tensor(prompt)
            mask[row, longest - len(prompt) :] = 1
        sampled = (
            {"do_sample": True, "temperature": ask.temperature} if ask.temperature else {"do_sample": False}
        )
        if ask.temperature:
            torch.manual_seed(ask.seed)
        started, cpu_from = time.perf_counter(), time.process_time()
        with torch.inference_mode():
            made = self._model.generate(
                input_ids=ids.to(self._device),
                attention_mask=mask.to(self._device),
                max_new_tokens=ask.max_tokens,
                pad_token_id=self._pad,
                return_dict_in_generate=True,
                output_logits=True,
                **({"stop_strings": list(ask.stop), "tokenizer": self._tokenizer} if ask.stop else {}),
                **sampled,
            )
            new = made.sequences[:, longest:].cpu()
            steps = torch.stack([step.float() for step in made.logits], 1)
            logprobs = torch.log_softmax(steps, -1).cpu()
        n = len(cut)
        latency_s, cpu_s = (time.perf_counter() - started) / n, (time.process_time() - cpu_from) / n
        return [
            self._completion(new[row].tolist(), logprobs[row], ask, len(cut[row]), latency_s, cpu_s)
            for row in range(n)
        ]

    def _completion(
        self, ids: list[int], logprobs: Any, ask: Ask, n_prompt: int, latency_s: float, cpu_s: float
    ) -> Completion:
        ends = self._model.generation_config.eos_token_id
        stops = set(ends if isinstance(ends, list) else [ends])
        n = next((i for i, token in enumerate(ids) if token in stops), len(ids))
        text = self._tokenizer.decode(ids[:n], skip_special_tokens=True)
        finish = "stop" if n < len(ids) else "length"
        cuts = [text.find(stop) for stop in ask.stop if stop and stop in text]
        if cuts:
            text, finish = text[: min(cuts)], "stop"
            n = self._tokens_of(ids[:n], len(text))
        taken = tuple(float(logprobs[i, ids[i]]) for i in range(max(n, min(1, len(ids)))))
        return Completion(
            text=text,
            finish="stop" if finish == "stop" else "length",
            token_logprobs=taken,
            cost=Cost(prompt_tokens=n_prompt, completion_tokens=n, latency_s=latency_s, cpu_s=cpu_s),
        )

    def _tokens_of(self, ids: Sequence[int], n_characters: int) -> int:
        """Tokens that the first characters of their text take."""
        for n in range(len(ids) + 1):
            if len(self._tokenizer.decode(ids[:n], skip_special_tokens=True)) >= n_characters:
                return n
        return len(ids)


def load_language_tokenizer(candidate: Candidate) -> Any:
    """The checkpoint's tokenizer, with its chat template.

    Raises:
        BrokenArtifact: There is none that loads.
    """
    transformers = need("transformers", "torch")
    try:
        return transformers.AutoTokenizer.from_pretrained(
            candidate.path, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BrokenArtifact(f"{candidate.path} must hold a tokenizer, got: {reason}") from error


def apply_template(tokenizer: Any, messages: Sequence[Message]) -> str:
    """The chat as text; where a template knows no system role, it is put before the first question."""
    turns = [{"role": m.role, "content": m.content} for m in messages]
    try:
        return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
    except Exception as error:
        if not turns or turns[0]["role"] != "system" or len(turns) < 2:
            raise InvalidInput(f"the model's chat template refuses the prompt: {error}.") from error
    system, first, *rest = turns
    merged = {"role": "user", "content": f"{system['content']}\n\n{first['content']}"}
    return str(tokenizer.apply_chat_template([merged, *rest], tokenize=False, add_generation_prompt=True))


def _decoding(ask: Ask) -> tuple[Any, ...]:
    """What requests of one batch must share."""
    return (ask.max_tokens, ask.stop, ask.temperature, ask.seed if ask.temperature else 0)


def _batches(items: Sequence[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])
