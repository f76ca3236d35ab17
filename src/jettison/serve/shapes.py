"""Local answers in the shapes of the APIs: chats, completions, streams, infer, embeddings."""

import base64
import dataclasses
import math
import struct
import time
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from jettison.serve.calls import Answer, Call

encode = msgspec.json.encode
CHARACTERS_A_TOKEN = 4
DONE = b"data: [DONE]\n\n"


def usage(call: Call, answer: Answer, said: str) -> dict[str, Any]:
    """Tokens; of a model that does not count any, an estimate by characters that says so."""
    n_in, n_out = answer.prompt_tokens, answer.completion_tokens
    if n_in is not None and n_out is not None:
        return {"prompt_tokens": n_in, "completion_tokens": n_out, "total_tokens": n_in + n_out}
    n_in = math.ceil(len(call.text or "") / CHARACTERS_A_TOKEN)
    n_out = math.ceil(len(said) / CHARACTERS_A_TOKEN)
    return {
        "prompt_tokens": n_in,
        "completion_tokens": n_out,
        "total_tokens": n_in + n_out,
        "estimated": True,
    }


def chat_completion(call: Call, answer: Answer, said: str, model: str) -> bytes:
    """Body of `/v1/chat/completions`."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": said, "refusal": None},
        "logprobs": _chat_logprobs(call, answer, said),
        "finish_reason": answer.finish,
    }
    return encode(
        {
            "id": f"chatcmpl-{call.request_id}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": model,
            "choices": [{**choice, "index": i} for i in range(call.body.get("n") or 1)],
            "usage": usage(call, answer, said),
        }
    )


def chat_frames(call: Call, answer: Answer, said: str, model: str) -> Iterator[bytes]:
    """The same as a stream of events."""
    head = {
        "id": f"chatcmpl-{call.request_id}",
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": model,
    }
    n = call.body.get("n") or 1
    for i in range(n):
        yield _event({**head, "choices": [_delta(i, {"role": "assistant", "content": ""})]})
    for i in range(n):
        logprobs = _chat_logprobs(call, answer, said)
        yield _event({**head, "choices": [_delta(i, {"content": said}, logprobs=logprobs)]})
    for i in range(n):
        yield _event({**head, "choices": [_delta(i, {}, finish=answer.finish)]})
    if (call.body.get("stream_options") or {}).get("include_usage"):
        yield _event({**head, "choices": [], "usage": usage(call, answer, said)})
    yield DONE


def _delta(
    index: int, delta: dict[str, Any], *, finish: str | None = None, logprobs: Any = None
) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}


def _event(value: Any) -> bytes:
    return b"data: " + encode(value) + b"\n\n"


def _chat_logprobs(call: Call, answer: Answer, said: str) -> dict[str, Any] | None:
    """The whole answer as one token, with the calibrated probabilities of the likeliest others."""
    if not call.body.get("logprobs") or answer.confidence is None:
        return None
    n = call.body.get("top_logprobs") or 0
    return {
        "content": [
            {**_token(said, answer.confidence), "top_logprobs": [_token(*one) for one in _top(answer, n)]}
        ],
        "refusal": None,
    }


def _token(text: str, probability: float) -> dict[str, Any]:
    logprob = math.log(max(probability, 1e-30))
    return {"token": text, "logprob": logprob, "bytes": list(text.encode("utf-8", "replace"))}


def _top(answer: Answer, n: int) -> list[tuple[str, float]]:
    return sorted(answer.probabilities().items(), key=lambda one: -one[1])[:n]


def completion(call: Call, answers: Sequence[tuple[Answer, str, str]], model: str) -> bytes:
    """Body of `/v1/completions`: answer, what it is said as, and the prompt, one a prompt."""
    choices: list[dict[str, Any]] = []
    n_in = n_out = 0
    is_estimate = False
    for answer, said, prompt in answers:
        used = usage(dataclasses.replace(call, text=prompt), answer, said)
        n_in, n_out = n_in + used["prompt_tokens"], n_out + used["completion_tokens"]
        is_estimate |= "estimated" in used
        text = prompt + said if call.body.get("echo") else said
        for _ in range(call.body.get("n") or 1):
            choices.append(
                {
                    "index": len(choices),
                    "text": text,
                    "logprobs": _text_logprobs(call, answer, said, prompt),
                    "finish_reason": answer.finish,
                }
            )
    total = {"prompt_tokens": n_in, "completion_tokens": n_out, "total_tokens": n_in + n_out}
    return encode(
        {
            "id": f"cmpl-{call.request_id}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": model,
            "choices": choices,
            "usage": {**total, "estimated": True} if is_estimate else total,
        }
    )


def completion_frames(
    call: Call, answers: Sequence[tuple[Answer, str, str]], model: str
) -> Iterator[bytes]:
    """The same as a stream of events."""
    whole = msgspec.json.decode(completion(call, answers, model))
    used = whole.pop("usage")
    for choice in whole["choices"]:
        yield _event({**whole, "choices": [choice]})
    if (call.body.get("stream_options") or {}).get("include_usage"):
        yield _event({**whole, "choices": [], "usage": used})
    yield DONE


def _text_logprobs(call: Call, answer: Answer, said: str, prompt: str) -> dict[str, Any] | None:
    n = call.body.get("logprobs")
    if n is None or n is False or answer.confidence is None:
        return None
    top = {text: math.log(max(p, 1e-30)) for text, p in _top(answer, min(int(n), 20))}
    return {
        "tokens": [said],
        "token_logprobs": [math.log(max(answer.confidence, 1e-30))],
        "top_logprobs": [top],
        "text_offset": [len(prompt) if call.body.get("echo") else 0],
    }


def infer_response(
    name: str, version: str, request_id: str | None, answers: Sequence[Answer], arms: Sequence[str]
) -> bytes:
    """Body of Open Inference Protocol's `infer`, one row an input."""
    n = len(answers)
    outputs = [
        {"name": "label", "datatype": "BYTES", "shape": [n], "data": [a.text for a in answers]},
        {"name": "arm", "datatype": "BYTES", "shape": [n], "data": list(arms)},
    ]
    if all(a.confidence is not None for a in answers):
        data = [a.confidence for a in answers]
        outputs.append({"name": "confidence", "datatype": "FP64", "shape": [n], "data": data})
    if n and all(a.in_scope is not None for a in answers):
        rows = [a.in_scope for a in answers]
        outputs.append({"name": "in_scope", "datatype": "FP64", "shape": [n], "data": rows})
    found = [list(a.probabilities().values()) for a in answers]
    if n and all(found) and len({a.labels for a in answers}) == 1:
        flat = [p for row in found for p in row]
        shape = [n, len(found[0])]
        outputs.append({"name": "probabilities", "datatype": "FP64", "shape": shape, "data": flat})
    return encode(
        {"model_name": name, "model_version": version, "id": request_id or "", "outputs": outputs}
    )


def embedding_infer(name: str, request_id: str | None, vectors: Sequence[Sequence[float]]) -> bytes:
    """The same of an embedder."""
    shape = [len(vectors), len(vectors[0]) if vectors else 0]
    data = [x for vector in vectors for x in vector]
    outputs = [{"name": "embedding", "datatype": "FP32", "shape": shape, "data": data}]
    return encode({"model_name": name, "model_version": "1", "id": request_id or "", "outputs": outputs})


def embeddings(vectors: Sequence[Sequence[float]], model: str, n_tokens: int, *, as_base64: bool) -> bytes:
    """Body of `/v1/embeddings`; base64 is of little-endian float32."""
    data = [
        {
            "object": "embedding",
            "index": i,
            "embedding": (
                base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
                if as_base64
                else list(vector)
            ),
        }
        for i, vector in enumerate(vectors)
    ]
    used = {"prompt_tokens": n_tokens, "total_tokens": n_tokens, "estimated": True}
    return encode({"object": "list", "data": data, "model": model, "usage": used})
