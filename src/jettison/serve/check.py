"""Whether a gateway would start, without listening."""

import asyncio
from typing import Any

from jettison.serve.config import ServeConfig
from jettison.serve.gateway import open_guardrails
from jettison.serve.metrics import Metrics
from jettison.serve.plan import Plan
from jettison.serve.server import check_ground
from jettison.serve.tracing import Tracing


def check_starts(config: ServeConfig) -> str:
    """Start every engine, ask nothing, stop again; what would be served, in words.

    Raises:
        JettisonError: It would not start; the message says why.
    """
    check_ground(config)
    return asyncio.run(_started(config))


async def _started(config: ServeConfig) -> str:
    rails = open_guardrails(config) or ()
    if config.tracing.is_on:
        await Tracing(config.tracing).close()
    plan = Plan(config, Metrics(), lambda record, call: None)
    await plan.start()
    try:
        told = [
            (rail.name, "in the route" if rail.name in plan.guardrails else "asked by moderations ALONE")
            for rail in rails
        ]
        return "\n".join([*_lines(plan), *(f"guardrail {name} {where}" for name, where in told)])
    finally:
        await plan.close()


def _lines(plan: Plan) -> list[str]:
    lines = []
    for found in plan.proven.values():
        release: Any = found.release
        doubts = f", UNPROVEN: {', '.join(found.doubts)}" if found.doubts else ""
        lines.append(f"release  {release.path} {release.verdict}, {found.age_days:.0f} days old{doubts}")
    lines += [f"engine   {engine.name}" for engine in plan.engines.values()]
    lines += [f"upstream {name} {one.config.url}" for name, one in plan.upstreams.items()]
    for place, weights in plan.weights.items():
        said = ", ".join(f"{name} {value:g}" for name, value in weights.items())
        lines.append(f"route    {place or 'outermost'}: {said}")
    return lines
