"""Says what the money of a model elsewhere rests on, or why it is not known and how to give it."""

from jettison.backends.endpoint import LOGGED, read_endpoint
from jettison.backends.endpoint_logged import unpriced
from jettison.backends.endpoint_settings import Endpoint
from jettison.backends.remote import REMOTE
from jettison.loop.workspace import Contender
from jettison.task.log_files import read_logged

LEAST_PRICED = 20
"""Answers with a price that may stand for others without one."""


def price_marks(contender: Contender) -> tuple[str, ...]:
    """On the figures of one endpoint: at what prices, and of how many answers; none of a cascade."""
    if contender.candidate.backend not in REMOTE:
        return ()
    endpoint = read_endpoint(contender.candidate)
    n, n_priced = len(contender.records), _n_priced(contender)
    if not _is_priced(contender):
        return ()
    dated = f" (prices of {endpoint.priced_on})" if endpoint.priced_on else ""
    rest = "" if n_priced == n else f"; the mean of {n_priced} of {n} answers, the others have no price"
    logged = " Tokens and seconds of answers out of the log are as it says." if endpoint.logged else ""
    return (
        f"Tokens of {endpoint.model}: ${endpoint.usd_per_million_input:g} a million of prompts and "
        f"${endpoint.usd_per_million_output:g} of answers{dated}{rest}.{logged}",
    )


def why_no_money(incumbent: Contender, usd_per_hour: float | None) -> str:
    """Why no candidate can be shown to cost less than an endpoint in money, and what to do; else empty."""
    if incumbent.candidate.backend not in REMOTE:
        return ""
    endpoint = read_endpoint(incumbent.candidate)
    if not _is_priced(incumbent):
        return f"What {endpoint.model} costs is not known: {_unpriced(incumbent, endpoint)}."
    if usd_per_hour is None:
        return (
            f"What {endpoint.model} costs is known, and what a task costs on this machine is not: give "
            "usd_per_hour, the machine's price, in jettison.toml."
        )
    return ""


def _n_priced(contender: Contender) -> int:
    return sum(record.cost.price_usd is not None for record in contender.records)


def _is_priced(contender: Contender) -> bool:
    """Whether enough answers of an endpoint have a price to say what they all cost."""
    return _n_priced(contender) >= max(1, min(len(contender.records), LEAST_PRICED))


def _unpriced(incumbent: Contender, endpoint: Endpoint) -> str:
    if n_priced := _n_priced(incumbent):
        return (
            f"{n_priced} of {len(incumbent.records)} answers have a price, and {LEAST_PRICED} are needed "
            "to stand for the others: log the tokens (`usage`) of more, or leave more inputs of dev out of "
            "the file that `logged` names, so that they are asked"
        )
    if endpoint.logged is not None:
        said = unpriced(read_logged(incumbent.candidate.path / LOGGED), endpoint)
        if said:
            return said
    if endpoint.usd_per_million_input is None or endpoint.usd_per_million_output is None:
        return "give usd_per_million_input and usd_per_million_output in [endpoint]"
    return "its server counts no tokens in its answers (`usage`)"
