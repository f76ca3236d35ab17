"""A release's candidate as an arm: reads the text of the task, answers as the API wants it."""

from typing import Any

import msgspec

from jettison.candidate import Candidate
from jettison.serve.api_error import ApiError, cannot_answer
from jettison.serve.calls import Answer, Call, Reply
from jettison.serve.config import InputConfig
from jettison.serve.decisions import is_answerable
from jettison.serve.engine import Engine
from jettison.serve.engine_child import WireAnswer
from jettison.serve.reading import text_of

DEFAULT_MAX_TOKENS = 256
_ROLES = {"developer": "system", "system": "system", "user": "user", "assistant": "assistant"}


class LocalArm:
    """One candidate behind one engine.

    Args:
        candidate: What answers.
        engine: Where it runs.
        config: How a label is said.
    """

    def __init__(self, candidate: Candidate, engine: Engine, config: InputConfig) -> None:
        self.candidate, self.engine = candidate, engine
        self._says_json = config.says_json
        self._is_default_input = config.template == "{input}"
        self._temperatures = _temperatures(candidate)
        self._map = candidate.settings.get("confidence_map")
        withholds = candidate.settings.get("when_out_of_scope") == "abstain"
        self._outside = candidate.out_of_scope if withholds else None

    async def answer(self, call: Call) -> Reply:
        """The candidate's answer.

        Raises:
            ApiError: The request is none that it can answer, or the engine is down, busy or died.
        """
        if call.operation in ("embedding", "other"):
            raise cannot_answer(f"{self.candidate.name} is no model for this.")
        if self.candidate.labels:
            self._check_label_will_do(call)
            wire = await self._predicted(call)
        elif call.operation in ("decision", "infer") or not self._wants_chat(call):
            wire = await self._predicted(call)
        else:
            wire = self._mapped((await self.engine.complete([_ask(call)]))[0])
        return self._reply(call, wire)

    async def _predicted(self, call: Call) -> WireAnswer:
        if call.text is None:
            raise cannot_answer(f"{self.candidate.name} cannot answer this: {call.why_no_text}.")
        return (await self.engine.predict([call.text]))[0]

    def _reply(self, call: Call, wire: WireAnswer) -> Reply:
        if wire.error is not None:
            raise ApiError(500, "engine_failed", f"{self.candidate.name} failed: {wire.error[:300]}")
        labels = self.candidate.labels
        answer = Answer(
            text=wire.text,
            confidence=wire.confidence,
            in_scope=wire.in_scope,
            flagged=wire.flagged,
            logits=wire.logits,
            labels=labels,
            temperature=self._temperatures.get(wire.arm, 1.0),
            finish=wire.finish if wire.finish in ("stop", "length") else "stop",
            prompt_tokens=wire.prompt_tokens,
            completion_tokens=wire.completion_tokens,
        )
        return Reply(
            candidate=self.candidate.digest,
            model=self.candidate.name,
            answer=answer,
            output=wire.text,
            is_label=bool(labels),
            is_partial=not all(is_answerable(q, labels) for q in call.questions),
            confidence=wire.confidence,
            in_scope=wire.in_scope,
            flagged=wire.flagged,
            abstained=self._outside is not None and wire.text == self._outside,
            place=wire.arm or "",
            arm=None if wire.arm is None else wire.arm.rsplit("/", 1)[-1],
            escalated=wire.escalated,
            prompt_tokens=wire.prompt_tokens,
            completion_tokens=wire.completion_tokens,
            cpu_s=wire.cpu_s,
            energy_j=wire.energy_j,
            energy_tier=wire.energy_tier,
        )

    def _check_label_will_do(self, call: Call) -> None:
        """A label is a text of its own: no call of a tool, and JSON only where the answers are said so."""
        choice = call.body.get("tool_choice")
        if choice == "required" or isinstance(choice, dict):
            raise cannot_answer(f"{self.candidate.name} calls no tools.", param="tool_choice")
        wanted = (call.body.get("response_format") or {}).get("type")
        if wanted in ("json_object", "json_schema") and not self._says_json:
            raise cannot_answer(f"{self.candidate.name} answers in plain labels.", param="response_format")

    def _wants_chat(self, call: Call) -> bool:
        """Whether the client's own messages are the prompt, rather than the task's about its text."""
        fits_task = call.text is not None and not self._is_default_input
        return call.operation in ("chat", "completion") and self.engine.can_complete and not fits_task

    def _mapped(self, wire: WireAnswer) -> WireAnswer:
        if self._map is None or wire.confidence is None:
            return wire
        from jettison.model import mapped_confidence

        confidence = mapped_confidence(wire.confidence, self.candidate.settings)
        return msgspec.structs.replace(wire, confidence=confidence)


def _temperatures(candidate: Candidate) -> dict[str | None, float]:
    """Temperature of the logits by the arm that gave them; `None` is the candidate itself."""
    if candidate.backend != "cascade":
        return {None: candidate.calibration.temperature}
    route = candidate.settings.get("route", {})
    found: dict[str | None, float] = {}
    if route.get("combine", "fallback") != "fallback":
        return found
    for arm in ("lean", "fallback"):
        folder = route.get(arm, {}).get("candidate")
        if folder is not None:
            found[arm] = Candidate.at(candidate.path / folder).calibration.temperature
    return found


def _ask(call: Call) -> dict[str, Any]:
    """The client's request as an engine's `Ask`."""
    body = call.body
    if (body.get("n") or 1) > 1:
        raise cannot_answer("local models give one answer at a time.", param="n")
    if body.get("tool_choice") not in (None, "auto", "none"):
        raise cannot_answer("local models call no tools.", param="tool_choice")
    stop = body.get("stop") or ()
    wanted = body.get("response_format") or {}
    schema = (
        (wanted.get("json_schema") or {}).get("schema") if wanted.get("type") == "json_schema" else None
    )
    ask: dict[str, Any] = {
        "max_tokens": body.get("max_completion_tokens") or body.get("max_tokens") or DEFAULT_MAX_TOKENS,
        "stop": [stop] if isinstance(stop, str) else list(stop),
        "temperature": float(body.get("temperature") or 0.0),
        "seed": body.get("seed") or 0,
        "json_schema": schema if isinstance(schema, dict) else None,
    }
    if call.operation == "completion":
        return {**ask, "text": call.text or ""}
    return {**ask, "messages": [_message(one) for one in body["messages"]]}


def _message(given: dict[str, Any]) -> dict[str, str]:
    role, text = _ROLES.get(given.get("role", "")), text_of(given.get("content"))
    if role is None or text is None:
        raise cannot_answer(
            "local models read texts of system, user and assistant alone.", param="messages"
        )
    return {"role": role, "content": text}
