"""The part of `jettison cost` that measures under load: its options, its targets by address, its table."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click
import msgspec
from rich.markup import escape

from jettison.cli.finite import FiniteRange
from jettison.errors import InvalidInput

if TYPE_CHECKING:
    from jettison.candidate import Candidate
    from jettison.cost.grid import GridFile
    from jettison.cost.http_target import HttpTarget
    from jettison.cost.load_measure import Judge, Scenario
    from jettison.cost.load_types import LoadReport, ScenarioKind
    from jettison.cost.subject import Progress
    from jettison.task import Input, Task

F = TypeVar("F", bound=Callable[..., Any])
SCENARIOS = ("single-stream", "offline", "server", "trace")
_OPTIONS = (
    click.option(
        "--scenario",
        type=click.Choice(SCENARIOS),
        help="How requests arrive. [default: single-stream of an address, else without load]",
    ),
    click.option(
        "--rate",
        type=FiniteRange(min=0, min_open=True),
        help="Arrivals a second; not of server: your own, for money with idle time.",
    ),
    click.option("--slo", help="server: find the highest rate that meets it, as p95=20ms."),
    click.option("--trace", type=click.Path(path_type=Path), help="trace: file of arrival times."),
    click.option(
        "--duration",
        type=FiniteRange(min=0, min_open=True),
        help="Seconds of each target. [default: 60]",
    ),
    click.option(
        "--max-batch", type=click.IntRange(min=1), help="Waiting requests taken at once. [default: 1]"
    ),
    click.option(
        "--timeout",
        type=FiniteRange(min=0.01),
        help="Seconds until a request is a miss. [default: 30]",
    ),
    click.option("--model", help="Address: name of the model there."),
    click.option("--api-key-env", help="Address: environment variable that holds the key."),
    click.option("--prompt", help="Address: what to ask a language model, with {input} in it."),
    click.option("--body", help='Address: JSON to post, as {"text": {input}}.'),
    click.option("--answer", help="Address: where in its JSON the answer is, as output.label."),
    click.option("--stream", is_flag=True, help="Address: stream, for times to tokens."),
    click.option(
        "--prices",
        type=click.Path(path_type=Path),
        help="Address: TOML of token prices, dated. [default: bundled]",
    ),
    click.option("--max-tokens", type=click.IntRange(min=1), help="Address: of an answer. [default: 64]"),
    click.option(
        "--concurrency", type=click.IntRange(1, 4096), help="Address, offline: at once. [default: 16]"
    ),
    click.option("--output", type=click.Path(path_type=Path), help="Folder for cost.json and cost.html."),
)


class Asked(NamedTuple):
    """What is asked, and who tells right from wrong."""

    inputs: "list[Input]"
    judge: "Judge | None"
    kind: str | None = None
    """Of the task; None where only texts were given."""


def load_options(command: F) -> F:
    """Add the options of a run under load to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def is_address(target: str) -> bool:
    """Whether a target is reached over HTTP."""
    return target.startswith(("http://", "https://"))


def check_no_load_options(load: dict[str, Any]) -> None:
    """Refuse options that would be left unheard.

    Raises:
        InvalidInput: One was given without a scenario.
    """
    given = next((name for name, value in load.items() if value not in (None, False)), None)
    if given is not None:
        option = f"--{given.replace('_', '-')}"
        raise InvalidInput(
            f"{option} must come with a --scenario or an address, got it without. "
            f"Add --scenario server, or leave {option} away."
        )


def address_target(url: str, load: dict[str, Any]) -> "HttpTarget":
    """The target at an address, by the options given."""
    from jettison.cost.http_target import http_target

    fields = {
        "prompt": load["prompt"],
        "body": load["body"],
        "answer": load["answer"],
        "stream": load["stream"] or None,
        "max_tokens": load["max_tokens"],
        "api_key_env": load["api_key_env"],
        "timeout_s": load["timeout"],
        "concurrency": load["concurrency"],
    }
    known = {name: value for name, value in fields.items() if value is not None}
    return http_target(url, model=load["model"], **known)


