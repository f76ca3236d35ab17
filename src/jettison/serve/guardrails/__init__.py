"""Guardrails: checks on one request or reply at run time, one file each.

`open_guardrail(name, settings)` makes one, `read_guardrails(table)` all of a configuration, `Chain` asks
several in order, and `StreamGuard` guards an output that comes in pieces.
"""

from jettison.serve.guardrails.chain import Chain, Outcome
from jettison.serve.guardrails.opened import Opened, open_guardrail, read_guardrails
from jettison.serve.guardrails.stream import StreamGuard
from jettison.serve.guardrails.verdict import Action, Guardrail, GuardSettings, Verdict, Where, worst

__all__ = [
    "Action",
    "Chain",
    "GuardSettings",
    "Guardrail",
    "Opened",
    "Outcome",
    "StreamGuard",
    "Verdict",
    "Where",
    "open_guardrail",
    "read_guardrails",
    "worst",
]
