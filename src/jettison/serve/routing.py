"""Who answers a request: the nodes of a route plan, each an awaitable call, nested as the plan is."""

import asyncio
import dataclasses
import hashlib
import random
import time
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import msgspec

from jettison.control import RouteControl
from jettison.record import Record
from jettison.route import Cascade
from jettison.serve.api_error import ApiError
from jettison.serve.calls import Call, Reply, buffered, within
from jettison.serve.metrics import Metrics
from jettison.serve.records import record_of

MOST_BEHIND = 64
"""Shadows and audits under way at once; further ones are left out and counted."""


class Node(Protocol):
    """Anything that answers a call."""

    async def answer(self, call: Call) -> Reply:
        """The answer.

        Raises:
            ApiError: There is none.
        """


class Behind:
    """Work that nobody waits for: shadows and audits, bounded, and awaited when the plan closes."""

    def __init__(self, sink: Callable[[Record, Call], None], metrics: Metrics) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._sink, self._metrics = sink, metrics

    def ask(self, node: Node, call: Call, *, role: Any, place: str, propensity: float) -> None:
        """Ask without anyone waiting; the answer becomes a record."""
        if len(self._tasks) >= MOST_BEHIND:
            self._metrics.refused(f"{role}_left_out")
            return
        apart = dataclasses.replace(buffered(call), side=[], notes={}, output_notes={})
        self._start(self._asked(node, apart, role, place, propensity))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _asked(self, node: Node, call: Call, role: Any, place: str, propensity: float) -> None:
        started = time.monotonic()
        try:
            reply = within(place, await node.answer(call))
        except ApiError as error:
            error.arm = error.arm or place.rsplit("/", 1)[-1]
            record = record_of(call, None, role=role, error=within(place, error))
            record = _replace(record, propensity=propensity)
        else:
            reply.latency_s = reply.latency_s or time.monotonic() - started
            reply.arm = reply.arm or place.rsplit("/", 1)[-1]
            record = _replace(record_of(call, reply, role=role), propensity=propensity)
        self._sink(record, call)
        for side in call.side:
            self._sink(side, call)

    async def close(self) -> None:
        """Wait for what is under way."""
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=30)
        for task in self._tasks:
            task.cancel()


def _replace(record: Record, **changes: Any) -> Record:
    return msgspec.structs.replace(record, **changes)


class CascadeNode:
    """Lean first. Its answer stands when it is sure enough; else, or if it has none, the fallback answers.

    Streams: the lean answer is awaited whole before the first byte, so that no word of an answer that
    does not stand is ever sent; the fallback's stream is passed on as it comes.
    """

    def __init__(
        self,
        lean: Node,
        fallback: Node,
        plan: Cascade,
        *,
        behind: Behind,
        metrics: Metrics,
        audit_share: float = 0.0,
        escalate_flagged: bool = True,
        out_of_scope: str | None = None,
        ranks: Any = None,
        tracing: Any = None,
        abstains: bool = False,
    ) -> None:
        self._tracing = tracing
        self._lean, self._fallback, self._plan = lean, fallback, plan
        self._behind, self._metrics = behind, metrics
        self._own_audit_share = self.audit_share = audit_share
        self.threshold = plan.threshold
        self._escalate_flagged = escalate_flagged
        self._never = out_of_scope if escalate_flagged else None
        self._ranks = ranks
        self._withheld = out_of_scope if abstains else None

    def steer(self, control: RouteControl) -> None:
        """Take threshold and audit share from outside; None goes back to the plan's."""
        self.threshold = self._plan.threshold if control.threshold is None else control.threshold
        self.audit_share = self._own_audit_share if control.audit_share is None else control.audit_share

    @property
    def weights(self) -> dict[str, float]:
        """What is in force."""
        return {"threshold": self.threshold, "audit_share": self.audit_share}

    async def answer(self, call: Call) -> Reply:
        """Lean's answer, or the fallback's."""
        lean: Reply | None = None
        reason = "guardrail" if call.escalate else ""
        if not reason:
            started = time.monotonic()
            try:
                weighed = dataclasses.replace(
                    buffered(call), needs_confidence=self.threshold > 0 or call.needs_confidence
                )
                lean = await self._lean.answer(weighed)
            except ApiError as error:
                if not error.is_passable:
                    raise
                reason = error.code
            else:
                lean.latency_s = lean.latency_s or time.monotonic() - started
                reason = self.why_not(lean)
        if lean is not None and not reason:
            if self.audit_share and random.random() < self.audit_share:
                self._behind.ask(
                    self._fallback, call, role="audit", place="fallback", propensity=self.audit_share
                )
            return self._told(lean, "lean")
        self._metrics.escalated(reason)
        if self._tracing is not None:
            self._tracing.escalated(reason, None if lean is None else lean.confidence, self.threshold)
        if lean is not None:
            lean.escalated = True
            call.side.append(record_of(call, self._told(lean, "lean"), role="lean"))
        try:
            reply = self._told(await self._fallback.answer(call), "fallback")
        except ApiError as error:
            error.arm = error.arm or "fallback"
            within("fallback", error)
            raise
        reply.escalated = True
        return reply

    def why_not(self, lean: Reply) -> str:
        """Why the lean answer does not stand, by the rule of a cascade offline; empty where it does."""
        plan = self._plan
        if lean.is_partial:
            return "refused_question"
        in_scope = lean.in_scope
        if plan.decline_below and in_scope is not None and in_scope < plan.decline_below:
            return ""
        if plan.escalate_below and in_scope is not None and in_scope < plan.escalate_below:
            return "out_of_scope"
        if self._escalate_flagged and lean.flagged:
            return "flagged"
        if self._never is not None and lean.output == self._never:
            return "out_of_scope"
        if lean.confidence is None:
            return "" if self.threshold <= 0 else "no_confidence"
        return "unsure" if lean.confidence < self.threshold else ""

    def _told(self, reply: Reply, arm: str) -> Reply:
        reply.arm = reply.arm or arm
        if self._ranks is not None and reply.in_scope is not None:
            reply.in_scope = self._ranks.rank(reply.in_scope)
            reply.flagged = reply.in_scope < self._ranks.limit
            if reply.answer is not None:
                reply.answer.in_scope, reply.answer.flagged = reply.in_scope, reply.flagged
                if self._withheld is not None and (reply.flagged or reply.output == self._withheld):
                    reply.output = reply.answer.text = self._withheld
                    reply.abstained = True
        return within(arm, reply)