def asked_of(task: "Task | None", texts: Sequence[str], *, n: int, seed: int) -> Asked:
    """Inputs by their lengths; of a task, dev examples, whose right answers are known; never test."""
    from jettison.cost.inputs import sample_inputs

    if task is None:
        return Asked(list(sample_inputs(texts, n=n, seed=seed)), None)
    from jettison.evaluate.scorers import open_scorers
    from jettison.model import Output

    examples = {example.input: example for example in task.dev}
    drawn = [examples[text] for text in sample_inputs(list(examples), n=n, seed=seed)]
    name = task.scorers[0]
    scorer = open_scorers({name: task.scoring[name]}, out_of_scope=task.out_of_scope)[name]

    def judge(row: int, said: str) -> float | None:
        return scorer.score(drawn[row], Output(label=said.strip(), confidence=1.0)).value

    return Asked([example.asked for example in drawn], judge, task.kind)


def run_load(
    targets: "Sequence[Candidate | HttpTarget]",
    asked: Asked,
    load: dict[str, Any],
    *,
    seed: int,
    openings: int,
    threads: int,
    usd_per_hour: float | None,
    meter: str,
    grid: "GridFile",
    as_json: bool,
    progress: "Progress",
) -> int:
    """Measure and print; 1 when an SLO was asked for that no target was shown to meet."""
    from jettison.cost.load_measure import measure_load
    from jettison.cost.load_target import Prices
    from jettison.cost.token_prices import read_token_prices

    tokens = read_token_prices(load["prices"]) if load["prices"] is not None else None
    report = measure_load(
        targets,
        asked.inputs,
        _scenario(load),
        seed=seed,
        openings=openings,
        threads=threads,
        prices=Prices(usd_per_hour=usd_per_hour, grid=grid, tokens=tokens, own_rate_per_s=load["rate"]),
        meter=meter,
        judge=asked.judge,
        kind=asked.kind,
        progress=progress,
    )
    if load["output"] is not None:
        _write(report, load["output"])
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(report), indent=2))
    else:
        _print_report(report)
    return 1 if report.slo is not None and report.rate_per_s is None else 0


def _scenario(load: dict[str, Any]) -> "Scenario":
    from jettison.cost.load_measure import Scenario
    from jettison.cost.schedule import read_trace
    from jettison.cost.slo import read_slo

    kind: ScenarioKind = load["scenario"] or "single-stream"
    if load["rate"] is not None and kind == "trace":
        raise InvalidInput(
            "--rate must come without --scenario trace, which has arrivals of its own, got both."
        )
    if load["trace"] is not None and kind != "trace":
        raise InvalidInput(f"--trace must come with --scenario trace, got {kind}.")
    trace = tuple(read_trace(load["trace"])) if load["trace"] is not None else ()
    return Scenario(
        kind=kind,
        rate_per_s=load["rate"] if kind == "server" else None,
        slo=read_slo(load["slo"]) if load["slo"] else None,
        trace_s=trace,
        duration_s=load["duration"] or 60.0,
        max_batch=load["max_batch"] or 1,
        timeout_s=load["timeout"] or 30.0,
    )


def _write(report: "LoadReport", folder: Path) -> None:
    from jettison.decide.report_load_page import load_page
    from jettison.files import write_atomic, write_json

    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "cost.json", report)
    write_atomic(folder / "cost.html", load_page(report))


def _print_report(report: "LoadReport") -> None:
    from rich.console import Console

    from jettison.cli.tables import print_costs
    from jettison.decide.report_load import load_notes, load_rows, scenario_words

    console = Console(highlight=False)
    console.print(f"[bold]{escape(scenario_words(report))}[/bold]")
    print_costs(console, [target.name for target in report.targets], load_rows(report))
    for note in load_notes(report):
        console.print(f"[dim]{escape(note)}[/dim]")
