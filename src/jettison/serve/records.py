"""A call and its reply as the record that is logged."""

import hashlib
import time
from typing import Any

from jettison.record import Cost, Record
from jettison.serve.api_error import ApiError
from jettison.serve.calls import Call, Reply

LOST = ("upstream_unreachable", "upstream_timeout", "upstream_idle", "upstream_cut_off", "upstream_open")
"""Codes that say nothing of the model: the answer was lost on the way."""


def record_of(call: Call, reply: Reply | None, *, role: Any, error: ApiError | None = None) -> Record:
    """One record; its input is still plain, and made what the log's setting says when it is written."""
    slices: dict[str, str] = {"operation": call.operation}
    if call.is_retry:
        slices["retry"] = "true"
    if reply is None:
        code = error.code if error else "failed"
        return Record(
            candidate="",
            example_id=call.request_id,
            split="live",
            output=None,
            error=code,
            unanswered=code in LOST or code.startswith("engine_"),
            time=time.time(),
            role=role,
            arm=error.arm if error else None,
            route=(error.place or None) if error else None,
            propensity=error.propensity if error else None,
            status=error.status if error else 500,
            input=call.text,
            slices=slices,
            guardrails=call.notes,
            output_guardrails=call.output_notes,
            cost=Cost(latency_s=time.monotonic() - call.started_s),
        )
    return Record(
        candidate=reply.candidate,
        example_id=call.request_id,
        split="live",
        output=None if reply.error else reply.output,
        confidence=reply.confidence,
        in_scope=reply.in_scope,
        flagged=reply.flagged,
        abstained=reply.abstained,
        arm=reply.arm,
        escalated=reply.escalated,
        error=reply.error,
        unanswered=reply.error is not None,
        time=time.time(),
        role=role,
        route=reply.place,
        propensity=reply.propensity,
        status=reply.status,
        input=call.text,
        slices=slices,
        guardrails=call.notes,
        output_guardrails=call.output_notes,
        cost=reply.cost(),
    )


def hashed_key(key: str, salt: bytes) -> str:
    """What a record says of the key: enough to tell two users apart, and not who they are."""
    raw = key.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(raw, digest_size=12, key=salt[:64]).hexdigest()