class ShadowNode:
    """The main route answers; then, behind it, a share of the calls is shown to the other."""

    def __init__(self, main: Node, shadow: Node, share: float, *, behind: Behind) -> None:
        self._main, self._shadow, self._behind = main, shadow, behind
        self._own_share = self.share = share

    def steer(self, control: RouteControl) -> None:
        """Take the share from outside; None goes back to the plan's."""
        self.share = self._own_share if control.shadow_share is None else control.shadow_share

    @property
    def weights(self) -> dict[str, float]:
        """What is in force."""
        return {"shadow_share": self.share}

    async def answer(self, call: Call) -> Reply:
        """The main route's answer, never the shadow's."""
        reply = within("main", await self._main.answer(call))
        reply.arm = reply.arm or "main"
        if self.share and random.random() < self.share:
            self._behind.ask(self._shadow, call, role="shadow", place="shadow", propensity=self.share)
        return reply


def position_of(key: str, salt: str) -> float:
    """Where a key stands in 0-1: uniform over keys, the same for ever, another for each salt."""
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8, key=_salt(salt)).digest()
    return (int.from_bytes(digest, "little") >> 11) * 2.0**-53


def _salt(salt: str) -> bytes:
    raw = salt.encode()
    return raw if len(raw) <= 64 else hashlib.blake2b(raw).digest()


class SplitNode:
    """A share of the keys goes to treatment. A larger share keeps every key that a smaller one had."""

    def __init__(self, control: Node, treatment: Node, share: float, salt: str) -> None:
        self._control, self._treatment, self._salt = control, treatment, salt
        self._own_share = self.share = share

    def steer(self, control: RouteControl) -> None:
        """Take the share from outside; None goes back to the plan's."""
        self.share = self._own_share if control.treatment_share is None else control.treatment_share

    @property
    def weights(self) -> dict[str, float]:
        """What is in force."""
        return {"treatment_share": self.share}

    async def answer(self, call: Call) -> Reply:
        """The answer of the key's own arm."""
        share = self.share
        if position_of(call.key, self._salt) < share:
            arm, node, chance = "treatment", self._treatment, share
        else:
            arm, node, chance = "control", self._control, 1.0 - share
        try:
            reply = await node.answer(call)
        except ApiError as error:  # an experiment must see whose failure it was
            _drawn(error, arm, chance)
            raise
        _drawn(reply, arm, chance)
        return reply


def _drawn(told: Reply | ApiError, arm: str, chance: float) -> None:
    """Say by which arm, and with what chance, a call was answered or failed."""
    within(arm, told)
    told.arm, told.propensity = arm, chance * (told.propensity or 1.0)
