"""One request on its way through the routes, and what comes back."""

import dataclasses
import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from jettison.record import Cost, Record
from jettison.serve.api_error import ApiError
from jettison.serve.question import Question

Operation = Literal["chat", "completion", "decision", "infer", "embedding", "other"]


@dataclass(slots=True, kw_only=True)
class Call:
    """A request that was admitted."""

    operation: Operation
    path: str
    """Below the base address, as `/chat/completions`."""
    body: dict[str, Any]
    request_id: str
    key: str
    """What arms are assigned by."""
    is_sticky: bool
    """Whether `key` is the user's, or drawn for this request alone."""
    started_s: float
    """On the monotonic clock."""
    text: str | None = None
    """What a lean model reads; None where the request holds no text of the task."""
    why_no_text: str = ""
    questions: Sequence[Question] = ()
    """Of a decision."""
    stream: bool = False
    authorization: str | None = None
    """The client's own header, for upstreams that are told to hand it on."""
    is_retry: bool = False
    notes: dict[str, str] = field(default_factory=dict)
    """Guardrails that fired, and what was done."""
    output_notes: dict[str, str] = field(default_factory=dict)
    """Guardrails that looked at the output, and the severest that each did, perhaps `pass`."""
    side: list[Record] = field(default_factory=list)
    """Records besides that of the answer, written together with it."""
    escalate: bool = False
    """A guardrail wants the fallback to answer."""
    needs_confidence: bool = False
    """A cascade weighs the answer: an upstream is asked for log-probabilities that no client sees."""
    traceparent: str | None = None
    """W3C trace context: the client's, and towards an upstream our own; None where nothing is traced."""


@dataclass(slots=True, kw_only=True)
class Answer:
    """What a local model says, before it is put into the shape that was asked for."""

    text: str
    """The label, or the text generated."""
    confidence: float | None = None
    in_scope: float | None = None
    flagged: bool | None = None
    logits: Sequence[float] | None = None
    labels: tuple[str, ...] = ()
    """Of the logits; empty where the answer is free text."""
    temperature: float = 1.0
    finish: str = "stop"
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    vectors: list[list[float]] | None = None

    def probabilities(self) -> dict[str, float]:
        """Label → calibrated probability; empty where the model gives none."""
        if self.logits is None or len(self.logits) != len(self.labels):
            return {}
        top = max(self.logits)
        weights = [math.exp((one - top) / self.temperature) for one in self.logits]
        total = sum(weights)
        return {label: weight / total for label, weight in zip(self.labels, weights, strict=True)}


@dataclass(slots=True, frozen=True)
class Guess:
    """What an answer took, by its length alone: budgets must not stand still for want of a count."""

    tokens: int
    usd: float | None


@dataclass(slots=True, kw_only=True)
class Reply:
    """An answer with its provenance: exactly one of `answer`, `body` and `frames` is given."""

    candidate: str
    """Digest of what answered."""
    model: str
    answer: Answer | None = None
    body: bytes | None = None
    """An upstream's JSON as it came."""
    frames: AsyncIterator[bytes] | None = None
    """Events of a stream, each whole. What it turned out to be stands in this reply once it has ended."""
    status: int = 200
    output: str | None = None
    """The label or text answered, for the record."""
    is_label: bool = False
    is_partial: bool = False
    """Some of the questions were refused."""
    confidence: float | None = None
    in_scope: float | None = None
    flagged: bool | None = None
    abstained: bool = False
    """The output is the out-of-scope label because the release abstains from what it flags."""
    arm: str | None = None
    """`lean`, `fallback`, `treatment` and so on, the innermost."""
    place: str = ""
    """In the route plan, as `treatment/fallback`."""
    escalated: bool = False
    propensity: float | None = None
    latency_s: float | None = None
    """Of the arm that answered."""
    first_token_s: float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cpu_s: float | None = None
    """Of the arm that answered, where it runs here; a share of its batch."""
    energy_j: float | None = None
    energy_tier: str | None = None
    price_usd: float | None = None
    wire_bytes: int | None = None
    guess: "Guess | None" = None
    """What to book where an upstream counted no tokens; no record has it."""
    error: str | None = None
    """How a stream broke off."""

    def cost(self) -> Cost:
        """As the record holds it."""
        return Cost(
            latency_s=self.latency_s,
            cpu_s=self.cpu_s,
            energy_j=self.energy_j,
            energy_tier=self.energy_tier,
            first_token_s=self.first_token_s,
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            price_usd=self.price_usd,
            wire_bytes=self.wire_bytes,
        )


@dataclass(slots=True, frozen=True)
class Took:
    """What a request took, as far as is known."""

    tokens: int | None
    usd: float | None


def took_of(reply: Reply) -> Took:
    """Of the answer alone; by a guess where nobody counted."""
    n_in, n_out = reply.prompt_tokens, reply.completion_tokens
    if n_in is not None and n_out is not None:
        return Took(n_in + n_out, reply.price_usd)
    return Took(None, None) if reply.guess is None else Took(reply.guess.tokens, reply.guess.usd)


def buffered(call: Call) -> Call:
    """The call as one that wants its answer whole; side records go to the same list."""
    if not call.stream:
        return call
    body = {name: value for name, value in call.body.items() if name not in ("stream", "stream_options")}
    return dataclasses.replace(call, stream=False, body=body)


T = TypeVar("T", bound=Reply | ApiError)


def within(place: str, told: T) -> T:
    """Say that a reply, or the error in its stead, came from an arm at this place of the plan."""
    told.place = f"{place}/{told.place}" if told.place else place
    return told
