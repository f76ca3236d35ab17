"""`serve.toml`: everything a gateway can be told, checked before anything starts."""

import re
import tomllib
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from jettison.errors import InvalidInput
from jettison.files import decode_toml
from jettison.route import Cascade, Guarded, Route, Shadow, Single, Split
from jettison.task.prompt import Prompt
from jettison.task.source import choices_hint
from jettison.task.unknown_keys import refuse_null_bytes, refuse_unknown_keys


class UpstreamConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An OpenAI-compatible server that answers, or part of the answers."""

    url: str
    """Base address, as `https://host/v1`."""
    model: str | None = None
    """Name put into requests; None leaves the client's."""
    api_key_env: str | None = None
    """Environment variable that holds the key."""
    pass_key: bool = False
    """Hand on the client's own `authorization` instead."""
    connections: int = 256
    connect_s: float = 5.0
    first_byte_s: float = 60.0
    """To the answer's head, and of a stream to its first content."""
    idle_s: float = 60.0
    """Between two chunks."""
    total_s: float = 600.0
    max_retries: int = 2
    """Of one request, before any content was received."""
    retry_share: float = 0.2
    """Retries as a share of requests; 10 are always allowed."""
    breaker_failures: int = 5
    """Failures in a row after which nothing is sent for a while."""
    breaker_s: float = 2.0
    """The first pause; it doubles up to a minute while the server stays broken."""
    max_reply_bytes: int = 32 * 2**20
    usd_per_million_input: float | None = None
    usd_per_million_output: float | None = None
    decisions: Literal["prompt", "pass"] = "prompt"
    """How `/v1/decisions` reaches it: as a chat with the prompt, as `infer` does, or as it came."""
    logprobs: bool = True
    """Ask it for log-probabilities where a cascade must weigh its answer; some servers refuse to."""
    prompt: dict[str, Any] | None = None
    """A `Prompt` with which texts are asked; None takes the one of the release's endpoint."""


class InputConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a chat becomes the text that a lean model reads, and a label the answer that a client reads."""

    template: str = "{input}"
    """The last user message as clients write it. One that does not fit is not the task: it is escalated."""
    answer: str = "{label}"
    """What a label is said as; `{label}` stands for it, as JSON text if the answer is JSON."""
    words: dict[str, str] = msgspec.field(default_factory=dict)
    """Label → how it is said."""

    @property
    def says_json(self) -> bool:
        """Whether an answer is a JSON object or list, with the label in it as text."""
        try:
            found = msgspec.json.decode(self.answer.replace("{label}", "x"))
        except msgspec.DecodeError:
            return False
        return isinstance(found, dict | list)


class EngineConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Child processes that hold models."""

    max_batch: int = 32
    max_wait_s: float = 0.002
    """How long a batch that is not full waits for more."""
    queue: int = 256
    """Inputs waiting or under way; more are refused at once."""
    hang_s: float = 30.0
    """A batch that takes longer is given up: the child is killed and started anew."""
    start_s: float = 120.0
    in_process: tuple[str, ...] = ("static", "linear", "fake")
    """Backends that answer within the gateway's own process: a hop would cost more than the model."""


class LogConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The traffic log."""

    is_on: bool = True
    text: Literal["keep", "hash", "drop"] = "hash"
    """What becomes of inputs and of answers in free text; labels are always kept."""
    mask_pii: bool = True
    """Mask addresses and numbers of persons before a text is stored."""
    whole_requests: bool = False
    """Store all messages of a chat as JSON, not the text alone."""
    queue: int = 10_000
    """Rows waiting for the disk; more are counted and dropped."""
    roll_rows: int = 50_000
    """Rows after which the live file is rolled into a Parquet segment."""
    roll_s: float = 3600.0
    """Or this long after the oldest of them."""
    keep_days: float = 90.0
    max_bytes: int = 10 * 2**30
    """Of all segments together; the oldest go first."""


class LimitsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a client may send."""

    body_bytes: int = 8 * 2**20
    header_bytes: int = 32 * 2**10
    header_s: float = 10.0
    """From a connection's opening to the end of a request's headers."""
    body_s: float = 30.0
    json_depth: int = 64
    in_flight: int = 1024
    """Requests at once; more get 503 at once."""
    connections: int = 4096


class KeyConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One API key, by the digest of its value."""

    name: str
    sha256: str
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    concurrency: int | None = None
    budget_tokens: int | None = None
    """In all, over restarts too."""
    budget_usd: float | None = None


class ProofConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much proof a release must bring."""

    max_age_days: float | None = None
    """Since the decision was made; None sets no age beyond the release's own date."""
    unproven: bool = False
    """Serve without, and say so everywhere."""


class StickyConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """By what one user keeps one arm."""

    sources: tuple[str, ...] = (
        "header:x-jettison-key",
        "safety_identifier",
        "user",
        "prompt_cache_key",
        "metadata.user_id",
    )
    """The first that a request has; none of them draws an arm for the request alone."""


class TracingConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """OpenTelemetry spans over OTLP; extra `otel`."""

    is_on: bool = False
    endpoint: str | None = None
    """Address that takes spans, as `http://localhost:4318/v1/traces`; None takes OpenTelemetry's own
    environment variables, or that one."""
    service: str = "jettison"
    """`service.name`, unless OTEL_SERVICE_NAME says otherwise."""
    share: float = 1.0
    """Of the requests that come without a trace; one that comes with a trace keeps its own choice."""
    content: Literal["drop", "mask", "keep"] = "drop"
    """What becomes of the texts of requests and answers: none in spans, masked as in the log, or as is."""


class UiConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Live pages under `/ui`."""

    is_on: bool = False
    sha256: str | None = None
    """Digest of the key that opens them, which opens nothing else."""
    beyond_loopback: bool = False
    """Answer other machines too."""
    alerts: str | None = None
    """File that `jettison monitor --alert` writes; None is `alerts.jsonl` in the state folder."""
    mined: str | None = None
    """Folder that `jettison mine --output` writes; None is `mined` in the state folder."""


class ServeConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`serve.toml`."""

    release: str | None = None
    """Folder of the release, or a link to it."""
    releases: dict[str, str] = msgspec.field(default_factory=dict)
    """Further releases by name, for routes to ask as `release:NAME`."""
    upstreams: dict[str, UpstreamConfig] = msgspec.field(default_factory=dict)
    embedders: dict[str, str] = msgspec.field(default_factory=dict)
    """Folders of local embedding models by the name that clients ask for."""
    route: Route | None = None
    """Who answers; candidates are `release`, `release:NAME` or `upstream:NAME`. None is
    the release's own plan, with an upstream `incumbent` behind it."""
    audit_share: float = 0.0
    """Share of the lean answers that stand which the fallback is asked too, for the record alone."""
    pass_other: bool = False
    """Send other paths below `/v1` to the first upstream as they came, unrouted and unguarded."""
    model: str | None = None
    """Name under which clients know the whole; None is the task's."""
    experiment: str | None = None
    host: str = "127.0.0.1"
    port: int = 8080
    is_open: bool = False
    """Serve beyond this machine without any API key."""
    state: str = "serve-state"
    """Folder for the traffic log, control.json and what is remembered over restarts."""
    drain_s: float = 30.0
    """How long requests under way may take after SIGTERM."""
    linger_s: float = 0.0
    """How long new requests are still served after SIGTERM, while readiness is false."""
    watch: bool = True
    """Reload when this file or the release's link changes; SIGHUP always does."""
    log_requests: bool = False
    """One structured line a request on stderr; never the text."""
    input: InputConfig = InputConfig()
    engine: EngineConfig = EngineConfig()
    log: LogConfig = LogConfig()
    limits: LimitsConfig = LimitsConfig()
    keys: tuple[KeyConfig, ...] = ()
    proof: ProofConfig = ProofConfig()
    sticky: StickyConfig = StickyConfig()
    tracing: TracingConfig = TracingConfig()
    ui: UiConfig = UiConfig()
    guardrails: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)
    """Guardrails by their name here, with `use` and settings, for routes of type `guarded`."""
    format: int = 1


def read_serve_config(path: Path) -> ServeConfig:
    """Read and check a file; relative folders in it are relative to it.

    Raises:
        InvalidInput: It is missing, no TOML, or a value does not fit; the message has its path.
    """
    config = load_serve_config(path)
    check_serve_config(config, str(path))
    return config


def load_serve_config(path: Path) -> ServeConfig:
    """Read a file that options may complete: its types are checked, whether it is whole is not.

    Raises:
        InvalidInput: It is missing, no TOML, or a value is of another type.
    """
    try:
        content = decode_toml(path.read_bytes())
    except OSError as error:
        raise InvalidInput(f"{path} must be a readable file, got: {error.strerror}.") from error
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"{path} must be TOML, got: {error}.") from error
    refuse_unknown_keys(content, ServeConfig, where=str(path))
    refuse_null_bytes(content, where=str(path))
    try:
        config = msgspec.convert(content, ServeConfig)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"{path}: {error}.{choices_hint(error, ServeConfig)}") from error
    for name, upstream in config.upstreams.items():
        refuse_unknown_keys(upstream.prompt, Prompt, where=str(path), at=f"$.upstreams.{name}.prompt")
    return _beside(config, path.absolute().parent)


