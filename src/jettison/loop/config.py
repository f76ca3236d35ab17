"""`jettison.toml`: what to compress, for which task, within which limits."""

import math
import re
import tomllib
from pathlib import Path
from typing import Any, Literal

import msgspec

from jettison.cost.slo import read_slo
from jettison.decide.costs import COSTS
from jettison.decision import AtMost, Gate, NotWorse
from jettison.errors import InvalidInput
from jettison.files import decode_toml
from jettison.task.source import choices_hint
from jettison.task.unknown_keys import refuse_null_bytes, refuse_unknown_keys

MOST_THREADS = 1024
ENDPOINT_PATHS = ("answers", "logged")
"""Settings of `[endpoint]` that are places on disk."""


class SuiteSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[suites]`: tiers to build of the task before the run, and what to look for after it."""

    tiers: tuple[str, ...] = ("in_domain", "long_tail", "out_of_domain", "perturbed", "adversarial")
    gates: tuple[str, ...] = ()
    """Tiers or slices of them that must hold by themselves; all are shown."""
    per_example: int = 2
    """Perturbed copies of each test example."""
    perturbations: tuple[str, ...] = ()
    """Kinds of perturbation; none given means all."""
    out_of_domain: tuple[str, ...] = ()
    """Data files of other domains."""
    most_out_of_domain: int | None = None
    """At most so many examples of each such file."""
    given: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    """Tier → files of examples with right answers."""
    found: str | None = None
    """What `suites find` wrote on dev: its slices are marked as `found_1=yes`, ... and can be gates."""
    embedder: str | None = None
    """Folder of an embedder whose vectors tell low density."""
    attacked: int | None = None
    """Test examples on which the incumbent and each finalist are attacked; None means 100, and none of a
    language model, which takes too long; 0 attacks nobody."""
    budget: int = 60
    """Questions of an attack for one example."""


class RunConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every setting of a run, defaults resolved."""

    task: str
    """`task.toml`, relative to the file that names it."""
    incumbent: str
    """Folder, ONNX or GGUF file, release, hub id or endpoint's address of the model that runs today."""
    endpoint: dict[str, Any] = msgspec.field(default_factory=dict)
    """`[endpoint]`: `model`, `api_key_env`, prices and limits of an incumbent that is an endpoint."""
    student: str | None = None
    """Encoder (folder or hub id) that students start from where the incumbent is a language model."""
    gates: tuple[Gate, ...] = ()
    """What must hold; none given means accuracy within one point on the required slices."""
    output: str = "jettison-run"
    recipes: str | list[dict[str, Any]] = "auto"
    skip: tuple[str, ...] = ()
    """Names of automatic recipes not to try."""
    budget: str | int | float | None = None
    """Wall time for the run, as `10m`, `1h30m` or seconds; `slo` comes on top. None tries everything."""
    threads: int = 1
    """Threads that a candidate answers with; it is measured so."""
    training_threads: int = 0
    """Threads for making candidates; 0 takes all cores."""
    seed: int = 0
    safety: bool = True
    """Whether language models that write free text are asked the safety probes."""
    safety_probes: tuple[str, ...] = ()
    """Files of a team's own probes, JSONL with `input` and `safety`."""
    scorer_labels: dict[str, str] = msgspec.field(default_factory=dict)
    """Scorer → file of labelled answers on which it is measured; its gates allow for how it errs."""
    suites: SuiteSettings | None = None
    """`[suites]`: None judges the task's test split alone."""
    usd_per_hour: float | None = None
    """Price of the instance, for money per task."""
    nominate_at: float = 0.8
    """Least predicted probability, from dev, that a candidate passes every gate on test."""
    epsilons: tuple[float, ...] | None = None
    """Harm that cascades may be certified to: share of inputs wrong where the incumbent is right;
    None takes a quarter, a half, the whole and one and a half of the tightest margin."""
    delta: float = 0.1
    """Probability that a cascade's certificate does not hold."""
    calibration: Literal["temperature", "vector", "isotonic", "auto"] = "temperature"
    """What makes confidences honest, fitted on one half of dev; goes into every candidate. `auto`: the
    temperature, unless a finer map is better on folds of that half it was not fitted on."""
    when_out_of_scope: Literal["answer", "escalate", "abstain"] | None = None
    """What candidates do with inputs that look out of scope: answer as any other, ask the fallback of
    a cascade, or abstain: answer the out-of-scope label. None lets the search choose of the first two."""
    false_alarm_share: float = 0.05
    """Share of in-scope inputs that may look out of scope."""
    n_shown: int = 5
    """Candidates measured on test besides the eligible ones, for the report."""
    slo: str | None = None
    """`p95=20ms`: after the decision, the highest rate at which incumbent and nominees keep to it is
    searched for under load, for the report; None: nothing is measured under load."""
    n_cost_tasks: int = 200
    """Inputs that costs are measured on, drawn from dev."""
    cost_s: float = 8.0
    """Seconds of measuring for each finalist; first measurements take half of it."""
    rate_per_s: float | None = None
    """The team's own arrivals a second: money is then also given with the idle time in between."""
    cost_openings: int = 6
    """Fresh processes of each finalist, over which the intervals of its costs are taken."""
    format: int = 1

    @property
    def budget_s(self) -> float | None:
        return None if self.budget is None else parse_duration(self.budget)


def read_config(path: Path) -> RunConfig:
    """Read a `jettison.toml`; its paths are resolved against its own folder.

    Raises:
        InvalidInput: The file is missing or malformed, or a setting is unknown or out of range.
    """
    try:
        content = decode_toml(path.read_bytes())
    except FileNotFoundError as error:
        raise InvalidInput(
            f"{path} must be a file, got nothing there. `jettison init MODEL DATA` writes one."
        ) from error
    except IsADirectoryError as error:
        raise InvalidInput(f"{path} must be a file, got a folder.") from error
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"{path} must be TOML: {error}.") from error
    except OSError as error:
        raise InvalidInput(f"{path} must be a readable file, got {error.strerror}.") from error
    refuse_unknown_keys(content, RunConfig, where=str(path))
    refuse_null_bytes(content, where=str(path))
    try:
        config = msgspec.convert(content, RunConfig)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"{path}: {error}.{choices_hint(error, RunConfig)}") from error
    check_config(config, str(path))
    return msgspec.structs.replace(
        config,
        task=str(path.parent / config.task),
        incumbent=_resolve(path.parent, config.incumbent),
        endpoint={
            name: str(path.parent / value) if name in ENDPOINT_PATHS and isinstance(value, str) else value
            for name, value in config.endpoint.items()
        },
        suites=None if config.suites is None else _resolve_suites(path.parent, config.suites),
        safety_probes=tuple(str(path.parent / name) for name in config.safety_probes),
        scorer_labels={name: str(path.parent / file) for name, file in config.scorer_labels.items()},
        student=None if config.student is None else _resolve(path.parent, config.student),
        output=str(path.parent / config.output),
    )


def check_config(config: RunConfig, place: str) -> None:
    """Check ranges that types cannot say.

    Raises:
        InvalidInput: A setting is out of its range.
    """
    rules: list[tuple[bool, str, str, object]] = [
        (config.format == 1, "format", "1", config.format),
        (config.threads >= 1, "threads", "at least 1", config.threads),
        (config.threads <= MOST_THREADS, "threads", f"at most {MOST_THREADS}", config.threads),
        (0 <= config.seed < 2**32, "seed", "0 to 4294967295", config.seed),
        (config.n_shown >= 0, "n_shown", "at least 0", config.n_shown),
        (config.recipes != [], "recipes", '"auto" or a list of at least one', config.recipes),
        (
            not config.endpoint or config.incumbent.startswith(("http://", "https://")),
            "[endpoint]",
            "left out where the incumbent is no http address",
            config.incumbent,
        ),
        (config.training_threads >= 0, "training_threads", "at least 0", config.training_threads),
        (0 < config.nominate_at < 1, "nominate_at", "between 0 and 1", config.nominate_at),
        (
            0 < config.false_alarm_share < 0.5,
            "false_alarm_share",
            "between 0 and 0.5",
            config.false_alarm_share,
        ),
        (0 < config.delta < 1, "delta", "between 0 and 1", config.delta),
        (all(0 < e < 1 for e in config.epsilons or ()), "epsilons", "between 0 and 1", config.epsilons),
        (config.n_cost_tasks >= 20, "n_cost_tasks", "at least 20", config.n_cost_tasks),
        (
            config.slo is None or _is_slo(config.slo),
            "slo",
            "a percentile and a time, as p95=20ms",
            config.slo,
        ),
        (0 < config.cost_s < math.inf, "cost_s", "a finite number above 0", config.cost_s),
        (
            config.usd_per_hour is None or 0 <= config.usd_per_hour < math.inf,
            "usd_per_hour",
            "at least 0",
            config.usd_per_hour,
        ),
        (
            config.rate_per_s is None or 0 < config.rate_per_s < math.inf,
            "rate_per_s",
            "a finite number above 0",
            config.rate_per_s,
        ),
        (
            1 <= config.cost_openings <= 100 and config.cost_openings != 2,
            "cost_openings",
            "1, or 3 to 100",
            config.cost_openings,
        ),
        (
            config.recipes == "auto" or isinstance(config.recipes, list),
            "recipes",
            '"auto" or a list of recipes',
            config.recipes,
        ),
    ]
    if (suites := config.suites) is not None:
        rules += [
            (suites.per_example >= 1, "suites.per_example", "at least 1", suites.per_example),
            ((suites.attacked or 0) >= 0, "suites.attacked", "at least 0", suites.attacked),
            (suites.budget >= 2, "suites.budget", "at least 2", suites.budget),
            (
                (suites.most_out_of_domain or 1) >= 1,
                "suites.most_out_of_domain",
                "at least 1",
                suites.most_out_of_domain,
            ),
        ]
    for gate in config.gates:
        if isinstance(gate, NotWorse):
            rules.append((0 < gate.margin < 1, "gates.margin", "between 0 and 1", gate.margin))
            each = gate.margins.values()
            rules.append((all(0 < m < 1 for m in each), "gates.margins", "between 0 and 1", gate.margins))
        if not isinstance(gate, AtMost):
            rules.append((0 < gate.alpha < 0.5, "gates.alpha", "between 0 and 0.5", gate.alpha))
            rules.append((len(gate.slices) > 0, "gates.slices", "at least one slice", gate.slices))
        if isinstance(gate, AtMost):
            rules.append((gate.cost in COSTS, "gates.cost", f"one of {list(COSTS)}", gate.cost))
            rules.append((0 < gate.limit < math.inf, "gates.limit", "a finite number above 0", gate.limit))
    rules.append(
        (
            not config.gates or any(isinstance(gate, NotWorse) for gate in config.gates),
            "gates",
            "a list with a `not_worse`: without one nothing shows that a candidate does the job",
            [gate.cost if isinstance(gate, AtMost) else gate.scorer for gate in config.gates],
        )
    )
    for holds, name, rule, value in rules:
        if not holds:
            raise InvalidInput(f"{name} must be {rule}, got {value!r} in {place}.")
    if config.budget is not None:
        parse_duration(config.budget)


def _is_slo(text: str | None) -> bool:
    if text is None:
        return True
    try:
        read_slo(text)
    except InvalidInput:
        return False
    return True


LONGEST_S = 10 * 366 * 86400.0
"""Of a duration: ten years."""


def parse_duration(text: str | int | float) -> float:
    """Seconds of `90`, `90s`, `10m`, `1h30m`.

    Raises:
        InvalidInput: It is none of these, or not above zero.
    """
    if isinstance(text, int | float):
        found = float(text) if abs(text) <= LONGEST_S else math.inf
    else:
        match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?", text.strip())
        hours, minutes, seconds = match.groups() if match else (None, None, None)
        found = 3600 * float(hours or 0) + 60 * float(minutes or 0) + float(seconds or 0)
    if not found <= LONGEST_S:
        raise InvalidInput(f"a duration must be at most ten years, got {str(text)[:40]!r}. Leave it out.")
    if found <= 0:
        raise InvalidInput(f"a duration must be above zero, as `10m` or `1h30m`, got {text!r}.")
    return found


def default_gates(
    required_slices: tuple[str, ...], out_of_scope: str | None, scorer: str = "label"
) -> tuple[Gate, ...]:
    """One point of the task's score on every required slice; two of out-of-scope recall and false alarms.

    Recall is at each model's own threshold: without the false alarms, what flags everything would pass.
    """
    if out_of_scope is None:
        return (NotWorse(scorer=scorer, slices=required_slices or ("all",)),)
    inside = [name for name in required_slices if name != "tier=out_of_domain" and name[:4] != "ood="]
    slices = tuple("scope=in" if name == "all" else name for name in inside) or ("scope=in",)
    return (
        NotWorse(slices=slices),
        NotWorse(scorer="out_of_scope", slices=("scope=out", "scope=in"), margin=0.02),
    )


def _resolve_suites(folder: Path, suites: SuiteSettings) -> SuiteSettings:
    return msgspec.structs.replace(
        suites,
        out_of_domain=tuple(str(folder / name) for name in suites.out_of_domain),
        given={tier: tuple(str(folder / name) for name in names) for tier, names in suites.given.items()},
        found=None if suites.found is None else str(folder / suites.found),
        embedder=None if suites.embedder is None else str(folder / suites.embedder),
    )


def _resolve(folder: Path, incumbent: str) -> str:
    """A path beside the file where there is one; anything else (a hub id, an address) stays as it is."""
    if incumbent.startswith(("http://", "https://")):
        return incumbent
    local = folder / incumbent
    return str(local) if local.exists() or incumbent.startswith((".", "/")) else incumbent
