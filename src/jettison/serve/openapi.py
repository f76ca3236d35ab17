"""The schema of the routes, for tools that read it: bodies are open, as upstreams may know more fields."""

from typing import Any

_TEXT = {"type": "string"}
_MESSAGE = {
    "type": "object",
    "required": ["role", "content"],
    "properties": {
        "role": {"enum": ["system", "developer", "user", "assistant"]},
        "content": _TEXT,
    },
}
_SAMPLING: dict[str, Any] = {
    "model": _TEXT,
    "max_tokens": {"type": "integer", "minimum": 1, "maximum": 4096},
    "max_completion_tokens": {"type": "integer", "minimum": 1, "maximum": 4096},
    "temperature": {"type": "number", "minimum": 0, "maximum": 2},
    "n": {"type": "integer", "minimum": 1, "maximum": 4},
    "stop": {"oneOf": [_TEXT, {"type": "array", "items": _TEXT, "maxItems": 4}]},
    "stream": {"type": "boolean"},
    "user": _TEXT,
    "seed": {"type": "integer", "minimum": 0, "maximum": 2**31},
}
_INSTRUCTIONS = {"type": "string", "minLength": 1}
_QUESTION = {
    "oneOf": [
        {
            "type": "object",
            "required": ["type", "instructions"],
            "properties": {"type": {"const": "predicate"}, "instructions": _INSTRUCTIONS, "name": _TEXT},
        },
        {
            "type": "object",
            "required": ["type", "instructions", "choices"],
            "properties": {
                "type": {"const": "choice"},
                "instructions": _INSTRUCTIONS,
                "name": _TEXT,
                "choices": {
                    "type": "array",
                    "minItems": 2,
                    "maxItems": 255,
                    "items": {
                        "type": "object",
                        "required": ["value"],
                        "properties": {"value": {"type": ["string", "boolean"]}, "description": _TEXT},
                    },
                },
            },
        },
        {
            "type": "object",
            "required": ["type", "instructions", "levels"],
            "properties": {
                "type": {"const": "score"},
                "instructions": _INSTRUCTIONS,
                "name": _TEXT,
                "levels": {
                    "type": "array",
                    "minItems": 2,
                    "maxItems": 255,
                    "items": {"type": "object", "required": ["label"], "properties": {"label": _TEXT}},
                },
            },
        },
    ]
}


def _post(summary: str, required: list[str], properties: dict[str, Any], ok: str = "200") -> dict[str, Any]:
    schema = {"type": "object", "required": required, "properties": properties}
    error = {"description": "An error in OpenAI's shape."}
    answers = dict.fromkeys(("400", "401", "404", "405", "408", "413", "429", "431", "503"), error)
    return {
        "post": {
            "summary": summary,
            "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
            "responses": {ok: {"description": "The answer."}, **answers},
        }
    }


def _get(summary: str) -> dict[str, Any]:
    answers = {
        "200": {"description": "It."},
        "401": {"description": "No key."},
        "503": {"description": "Not now."},
    }
    return {"get": {"summary": summary, "responses": answers}}


OPENAPI: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": "jettison gateway", "version": "1"},
    "paths": {
        "/v1/chat/completions": _post(
            "Answer a chat",
            ["messages"],
            {**_SAMPLING, "messages": {"type": "array", "minItems": 1, "items": _MESSAGE}},
        ),
        "/v1/completions": _post(
            "Answer a prompt",
            ["prompt"],
            {**_SAMPLING, "prompt": {"oneOf": [_TEXT, {"type": "array", "items": _TEXT, "minItems": 1}]}},
        ),
        "/v1/decisions": _post(
            "Answer typed questions",
            ["input", "questions"],
            {
                "model": _TEXT,
                "input": _TEXT,
                "questions": {"type": "array", "minItems": 1, "maxItems": 400, "items": _QUESTION},
            },
        ),
        "/v1/systemone": _post(
            "The same as a map of questions",
            ["state", "questions"],
            {
                "model": _TEXT,
                "state": _TEXT,
                "questions": {
                    "type": "object",
                    "minProperties": 1,
                    "additionalProperties": {
                        "type": "object",
                        "required": ["instructions"],
                        "properties": {"type": {"const": "noul"}, "instructions": _INSTRUCTIONS},
                    },
                },
            },
        ),
        "/v1/embeddings": _post(
            "Embed texts",
            ["input"],
            {
                "model": _TEXT,
                "input": {"oneOf": [_TEXT, {"type": "array", "items": _TEXT, "minItems": 1}]},
                "encoding_format": {"enum": ["float", "base64"]},
            },
        ),
        "/v1/moderations": _post("Ask the guardrails", ["input"], {"input": _TEXT}),
        "/v1/feedback": _post(
            "Say how good an answer was",
            ["request_id"],
            {
                "request_id": {"type": "string", "minLength": 1, "maxLength": 200},
                "score": {"type": "number", "minimum": 0, "maximum": 1},
                "label": _TEXT,
                "comment": _TEXT,
                "source": _TEXT,
                "incident": {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]{0,39}$"},
            },
            "202",
        ),
        "/v2/models/{name}/infer": {
            **_post(
                "Open Inference Protocol",
                ["inputs"],
                {
                    "id": _TEXT,
                    "inputs": {
                        "type": "array",
                        "minItems": 1,
                        "items": {
                            "type": "object",
                            "required": ["name", "datatype", "shape", "data"],
                            "properties": {
                                "name": _TEXT,
                                "datatype": {"const": "BYTES"},
                                "shape": {"type": "array", "items": {"type": "integer"}},
                                "data": {"type": "array", "items": _TEXT, "minItems": 1},
                            },
                        },
                    },
                },
            ),
            "parameters": [{"name": "name", "in": "path", "required": True, "schema": _TEXT}],
        },
        "/v1/models": _get("What may be asked for"),
        "/health/live": _get("Whether the process answers"),
        "/health/ready": _get("Whether requests should come here"),
        "/metrics": _get("Prometheus' page"),
    },
}
