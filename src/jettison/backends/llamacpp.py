"""Language models as GGUF files, run by llama.cpp inside this process (`xllamacpp`).

The bindings hold a server of llama.cpp, which keeps the keys and values of the last request: what the
next one begins with alike is not computed again. Likelihoods are exact: a token that is not among the
likeliest is asked for by itself, and its probability is told before any bias or sampling.
"""

import json
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from jettison.backends.gguf_file import read_gguf_facts
from jettison.backends.prompted import PromptedModel, open_prompted
from jettison.backends.words import without_surrogates
from jettison.candidate import Candidate
from jettison.errors import BrokenArtifact, InvalidInput, Unsupported
from jettison.language import Ask, Completion, Continuation, Likelihood
from jettison.record import Cost
from jettison.registry import need
from jettison.task.prompt import Message

MODEL = "model.gguf"
DEFAULT_CONTEXT = 4096
"""Tokens that keys and values are held for, where the settings do not say."""
N_TOP = 256
"""Likeliest tokens told at a time: 2 ms of 14 on a small model, and most asked for are among them."""
N_TOLD = 20
"""Likeliest tokens told with each token of an answer."""
FORCED = 1e4
"""Bias that makes a token the one taken; probabilities are told as they are without it."""
TIMEOUT_S = 60.0
QUIET = -1


def open_llamacpp(candidate: Candidate) -> PromptedModel:
    """Open a candidate with a `model.gguf` behind its prompt.

    Raises:
        MissingExtra: xllamacpp or gguf is not installed.
        BrokenArtifact: The file is broken, or of a family that llama.cpp does not know.
    """
    return open_prompted(LlamaCppEngine(candidate), candidate)