def _beside(config: ServeConfig, folder: Path) -> ServeConfig:
    def place(text: str) -> str:
        return str(folder / text)

    return msgspec.structs.replace(
        config,
        release=None if config.release is None else place(config.release),
        releases={name: place(text) for name, text in config.releases.items()},
        embedders={name: place(text) for name, text in config.embedders.items()},
        state=place(config.state),
        ui=msgspec.structs.replace(
            config.ui,
            alerts=None if config.ui.alerts is None else place(config.ui.alerts),
            mined=None if config.ui.mined is None else place(config.ui.mined),
        ),
    )


def check_serve_config(config: ServeConfig, where: str) -> None:
    """Check what types cannot say.

    Raises:
        InvalidInput: A value is out of range, or a route leads nowhere.
    """
    if config.format != 1:
        raise InvalidInput(f"{where}: format must be 1, got {config.format} - at `$.format`")
    if config.release is None and not config.upstreams and not config.embedders:
        raise InvalidInput(f"{where}: there must be a release, an upstream or an embedder, got none.")
    for place, value, low, high in _ranges(config):
        if value is not None and not low <= value <= high:
            raise InvalidInput(f"{where}: must be in {low:g}-{high:g}, got {value!r} - at `$.{place}`")
    endpoint = config.tracing.endpoint
    if endpoint is not None and not endpoint.startswith(("http://", "https://")):
        raise InvalidInput(f"{where}: must be an http address, got {endpoint!r} - at `$.tracing.endpoint`")
    for name, upstream in config.upstreams.items():
        _check_upstream(upstream, f"{where}: $.upstreams.{name}")
    _check_keys(config, where)
    _check_ui(config.ui, where)
    if "{input}" not in config.input.template:
        raise InvalidInput(
            f"{where}: must hold {{input}}, got {config.input.template!r} - at `$.input.template`"
        )
    if "{label}" not in config.input.answer:
        raise InvalidInput(
            f"{where}: must hold {{label}}, got {config.input.answer!r} - at `$.input.answer`"
        )
    if config.route is not None:
        _check_route(config.route, config, f"{where}: $.route")


def _ranges(config: ServeConfig) -> list[tuple[str, float | None, float, float]]:
    found: list[tuple[str, float | None, float, float]] = [
        ("port", config.port, 0, 65535),
        ("audit_share", config.audit_share, 0, 1),
        ("drain_s", config.drain_s, 0, 3600),
        ("linger_s", config.linger_s, 0, 3600),
        ("engine.max_batch", config.engine.max_batch, 1, 4096),
        ("engine.max_wait_s", config.engine.max_wait_s, 0, 10),
        ("engine.queue", config.engine.queue, 1, 1_000_000),
        ("engine.hang_s", config.engine.hang_s, 0.05, 3600),
        ("engine.start_s", config.engine.start_s, 0.1, 3600),
        ("log.queue", config.log.queue, 1, 10_000_000),
        ("log.roll_rows", config.log.roll_rows, 1, 100_000_000),
        ("log.roll_s", config.log.roll_s, 0.1, 1e8),
        ("log.keep_days", config.log.keep_days, 0, 1e5),
        ("log.max_bytes", config.log.max_bytes, 0, 2**60),
        ("limits.body_bytes", config.limits.body_bytes, 1024, 2**30),
        ("limits.header_bytes", config.limits.header_bytes, 1024, 2**20),
        ("limits.header_s", config.limits.header_s, 0.05, 600),
        ("limits.body_s", config.limits.body_s, 0.05, 3600),
        ("limits.json_depth", config.limits.json_depth, 4, 500),
        ("limits.in_flight", config.limits.in_flight, 1, 1_000_000),
        ("limits.connections", config.limits.connections, 1, 1_000_000),
        ("tracing.share", config.tracing.share, 0, 1),
        ("proof.max_age_days", config.proof.max_age_days, 0, 1e6),
    ]
    for name, up in config.upstreams.items():
        place = f"upstreams.{name}"
        found += [
            (f"{place}.connections", up.connections, 1, 65535),
            (f"{place}.connect_s", up.connect_s, 0.01, 600),
            (f"{place}.first_byte_s", up.first_byte_s, 0.01, 86400),
            (f"{place}.idle_s", up.idle_s, 0.01, 86400),
            (f"{place}.total_s", up.total_s, 0.01, 86400),
            (f"{place}.max_retries", up.max_retries, 0, 20),
            (f"{place}.retry_share", up.retry_share, 0, 10),
            (f"{place}.breaker_failures", up.breaker_failures, 1, 1_000_000),
            (f"{place}.breaker_s", up.breaker_s, 0.01, 600),
            (f"{place}.max_reply_bytes", up.max_reply_bytes, 1024, 2**31),
            (f"{place}.usd_per_million_input", up.usd_per_million_input, 0, 1e6),
            (f"{place}.usd_per_million_output", up.usd_per_million_output, 0, 1e6),
        ]
    return found


