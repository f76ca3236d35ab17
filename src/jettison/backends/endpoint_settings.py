"""`endpoint.json`: where a model is, what it costs, and how it may be asked."""

import ipaddress
import os
import re
from datetime import date
from typing import Any
from urllib.parse import urlsplit

import msgspec

from jettison.backends.endpoint_dialect import ChoiceField
from jettison.errors import InvalidInput

OWN_FIELDS = ("model", "messages", "prompt", "stream", "stream_options", "n", "echo")
"""Fields of a request that are not for `extra`."""


class Endpoint(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A model behind an address."""

    url: str
    """Base address, as `https://host/v1`."""
    model: str
    """Its name there."""
    revision: str | None = None
    """What tells it from other models of that name: a date, a digest. Answers are kept under the name
    and this; None stands for the address."""
    api_key_env: str | None = None
    """Environment variable that holds the key; None sends none."""
    usd_per_million_input: float | None = None
    usd_per_million_output: float | None = None
    usd_per_million_cached: float | None = None
    """Of tokens of a prompt that the server had cached; None is the price of the others."""
    priced_on: str | None = None
    """When these prices held, as `2026-11-01`: said beside the figures that rest on them."""
    concurrency: int = 8
    """Requests under way at once."""
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    connect_s: float = 10.0
    first_byte_s: float = 120.0
    """From sending a request to the first byte of its answer."""
    total_s: float = 300.0
    """From sending a request to the last byte of its answer."""
    max_retries: int = 6
    """Of one request that the server got and failed."""
    retry_share: float = 0.2
    """Such retries of all requests together, as a share of the requests; 20 are always allowed."""
    wait_s: float = 300.0
    """How long a server that is away or busy is waited for."""
    stream: bool = False
    """Read the answer as it comes, which tells the time to the first token."""
    top_logprobs: int = 5
    """Likeliest tokens asked for at each place; 0 asks for no probabilities."""
    choices: ChoiceField | None = None
    """Field by which the server is held to labels and choices; None is `structured_outputs` for
    vllm, and nothing for others."""
    keep_answers: bool = True
    """Whether answers are kept, so that none is paid for twice."""
    answers: str | None = None
    """Folder in which they are kept; None is the run's, or the user's cache."""
    logged: str | None = None
    """File of answers that the model gave before, as `jettison init --logs` writes it: inputs that stand
    there are not asked again. What such an answer took is what the log says of it: tokens, at the prices
    above, and seconds."""
    logged_asked: str | None = None
    """Digest of the settings that the logged answers were given to; filled in when they are taken in."""
    extra: dict[str, Any] = msgspec.field(default_factory=dict)
    """Further fields of every request, as `{"reasoning_effort": "low"}`."""


def check_endpoint(endpoint: Endpoint) -> None:
    """Check what types cannot say.

    Raises:
        InvalidInput: A field is out of range, or a key stands where it would be written down.
    """
    parts = urlsplit(endpoint.url)
    plain = parts.scheme in ("http", "https") and parts.hostname and not parts.query and not parts.fragment
    if not plain or "@" in endpoint.url or re.search(r"\s", endpoint.url):
        shown = f"{parts.scheme}://{parts.hostname}" if parts.hostname else endpoint.url.split("@")[-1][:60]
        raise _broken("url", "an address as https://host/v1, without user, key or query in it", shown)
    named = endpoint.api_key_env
    if named is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", named):
        raise _broken("api_key_env", "the NAME of an environment variable, never the key", "something else")
    if named is not None and parts.scheme == "http" and not _is_near(parts.hostname or ""):
        raise _broken("url", "https where a key is sent beyond this network", endpoint.url)
    if not endpoint.model.strip():
        raise _broken("model", "the model's name", endpoint.model)
    if (taken := sorted(set(endpoint.extra) & set(OWN_FIELDS))) != []:
        raise _broken("extra", f"without the fields {list(OWN_FIELDS)}", taken[0])
    _check_ranges(endpoint)
    _check_date(endpoint.priced_on)
    _check_no_key(endpoint)


def key_of(endpoint: Endpoint) -> str | None:
    """The key, from the environment.

    Raises:
        InvalidInput: The variable is not set, or holds what no header can.
    """
    if endpoint.api_key_env is None:
        return None
    key = os.environ.get(endpoint.api_key_env, "").strip()
    where = f"environment variable {endpoint.api_key_env} must hold the key for {endpoint.url}"
    if not key:
        raise InvalidInput(f"{where}, got nothing.")
    if not re.fullmatch(r"[\x21-\x7e]+", key):
        raise InvalidInput(f"{where}, got characters that no key has.")
    return key


def _check_ranges(endpoint: Endpoint) -> None:
    ranges = {
        "concurrency": (1, 256),
        "max_retries": (0, 20),
        "retry_share": (0, 10),
        "wait_s": (0, 86400),
        "connect_s": (0.01, 3600),
        "first_byte_s": (0.01, 3600),
        "total_s": (0.01, 86400),
        "top_logprobs": (0, 20),
        "requests_per_minute": (0.01, 1e7),
        "tokens_per_minute": (1, 1e12),
        "usd_per_million_input": (0, 1e6),
        "usd_per_million_output": (0, 1e6),
        "usd_per_million_cached": (0, 1e6),
    }
    for field, (low, high) in ranges.items():
        value = getattr(endpoint, field)
        if value is not None and not low <= value <= high:
            raise _broken(field, f"in {low}-{high:g}", value)


def _check_date(given: str | None) -> None:
    try:
        date.fromisoformat(given or "2000-01-01")
    except ValueError as error:
        raise _broken("priced_on", "a date as 2026-11-01", given) from error


def _check_no_key(endpoint: Endpoint) -> None:
    key = os.environ.get(endpoint.api_key_env or "", "").strip()
    if len(key) >= 8 and key in msgspec.json.encode(endpoint).decode():
        raise _broken("every field", "without the key, which stays in the environment", "the key")


def _is_near(host: str) -> bool:
    """Whether a host is this machine, or on a network of one's own."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "." not in host or host.endswith((".local", ".internal", ".localhost"))
    return address.is_loopback or address.is_private


def _broken(field: str, rule: str, value: object) -> InvalidInput:
    return InvalidInput(f"[endpoint] {field} must be {rule}, got {value!r}.")
