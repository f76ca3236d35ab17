"""Answers out of a log as completions: tokens as counted then, at the prices of the endpoint."""

import re

from jettison.backends.endpoint_reply import price_usd
from jettison.backends.endpoint_settings import Endpoint
from jettison.language import Completion
from jettison.record import Cost
from jettison.task.log_files import Logged
from jettison.task.log_use import Use

_DATED = re.compile(r"[-@]\d{4}-?\d{2}-?\d{2}$")


def logged_answers(logged: Logged, endpoint: Endpoint) -> dict[str, Completion]:
    """`input_id` → what was answered, with what it took as far as the log says.

    Args:
        logged: Answers that were given before.
        endpoint: Its prices are those of its own model; tokens of another have no price here.
    """
    return {
        key: Completion(text=text, cost=_cost(logged.uses.get(key, Use()), endpoint))
        for key, text in logged.answers.items()
    }


def unpriced(logged: Logged, endpoint: Endpoint) -> str:
    """Why the logged answers have no price, and what to do about it; empty where they have one."""
    if any(_cost(use, endpoint).price_usd is not None for use in logged.uses.values()):
        return ""
    counted = [use for use in logged.uses.values() if use.is_counted]
    if not counted:
        return (
            "the log counts no tokens (`usage`): log them, or leave thirty or more inputs of dev out of "
            "the file that `logged` names, so that they are asked"
        )
    others = sorted({str(use.model) for use in counted if not _is_of(use, endpoint)})
    if others:
        return (
            f"its tokens are those of {' and '.join(others[:3])}, and the prices in [endpoint] are of "
            f"{endpoint.model}: name the model that answered as `model` there"
        )
    return (
        f"its tokens are counted, and what they cost is not known: give usd_per_million_input and "
        f"usd_per_million_output of {endpoint.model} in [endpoint], with their date as priced_on"
    )


def _cost(use: Use, endpoint: Endpoint) -> Cost:
    price = None
    if _is_of(use, endpoint):
        price = price_usd(
            use.prompt_tokens,
            use.completion_tokens,
            n_cached=use.cached_tokens or 0,
            usd_per_million_input=endpoint.usd_per_million_input,
            usd_per_million_output=endpoint.usd_per_million_output,
            usd_per_million_cached=endpoint.usd_per_million_cached,
        )
    return Cost(
        latency_s=use.latency_s,
        prompt_tokens=use.prompt_tokens,
        completion_tokens=use.completion_tokens,
        price_usd=price,
    )


def _is_of(use: Use, endpoint: Endpoint) -> bool:
    """Whether an answer is the endpoint's model's, whatever date or vendor stands at its name."""
    return use.model is None or _bare(use.model) == _bare(endpoint.model)


def _bare(name: str) -> str:
    return _DATED.sub("", name.rsplit("/", 1)[-1]).casefold()