def _check_upstream(upstream: UpstreamConfig, where: str) -> None:
    parts = urlsplit(upstream.url)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in upstream.url or parts.query:
        raise InvalidInput(
            f"{where}.url must be an address as https://host/v1, without user, key or query in it, "
            f"got {parts.scheme}://{parts.hostname}."
        )
    if upstream.api_key_env is not None and not re.fullmatch(r"[A-Za-z_]\w*", upstream.api_key_env):
        raise InvalidInput(
            f"{where}.api_key_env must be the NAME of an environment variable, never the key."
        )
    if upstream.api_key_env is not None and upstream.pass_key:
        raise InvalidInput(f"{where}: api_key_env and pass_key exclude each other.")


def _check_keys(config: ServeConfig, where: str) -> None:
    names = set()
    for i, key in enumerate(config.keys):
        if not re.fullmatch(r"[0-9a-f]{64}", key.sha256):
            raise InvalidInput(
                f"{where}: must be the SHA-256 of a key in hex, never the key itself - at "
                f"`$.keys[{i}].sha256`. Make one with `jettison serve --new-key NAME`."
            )
        if key.name in names:
            raise InvalidInput(
                f"{where}: names of keys must differ, got {key.name!r} twice - at `$.keys[{i}].name`"
            )
        names.add(key.name)


def _check_ui(ui: UiConfig, where: str) -> None:
    if ui.sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", ui.sha256):
        raise InvalidInput(
            f"{where}: must be the SHA-256 of a key in hex, never the key itself - at `$.ui.sha256`. "
            "Make one with `jettison serve --new-key NAME`."
        )
    if ui.is_on and ui.sha256 is None:
        raise InvalidInput(
            f"{where}: the pages must have a key of their own, got none - at `$.ui.sha256`. "
            "Make one with `jettison serve --new-key ui` and put its sha256 under [ui]."
        )


def _check_route(route: Route, config: ServeConfig, where: str) -> None:
    match route:
        case Single(candidate=name):
            _check_target(name, config, where)
        case Cascade(lean=lean, fallback=fallback):
            if not 0 <= route.threshold <= 2:
                raise InvalidInput(f"{where}.threshold must be in 0-2, got {route.threshold}.")
            if route.combine != "fallback":
                raise InvalidInput(
                    f"{where}.combine must be 'fallback' in a gateway, got {route.combine!r}."
                )
            _check_route(lean, config, f"{where}.lean")
            _check_route(fallback, config, f"{where}.fallback")
        case Shadow(main=main, shadow=shadow):
            _check_share(route.shadow_share, f"{where}.shadow_share")
            _check_route(main, config, f"{where}.main")
            _check_route(shadow, config, f"{where}.shadow")
        case Split(control=control, treatment=treatment):
            _check_share(route.treatment_share, f"{where}.treatment_share")
            _check_route(control, config, f"{where}.control")
            _check_route(treatment, config, f"{where}.treatment")
        case Guarded(inner=inner, guardrails=names):
            for name in names:
                if name not in config.guardrails:
                    raise InvalidInput(
                        f"{where}.guardrails must be among {sorted(config.guardrails)}, got {name!r}. "
                        "Describe it under [guardrails]."
                    )
            _check_route(inner, config, f"{where}.inner")


def _check_target(name: str, config: ServeConfig, where: str) -> None:
    known = [f"upstream:{one}" for one in config.upstreams] + [f"release:{one}" for one in config.releases]
    if config.release is not None:
        known += ["release", "release/lean", "release/fallback"]
    if name not in known:
        raise InvalidInput(f"{where}.candidate must be one of {known}, got {name!r}.")


def _check_share(share: float, where: str) -> None:
    if not 0 <= share <= 1:
        raise InvalidInput(f"{where} must be in 0-1, got {share}.")
