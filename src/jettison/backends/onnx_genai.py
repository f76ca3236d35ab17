"""Language models in ONNX Runtime's generative runtime: int4 and int8 weights, one request after another.

The runtime keeps one cache of keys and values; it is wound back to what a request shares with the one
before, so that requests with a common beginning compute it once.
"""

import json
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from jettison.backends.language_tokens import LanguageTokens, apply_template, load_language_tokenizer
from jettison.backends.prompted import PromptedModel, open_prompted
from jettison.candidate import Candidate
from jettison.errors import BrokenArtifact, Unsupported
from jettison.files import read_json
from jettison.language import Ask, Completion, Continuation, Likelihood
from jettison.record import Cost
from jettison.registry import need
from jettison.task.prompt import Message

CONFIG = "genai_config.json"


def open_onnx_genai(candidate: Candidate) -> PromptedModel:
    """Open a folder of `quantize_genai` behind the candidate's prompt.

    Raises:
        MissingExtra: onnxruntime-genai or transformers is not installed.
        BrokenArtifact: The model does not load.
    """
    return open_prompted(GenaiEngine(candidate), candidate)


class GenaiEngine:
    """An `onnxruntime_genai.Model`.

    Settings: `threads` (1), `max_context` (tokens; the model's own limit), `add_bos` (as the
    tokenizer does by itself). Answers
    are not held to a schema; labels and choices are weighed by their likelihood.
    """

    def __init__(self, candidate: Candidate) -> None:
        self._genai = need("onnxruntime_genai", "genai")
        self._genai.disable_telemetry_events()
        settings = candidate.settings
        self._folder = candidate.path
        self._threads = int(settings.get("threads", 1))
        self._tokenizer: Any = load_language_tokenizer(candidate)
        stored: dict[str, Any] = read_json(candidate.path / CONFIG, dict[str, Any])
        try:
            limit = int(stored["model"]["context_length"])
            ends = stored["model"]["eos_token_id"]
            self._model: Any = self._genai.Model(self._config())
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise BrokenArtifact(
                f"{candidate.path} must hold a model that onnxruntime-genai loads, got "
                f"{type(error).__name__}: {reason}"
            ) from error
        self._ends = set(ends if isinstance(ends, list) else [ends])
        self._max_context = min(int(settings.get("max_context", limit)), limit)
        self._tokens = LanguageTokens(
            self._tokenizer, add_bos=settings.get("add_bos"), max_context=self._max_context
        )
        self._generator: Any = None
        self._held: list[int] = []
        """Tokens whose keys and values the generator holds."""
        self._session: Any = None

    def complete(self, asks: Sequence[Ask]) -> list[Completion]:
        """Greedy or sampled completions, one after another."""
        return [self._complete(ask) for ask in asks]

    def likelihoods(self, asked: Sequence[Continuation]) -> list[Likelihood]:
        """Likelihood of each continuation; in the order of their tokens, so that beginnings are shared."""
        pairs = self._tokens.pairs(asked)
        found: dict[int, Likelihood] = {}
        for row in sorted(range(len(asked)), key=lambda i: pairs[i]):
            context, ending = pairs[row]
            total, greedy = 0.0, True
            for place, token in enumerate(ending):
                logprobs = self._next([*context, *ending[:place]])
                total += float(logprobs[token])
                greedy = greedy and int(logprobs.argmax()) == token
            found[row] = Likelihood(
                logprob=total, n_tokens=len(ending), n_characters=len(asked[row].text), greedy=greedy
            )
        return [found[row] for row in range(len(asked))]

    def render(self, messages: Sequence[Message], *, answer_prefix: str = "") -> str:
        """The chat by the model's own template, up to where the assistant answers.

        Raises:
            Unsupported: The tokenizer has no chat template.
        """
        if not getattr(self._tokenizer, "chat_template", None):
            raise Unsupported("the model has no chat template.")
        return apply_template(self._tokenizer, messages) + answer_prefix

    def logits(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Log-probabilities of every next token, shape (n_tokens - 1, n_vocabulary), float32.

        The generative runtime shows the last token's alone: the graph is run whole in plain ONNX Runtime.
        """
        return [self._whole(ids[: self._max_context]) for ids in self._tokens.encode(texts)]

    def token_ids(self, text: str) -> list[int]:
        """Ids of a text as `logits` reads it."""
        return self._tokens.encode([text])[0][: self._max_context]

    def close(self) -> None:
        """Drop the weights."""
        self._generator = self._model = self._session = None
        self._held = []

    def _config(self) -> Any:
        config = self._genai.Config(str(self._folder))
        threads = {"intra_op_num_threads": self._threads, "inter_op_num_threads": 1}
        config.overlay(_session_overlay(threads))
        return config

    def _complete(self, ask: Ask) -> Completion:
        started, cpu_from = time.perf_counter(), time.process_time()
        text = ask.text
        if text is None:
            text = self.render(ask.messages, answer_prefix=ask.answer_prefix)
        room = max(1, self._max_context - ask.max_tokens)
        prompt = self._tokens.encode([text])[0][-room:] or [self._tokens.start]
        rng = np.random.default_rng(ask.seed)
        ids: list[int] = []
        taken: list[float] = []
        said, finish, first_token_s = "", "length", None
        while len(ids) < ask.max_tokens and len(prompt) + len(ids) < self._max_context:
            logprobs = self._next([*prompt, *ids])
            token = _draw(logprobs, ask.temperature, rng)
            taken.append(float(logprobs[token]))
            first_token_s = first_token_s or time.perf_counter() - started
            if token in self._ends:
                finish = "stop"
                break
            ids.append(token)
            said = str(self._tokenizer.decode(ids, skip_special_tokens=True))
            cuts = [said.find(stop) for stop in ask.stop if stop and stop in said]
            if cuts:
                said, finish = said[: min(cuts)], "stop"
                break
        return Completion(
            text=said,
            finish="stop" if finish == "stop" else "length",
            token_logprobs=tuple(taken),
            cost=Cost(
                prompt_tokens=len(prompt),
                completion_tokens=len(ids),
                latency_s=time.perf_counter() - started,
                cpu_s=time.process_time() - cpu_from,
                first_token_s=first_token_s,
            ),
        )

    def _next(self, ids: Sequence[int]) -> np.ndarray:
        """Log-probabilities of the token after these, shape (n_vocabulary,), float64."""
        if self._generator is None:
            params = self._genai.GeneratorParams(self._model)
            params.set_search_options(max_length=self._max_context, do_sample=False)
            self._generator, self._held = self._genai.Generator(self._model, params), []
        shared = 0
        # The last token is always run again: its logits are what is asked for.
        while shared < min(len(self._held), len(ids) - 1) and self._held[shared] == ids[shared]:
            shared += 1
        if shared < len(self._held):
            self._generator.rewind_to(shared)
        self._generator.append_tokens(np.array([list(ids[shared:])], np.int32))
        self._held = list(ids)
        logits = np.asarray(self._generator.get_logits(), np.float64).reshape(-1)
        return _log_softmax(logits)

    def _whole(self, ids: Sequence[int]) -> np.ndarray:
        if self._session is None:
            onnxruntime = need("onnxruntime", "genai")
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = self._threads
            self._session = onnxruntime.InferenceSession(
                str(self._folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
            )
        given: dict[str, Any] = {}
        for one in self._session.get_inputs():
            if one.name.startswith("past_key_values"):
                dtype = np.float16 if "float16" in one.type else np.float32
                given[one.name] = np.zeros((1, one.shape[1], 0, self._head_size()), dtype)
            elif one.name == "attention_mask":
                given[one.name] = np.ones((1, len(ids)), np.int64)
            elif one.name == "position_ids":
                given[one.name] = np.arange(len(ids), dtype=np.int64)[None, :]
            else:
                given[one.name] = np.array([list(ids)], np.int64)
        (logits,) = self._session.run(["logits"], given)
        return _log_softmax(logits[0, :-1].astype(np.float64)).astype(np.float32)

    def _head_size(self) -> int:
        stored: dict[str, Any] = read_json(self._folder / CONFIG, dict[str, Any])
        return int(stored["model"]["decoder"]["head_size"])


def _session_overlay(options: dict[str, int]) -> str:
    return json.dumps({"model": {"decoder": {"session_options": options}}})


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    top = logits.max(axis=-1, keepdims=True)
    shifted: np.ndarray = logits - top
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def _draw(logprobs: np.ndarray, temperature: float, rng: np.random.Generator) -> int:
    """The likeliest token, or above temperature 0 one drawn by the Gumbel-max trick."""
    if temperature <= 0:
        return int(logprobs.argmax())
    return int((logprobs / temperature + rng.gumbel(size=logprobs.shape)).argmax())