class LlamaCppEngine:
    """A GGUF file in llama.cpp, one request after another.

    Settings: `threads` (1), `max_context` (tokens; the model's own limit, at most 4,096), `logprobs`
    (True; without them free answers have no confidence and come a little faster). Answers are
    held to labels and to JSON schemas by a grammar. A mark in the midst of an answer is written out.
    """

    def __init__(self, candidate: Candidate) -> None:
        path = candidate.path / MODEL
        if not path.is_file():
            raise BrokenArtifact(f"{candidate.path} must hold {MODEL}, got none.")
        self.has_template = read_gguf_facts(path).chat_template is not None
        settings = candidate.settings
        wanted = int(settings.get("max_context", DEFAULT_CONTEXT))
        self._key = secrets.token_urlsafe(16)
        self._server: Any = _started(path, wanted, int(settings.get("threads", 1)), self._key)
        self._address = str(self._server.listening_address)
        self._read: dict[str, list[int]] = {}
        meta = self._get("/v1/models")["data"][0]["meta"]
        self.n_vocabulary = int(meta["n_vocab"])
        self._max_context = min(wanted, int(meta["n_ctx_train"]))
        self._n_probs = N_TOLD if settings.get("logprobs", True) else 0
        self._held: dict[str, bool] = {}
        props = self._get("/props")
        self._bos = self._special(props.get("bos_token"))
        self._eos = self._special(props.get("eos_token"))
        # Taken where it does not matter which token is: after half a character nothing would be told.
        self._letter = int(self._post("/tokenize", {"content": "a", "add_special": False})["tokens"][0])

    def complete(self, asks: Sequence[Ask]) -> list[Completion]:
        """Greedy or sampled completions, one after another."""
        return [self._complete(ask) for ask in asks]

    def likelihoods(self, asked: Sequence[Continuation]) -> list[Likelihood]:
        """Likelihood of each continuation; places that several have in common are computed once."""
        pairs = [self._pair(one) for one in asked]
        wanted: dict[tuple[int, ...], set[int]] = {}
        for context, ending in pairs:
            for place, token in enumerate(ending):
                wanted.setdefault((*context, *ending[:place]), set()).add(token)
        after = {ids: self._after(ids, wanted[ids]) for ids in sorted(wanted)}
        found = []
        for one, (context, ending) in zip(asked, pairs, strict=True):
            places = [after[(*context, *ending[:i])] for i in range(len(ending))]
            found.append(
                Likelihood(
                    logprob=sum(
                        logprobs[token] for (logprobs, _), token in zip(places, ending, strict=True)
                    ),
                    n_tokens=len(ending),
                    n_characters=len(one.text),
                    greedy=all(best == token for (_, best), token in zip(places, ending, strict=True)),
                    n_context_tokens=len(context),
                )
            )
        return found

    def render(self, messages: Sequence[Message], *, answer_prefix: str = "") -> str:
        """The chat by the template in the file, up to where the assistant answers.

        Raises:
            Unsupported: The file has no chat template.
            InvalidInput: The template refuses the messages.
        """
        if not self.has_template:
            raise Unsupported("the model has no chat template.")
        turns = [{"role": m.role, "content": without_surrogates(m.content)} for m in messages]
        return f"{self._post('/apply-template', {'messages': turns})['prompt']}{answer_prefix}"

    def logits(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Log-probabilities of every next token, shape (n_tokens - 1, n_vocabulary), float32.

        Told as text, half a second a token for a vocabulary of 50,000: for checks of few texts.
        """
        found = []
        for text in texts:
            ids = self.token_ids(text)
            rows = [self.next_logprobs(ids[:n]) for n in range(1, len(ids))]
            found.append(np.stack(rows) if rows else np.zeros((0, self.n_vocabulary), np.float32))
        return found

    def next_logprobs(self, ids: Sequence[int]) -> np.ndarray:
        """Log-probability of every token after these, shape (n_vocabulary,), float32."""
        row = np.full(self.n_vocabulary, -np.inf, np.float32)
        for token, logprob in self._likeliest(ids, self.n_vocabulary):
            row[token] = logprob
        return row

    def token_ids(self, text: str) -> list[int]:
        """Ids of a text as it is read, with the mark of the beginning where the model wants one."""
        text = without_surrogates(text)
        if text not in self._read:
            if len(self._read) > 10_000:
                self._read.clear()
            body = {"content": text, "add_special": True, "parse_special": True}
            ids = [int(token) for token in self._post("/tokenize", body)["tokens"]]
            # A template may write the beginning's mark itself.
            self._read[text] = ids[1:] if len(ids) > 1 and ids[0] == ids[1] == self._bos else ids
        return self._read[text][: self._max_context]

    def close(self) -> None:
        """Drop the weights and stop the server's threads. May be called twice."""
        self._server = None

    def _complete(self, ask: Ask) -> Completion:
        started, cpu_from = time.perf_counter(), time.process_time()
        text = ask.text
        if text is None:
            text = self.render(ask.messages, answer_prefix=ask.answer_prefix)
        n = min(ask.max_tokens, self._max_context - 1)
        # Of a prompt that is too long the beginning goes.
        prompt = self._whole_ids(text)[-max(1, self._max_context - n) :]
        body = {
            "prompt": prompt,
            "max_tokens": n,
            "stop": [stop for stop in ask.stop if stop],
            "n_probs": self._n_probs,
            "seed": ask.seed,
            **_sampling(ask.temperature),
        }
        if ask.choices:
            body["grammar"] = f"root ::= {' | '.join(_quoted(choice) for choice in ask.choices)}"
        elif ask.json_schema is not None:
            if not self._holds_to(ask.json_schema):
                said = _said(f"llama.cpp cannot hold answers to the schema {json.dumps(ask.json_schema)}")
                return Completion(text="", finish="error", error=said)
            body["json_schema"] = ask.json_schema
        reply = self._asked(body)
        cost = Cost(
            prompt_tokens=len(prompt),
            completion_tokens=int(reply.get("usage", {}).get("completion_tokens", 0)),
            latency_s=time.perf_counter() - started,
            cpu_s=time.process_time() - cpu_from,
            first_token_s=float(reply.get("timings", {}).get("prompt_ms", 0.0)) / 1000 or None,
        )
        if "error" in reply:
            return Completion(text="", finish="error", error=_said(reply["error"]), cost=cost)
        choice = reply["choices"][0]
        said, finish = str(choice["text"]), choice.get("finish_reason")
        # Half a character is told as a mark that the server does not look for.
        cuts = [said.find(stop) for stop in ask.stop if stop and stop in said]
        if cuts:
            said, finish = said[: min(cuts)], "stop"
        tokens = (choice.get("logprobs") or {}).get("content") or []
        told = tuple(min(0.0, float(one["logprob"])) for one in tokens)
        return Completion(
            text=said,
            finish="length" if finish == "length" else "stop",
            token_logprobs=told if self._n_probs else None,
            top_logprobs=_first_tokens(tokens),
            cost=cost,
        )

    def _holds_to(self, schema: dict[str, Any]) -> bool:
        """Whether the server keeps to a schema: one it cannot read it leaves away without a word."""
        key = json.dumps(schema, sort_keys=True)
        if key not in self._held:
            reply = self._asked(
                {
                    "prompt": [self._start()],
                    "max_tokens": 1,
                    "json_schema": schema,
                    # No JSON begins with this letter, so it comes only where nothing is kept to.
                    "logit_bias": [[self._letter, FORCED]],
                    **_sampling(0.0),
                }
            )
            self._held[key] = "error" not in reply and reply["choices"][0]["text"] != "a"
        return self._held[key]

    def _pair(self, asked: Continuation) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Context and continuation as ids; the split falls where it would in the whole text."""
        bare = asked.context.rstrip()
        if asked.context + asked.text == bare:
            raise InvalidInput(
                f"a continuation must be 1 to {self._max_context - 1} tokens long, got 0 of ''."
            )
        context = self._whole_ids(bare) if bare else [self._start()]
        whole = self._whole_ids(asked.context + asked.text)
        if not bare and whole[:1] != context:
            whole = [*context, *whole]
        # A first character that joins the context's last token is told together with it.
        split = min(len(context), len(whole) - 1)
        context, ending = whole[:split] if split < len(context) else context, whole[split:]
        if not 0 < len(ending) < self._max_context:
            raise InvalidInput(
                f"a continuation must be 1 to {self._max_context - 1} tokens long, got {len(ending)} "
                f"of {asked.text[:60]!r}."
            )
        return tuple(context[-(self._max_context - len(ending)) :]), tuple(ending)

    def _whole_ids(self, text: str) -> list[int]:
        self.token_ids(text)
        return self._read[without_surrogates(text)] or [self._start()]

    def _start(self) -> int:
        """Read where there is nothing to go on from."""
        return next((one for one in (self._bos, self._eos) if one is not None), 0)

    def _special(self, text: Any) -> int | None:
        """Id of a token that marks a beginning or an end; None where the model has none."""
        if not text:
            return None
        body = {"content": str(text), "add_special": False, "parse_special": True}
        ids = self._post("/tokenize", body)["tokens"]
        return int(ids[0]) if len(ids) == 1 else None

    def _after(self, ids: Sequence[int], tokens: set[int]) -> tuple[dict[int, float], int]:
        """Log-probability of each of the tokens after some ids, and the likeliest token of all."""
        first = self._likeliest(ids, min(N_TOP, self.n_vocabulary))
        told, best = dict(first), first[0][0]
        for token in tokens - told.keys():
            one = self._one_token(ids, n_probs=1, forced=token)
            # Nothing is told of a mark of the end or of a part of a character; the whole list holds them.
            told[token] = float(self.next_logprobs(ids)[token] if one is None else one["logprob"])
        return {token: min(0.0, told[token]) for token in tokens}, best

    def _one_token(
        self, ids: Sequence[int], *, n_probs: int, forced: int | None = None
    ) -> dict[str, Any] | None:
        """What is said of the token after some ids when `forced` is taken; None where nothing is.

        Raises:
            BrokenArtifact: The server refuses.
        """
        reply = self._asked(
            {
                "prompt": list(ids),
                "max_tokens": 1,
                "n_probs": n_probs,
                "logit_bias": [[self._letter if forced is None else forced, FORCED]],
                **_sampling(0.0),
            }
        )
        if "error" in reply:
            raise BrokenArtifact(
                f"llama.cpp must go on from {len(ids)} tokens, got: {_said(reply['error'])}."
            )
        told = reply["choices"][0].get("logprobs") or {}
        return next(iter(told.get("content") or ()), None)

    def _likeliest(self, ids: Sequence[int], n: int) -> list[tuple[int, float]]:
        """Token and log-probability of the likeliest after some ids, the likeliest first.

        Raises:
            BrokenArtifact: The server says nothing of them.
        """
        one = self._one_token(ids, n_probs=n)
        if one is None:
            raise BrokenArtifact("llama.cpp must tell log-probabilities, got none.")
        return [(int(each["id"]), float(each["logprob"])) for each in one["top_logprobs"]]

    def _asked(self, body: dict[str, Any]) -> dict[str, Any]:
        if self._server is None:
            raise BrokenArtifact("a closed engine answers nothing.")
        reply = self._server.handle_completions({**body, "cache_prompt": True})
        return reply if isinstance(reply, dict) else dict(json.loads(reply))

    def _get(self, path: str) -> dict[str, Any]:
        return self._post(path, None)

    def _post(self, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        """What the bindings offer by the server's own loopback address alone; it asks for a key."""
        if self._server is None:
            raise BrokenArtifact("a closed engine answers nothing.")
        request = urllib.request.Request(
            self._address + path,
            None if body is None else json.dumps(body).encode(),
            {"content-type": "application/json", "authorization": f"Bearer {self._key}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:
                return dict(json.load(reply))
        except urllib.error.HTTPError as error:
            with error:
                said = error.read(2000).decode("utf-8", "replace")
            with suppress(ValueError, KeyError, TypeError):
                said = _said(json.loads(said)["error"])
            raise InvalidInput(f"the model's {path[1:]} refuses what it is given: {said[:200]}.") from error


def _started(path: Path, n_context: int, threads: int, key: str) -> Any:
    """llama.cpp with the model loaded, silent, for one request at a time."""
    xllamacpp = need("xllamacpp", "gguf")
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx = n_context
    params.n_parallel = 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.n_threads_http = 1
    params.verbosity = QUIET
    params.warmup = False
    params.special = False
    params.cache_ram_mib = 0  # prompts of other requests; the last one's keys and values are kept anyway
    params.api_keys = [key]
    params.ui = False
    try:
        return xllamacpp.Server(params)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BrokenArtifact(f"{path} must be a model that llama.cpp loads, got: {reason}.") from error


def _sampling(temperature: float) -> dict[str, Any]:
    """Greedy, or drawn from the whole distribution: the server's own defaults cut its tail off."""
    if temperature <= 0:
        return {"temperature": 0.0}
    return {"temperature": temperature, "top_k": 0, "top_p": 1.0, "min_p": 0.0}


def _first_tokens(tokens: Sequence[dict[str, Any]]) -> dict[str, float] | None:
    """Likeliest first tokens as text; of several that read alike, the likeliest."""
    if not tokens:
        return None
    return {one["token"]: float(one["logprob"]) for one in reversed(tokens[0]["top_logprobs"])}


def _quoted(text: str) -> str:
    """A string as a grammar has it."""
    return json.dumps(text, ensure_ascii=False)


def _said(error: Any) -> str:
    message = error.get("message", error) if isinstance(error, dict) else error
    return " ".join(str(message).split())[:200]
