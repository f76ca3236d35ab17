"""From a body to a call, one function an API; each says what is wrong before any arm is asked."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from jettison.serve.api_error import ApiError, bad_request
from jettison.serve.calls import Call, Operation
from jettison.serve.decisions import read_questions, read_systemone
from jettison.serve.reading import check_chat, check_model, check_sampling, decision_text, sticky_key

if TYPE_CHECKING:
    from jettison.serve.gateway import Gateway

Parser = Callable[["Gateway", dict[str, Any], dict[bytes, bytes], str, str | None, str | None], Call]


def _call(
    gateway: "Gateway",
    operation: Operation,
    path: str,
    body: dict[str, Any],
    headers: dict[bytes, bytes],
    request_id: str,
) -> Call:
    key, is_sticky = sticky_key(gateway.config.sticky.sources, headers, body, request_id)
    authorization = headers.get(b"authorization")
    return Call(
        operation=operation,
        path=path,
        body=body,
        request_id=request_id,
        key=key,
        is_sticky=is_sticky,
        started_s=time.monotonic(),
        stream=body.get("stream") is True,
        authorization=None if authorization is None else authorization.decode("latin-1"),
        traceparent=None if gateway.tracing is None else _traceparent(headers),
        is_retry=headers.get(b"x-stainless-retry-count", b"0") != b"0",
    )


def _traceparent(headers: dict[bytes, bytes]) -> str | None:
    given = headers.get(b"traceparent")
    return None if given is None else given.decode("latin-1")


def parse_chat(gateway: Any, body: Any, headers: Any, request_id: str, name: Any, key: Any) -> Call:
    """`/v1/chat/completions`."""
    check_chat(body)
    call = _call(gateway, "chat", "/chat/completions", body, headers, request_id)
    call.text, call.why_no_text = gateway.task_text.of_chat(body["messages"])
    return call


def parse_completion(gateway: Any, body: Any, headers: Any, request_id: str, name: Any, key: Any) -> Call:
    """`/v1/completions`."""
    check_sampling(body)
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str):
        prompt = prompt[0]
    if not isinstance(prompt, str) and not _is_prompts(prompt):
        raise bad_request("prompt must be a text, a list of texts, or token ids.", param="prompt")
    n_logprobs = body.get("logprobs")
    if n_logprobs is not None and not (isinstance(n_logprobs, bool | int) and 0 <= n_logprobs <= 20):
        raise bad_request("logprobs must be a whole number in 0-20.", param="logprobs")
    call = _call(gateway, "completion", "/completions", body, headers, request_id)
    if isinstance(prompt, str):
        call.text, call.why_no_text = gateway.task_text.of_text(prompt)
    else:
        call.why_no_text = "it is several prompts at once, or token ids"
    return call


def _is_prompts(prompt: Any) -> bool:
    if not isinstance(prompt, list) or not prompt:
        return False
    if all(isinstance(one, str) for one in prompt):
        return True
    ids = prompt if all(isinstance(one, list) for one in prompt) else [prompt]
    return all(isinstance(i, int) and not isinstance(i, bool) and i >= 0 for one in ids for i in one)


def parse_decision(gateway: Any, body: Any, headers: Any, request_id: str, name: Any, key: Any) -> Call:
    """`/v1/decisions`."""
    check_model(body)
    call = _call(gateway, "decision", "/decisions", body, headers, request_id)
    call.questions = read_questions(body.get("questions"))
    return _with_decision_text(gateway, call, body.get("input"))


def parse_systemone(gateway: Any, body: Any, headers: Any, request_id: str, name: Any, key: Any) -> Call:
    """`/v1/systemone`."""
    check_model(body)
    call = _call(gateway, "decision", "/systemone", body, headers, request_id)
    call.questions = read_systemone(body.get("questions"))
    return _with_decision_text(gateway, call, body.get("state"))


def _with_decision_text(gateway: Any, call: Call, given: Any) -> Call:
    text = decision_text(given)
    inner, _ = gateway.task_text.of_text(text)
    call.text, call.stream = text if inner is None else inner, False
    return call


def parse_embedding(gateway: Any, body: Any, headers: Any, request_id: str, name: Any, key: Any) -> Call:
    """`/v1/embeddings`."""
    check_model(body)
    given = body.get("input")
    if not (isinstance(given, str) and given) and not _is_prompts(given):
        raise bad_request("input must be a text, a list of texts, or token ids.", param="input")
    if body.get("encoding_format") not in (None, "float", "base64"):
        raise bad_request("encoding_format must be float or base64.", param="encoding_format")
    call = _call(gateway, "embedding", "/embeddings", body, headers, request_id)
    call.stream = False
    return call


def parse_infer(gateway: Any, body: Any, headers: Any, request_id: str, name: Any, key: Any) -> Call:
    """`/v2/models/{name}/infer`: one input tensor of texts."""
    if name not in gateway.model_names:
        raise ApiError(
            404, "model_not_found", f"there is no model {str(name)[:80]!r} here.", should_retry=False
        )
    inputs = body.get("inputs")
    if not isinstance(inputs, list) or not inputs or not isinstance(inputs[0], dict):
        raise bad_request("inputs must be a list of one tensor of BYTES.", param="inputs")
    texts = inputs[0].get("data")
    is_texts = (
        isinstance(texts, list) and 1 <= len(texts) <= 4096 and all(isinstance(t, str) for t in texts)
    )
    if inputs[0].get("datatype") != "BYTES" or not is_texts:
        raise bad_request("inputs[0] must be BYTES with 1-4096 texts in data.", param="inputs")
    call = _call(gateway, "infer", f"/v2/models/{name}/infer", body, headers, request_id)
    call.stream = False
    return call


def parse_other(gateway: Any, body: Any, headers: Any, request_id: str, name: Any, key: Any) -> Call:
    """Any other path below `/v1`, for an upstream alone."""
    return _call(gateway, "other", str(name), body, headers, request_id)


PARSERS: dict[str, Parser] = {
    "/v1/chat/completions": parse_chat,
    "/v1/completions": parse_completion,
    "/v1/decisions": parse_decision,
    "/v1/systemone": parse_systemone,
    "/v1/embeddings": parse_embedding,
}
