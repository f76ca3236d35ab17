"""`jettison compare`: judge one model against another, paired, with intervals."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jettison.cli.finite import FiniteRange
from jettison.cli.terminal import no_fuss_when_nobody_reads

if TYPE_CHECKING:
    from jettison.decide.compare import Comparison
    from jettison.decide.predictions import Predictions
    from jettison.evaluate.run import Progress
    from jettison.loop.sequential import Sequential
    from jettison.task import Task

METRICS = (
    "accuracy",
    "macro_f1",
    "accuracy_in_scope",
    "auroc",
    "ece",
    "brier",
    "mean_confidence",
    "error_share",
)


@click.command("compare")
@click.argument("a")
@click.argument("b")
@click.option(
    "--task", type=click.Path(path_type=Path), help="task.toml: asks models, and fills in right answers."
)
@click.option(
    "--margin",
    type=float,
    default=0.01,
    show_default=True,
    help="Loss that still counts as not worse; 0.01 is one point.",
)
@click.option(
    "--slice", "slices", multiple=True, help="column=value or column=*; each must hold. Repeatable."
)
@click.option(
    "--scorer",
    help="Score to judge by; otherwise the task's first, or label, score or acc, whichever both have.",
)
@click.option(
    "--column", "named", multiple=True, metavar="ROLE=COLUMN",
    help="Name of a file's column: example, output, expected, score, confidence, ... Repeatable.",
)  # fmt: skip
@click.option("--alpha", type=float, default=0.025, show_default=True, help="One-sided error probability.")
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    show_default=True,
    help="Of permutations.",
)
@click.option(
    "--until-sure", is_flag=True, help="With --task: ask both example by example; stop when certain."
)
@click.option(
    "--informed", is_flag=True,
    help="With --until-sure: ask A where B is wrong, and elsewhere one in four alone.",
)  # fmt: skip
@click.option(
    "--looks",
    type=click.IntRange(1, 50),
    help="With --until-sure: this many planned looks instead of one after each example.",
)
@click.option(
    "--texts",
    type=click.Path(path_type=Path),
    help="Texts without answers (JSON lines with `text`, lines, or a task.toml): compares two language "
    "models token by token.",
)
@click.option(
    "--n-texts", type=click.IntRange(2), default=200, show_default=True, help="With --texts: read so many."
)
@click.option(
    "--kl-at-most",
    type=FiniteRange(0.0),
    help="With --texts: divergence, nats a token, that the interval must lie under; else exit code 1.",
)
@click.option("--junit", type=click.Path(path_type=Path), help="Also write the checks as JUnit XML.")
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as JSON.")
def command(
    a: str,
    b: str,
    task: Path | None,
    margin: float,
    slices: tuple[str, ...],
    scorer: str | None,
    named: tuple[str, ...],
    alpha: float,
    seed: int,
    until_sure: bool,
    informed: bool,
    looks: int | None,
    texts: Path | None,
    n_texts: int,
    kl_at_most: float | None,
    junit: Path | None,
    as_json: bool,
) -> int:
    """Judge whether B may replace A on the same examples.

    A and B are predictions (JSONL, JSON, CSV, TSV, Parquet or Arrow with an example id and an output or
    a score; a data set folder; samples or the folder of a run of lm-eval; logs of Inspect; samples of
    Every Eval Ever), or with --task models, candidates or releases, which are asked first. Exit code 0:
    B is not worse; 1: it is, or too little data; 2: bad input.

    With --texts nothing needs an answer: how far the next-token probabilities of language model B lie from
    those of A, how often both find the same token likeliest, and the perplexity of each.
    """
    import msgspec

    from jettison.decide.compare import compare_predictions
    from jettison.decide.render import results_junit
    from jettison.decision import EXIT_CODE, NotWorse
    from jettison.errors import InvalidInput
    from jettison.files import write_atomic

    if texts is not None:
        if task is not None or until_sure or junit is not None:
            raise InvalidInput(
                "--texts must come without --task, --until-sure and --junit, got one of them."
            )
        from jettison.cli.compare_texts import compare_texts

        return compare_texts(a, b, texts, n_texts=n_texts, kl_at_most=kl_at_most, as_json=as_json)
    if kl_at_most is not None:
        raise InvalidInput(f"--kl-at-most must come with --texts, got {kl_at_most} without it.")
    if until_sure:
        return _until_sure(
            a,
            b,
            task,
            margin=margin,
            slices=slices,
            alpha=alpha,
            looks=looks,
            informed=informed,
            seed=seed,
            as_json=as_json,
        )
    if informed:
        raise InvalidInput("--informed must come with --until-sure, got it without.")
    if looks is not None:
        raise InvalidInput(f"--looks must come with --until-sure, got --looks {looks} without it.")
    gate = NotWorse(margin=margin, slices=("all", *(s for s in slices if s != "all")), alpha=alpha)
    whole = None
    if task is not None:
        from jettison.task.read import read_task

        whole = read_task(task)
    sides = _predictions_of(a, b, whole, gate.slices, columns_of(named), quiet=as_json)
    if scorer is None and whole is not None:
        scorer = _first_scorer(whole, sides)
    found = compare_predictions(*sides, gate=gate, scorer=scorer, names=(a, b), seed=seed)
    if junit is not None:
        write_atomic(junit, results_junit(found.results, suite=f"jettison.compare.{b}", case=b))
    with no_fuss_when_nobody_reads():
        if as_json:
            click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2))
        else:
            _show(found)
    return EXIT_CODE[found.verdict]


def _until_sure(
    a: str,
    b: str,
    task_file: Path | None,
    *,
    margin: float,
    slices: tuple[str, ...],
    alpha: float,
    looks: int | None,
    informed: bool,
    seed: int,
    as_json: bool,
) -> int:
    import msgspec

    from jettison.decision import EXIT_CODE
    from jettison.errors import InvalidInput
    from jettison.evaluate.slices import Slicer
    from jettison.files import value_sha256
    from jettison.loop.compare_models import candidate_of
    from jettison.loop.sequential import compare_until_sure
    from jettison.task.read import read_task

    if task_file is None:
        raise InvalidInput("--until-sure must come with --task: both models are asked as it goes.")
    task = read_task(task_file)
    named = tuple(dict.fromkeys(("all", *slices)))
    with tempfile.TemporaryDirectory() as cache:
        # Opened before the test split is read: a path mistyped must not cost a reading.
        incumbent, candidate = (
            str(candidate_of(source, task, cache=Path(cache) / side).path)
            for side, source in (("a", a), ("b", b))
        )
        reading = task.read_test(purpose=value_sha256(["compare", a, b]))
        examples = Slicer.fit(task.development).apply(reading.examples)
        found = compare_until_sure(
            incumbent,
            candidate,
            task,
            examples,
            margin=margin,
            slices=named,
            alpha=alpha,
            looks=looks,
            informed=informed,
            seed=seed,
        )
    with no_fuss_when_nobody_reads():
        if as_json:
            click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2))
        else:
            _show_stopped(found)
    return EXIT_CODE[found.verdict]


def _show_stopped(found: "Sequential") -> None:
    from jettison.cli.tables import table, wide_console

    console = wide_console()
    console.print(
        f"[bold]{found.verdict.value}[/]  after {found.n_asked:,} of {found.n_available:,} examples, "
        f"{found.n_asked_incumbent:,} of them asked of A ({100 * found.saved_share:.0f} % saved)"
    )
    shown = table("slice", "verdict", "B - A, points", "asked", "of", "settled by")
    for one in found.slices:
        seen = "–" if one.difference is None else f"{100 * one.difference:+.2f}"
        shown.add_row(
            one.slice, one.verdict.value, seen, f"{one.n:,}", f"{one.n_available:,}", one.settled_by
        )
    console.print(shown)


def _first_scorer(task: "Task", sides: "tuple[Predictions, Predictions]") -> str | None:
    """The task's first scorer, which decides, where both sides were judged by it."""
    first = task.scorers[0]
    judged = all(any(first in record.scores for record in side.records) for side in sides)
    return first if judged else None


def _predictions_of(
    a: str,
    b: str,
    task: "Task | None",
    slices: tuple[str, ...],
    named: dict[str, str],
    *,
    quiet: bool,
) -> "tuple[Predictions, Predictions]":
    """Read or ask both sides; what files lack, right answers and scores, comes from the task."""
    from jettison.cli.progress import Screen
    from jettison.decide.compare import slice_columns
    from jettison.decide.predictions import Predictions, complete, is_prediction_file, read_predictions
    from jettison.errors import InvalidInput
    from jettison.files import value_sha256

    columns = slice_columns(slices)
    models = [source for source in dict.fromkeys((a, b)) if not is_prediction_file(source)]
    if models and task is None:
        raise InvalidInput(
            "A and B must be prediction files (.jsonl, .csv, .parquet) unless --task is given, "
            f"got {models[0]}."
        )
    found = {
        source: read_predictions(Path(source), slice_columns=columns, columns=named)
        for source in (a, b)
        if source not in models
    }
    if models and task is not None:
        from jettison.loop.compare_models import records_of

        with Screen(quiet=quiet) as screen:

            def watch(source: str) -> "Progress":
                screen.stage(f"asking {source}")
                return screen.progress

            answered = records_of(
                models,
                task,
                purpose=value_sha256(["compare", a, b]),
                watch=watch,
                opening=lambda source: screen.stage(f"opening {source}, its confidences set on dev"),
            )
        found |= {m: Predictions(records=tuple(r)) for m, r in zip(models, answered, strict=True)}
    sides = [found[a], found[b]]
    files = [source not in models for source in (a, b)]
    if task is None or not any(files):
        return sides[0], sides[1]
    from jettison.loop.compare_models import judged_by_task

    asked = value_sha256(["compare", a, b])
    purpose = value_sha256([side.records[0].candidate for side in sides]) if all(files) else asked
    known = {example.id: example for example in task.read_test(purpose=purpose).examples}
    for i, side in enumerate(sides):
        completed = complete(side.records, known)
        if files[i] and task.kind != "classify":
            completed = judged_by_task(completed, known, task)
        sides[i] = replace(side, records=completed)
    return sides[0], sides[1]


def columns_of(named: tuple[str, ...]) -> dict[str, str]:
    """Role → column of each `--column ROLE=COLUMN`."""
    from jettison.errors import InvalidInput

    for one in named:
        role, sign, column = one.partition("=")
        if not (role and sign and column):
            raise InvalidInput(f"--column must be ROLE=COLUMN, as output=answer, got {one!r}.")
    return dict(one.split("=", 1) for one in named)


def _show(found: "Comparison") -> None:
    from rich.text import Text

    from jettison.cli.tables import table, wide_console
    from jettison.decide.words import signed

    colors = {"SHIP": "green", "BLOCK": "red", "NOT ENOUGH DATA": "yellow"}
    console = wide_console()
    color = colors[found.verdict.value]
    console.print(f"[bold {color}]{found.verdict.value}[/]  {found.headline}", soft_wrap=True)
    for note in found.notes:
        console.print(Text(f"warning: {note}", style="yellow"), soft_wrap=True)
    checks = table("slice", "verdict", "A, %", "B, %", "B - A, points", "-/+/~", "n")
    for result in found.results:
        flips, seen = result.flips, result.difference
        checks.add_row(
            result.slice,
            f"[{colors[result.verdict.value]}]{result.verdict.value}[/]",
            *(
                "–" if value is None else f"{100 * value:.1f}"
                for value in (result.incumbent, result.candidate)
            ),
            "–" if seen is None else signed(seen.value, seen.low, seen.high),
            "–" if flips is None else f"{flips.harmful}/{flips.beneficial}/{flips.churn}",
            f"{result.n or 0:,}",
        )
    console.print(checks)
    values = found.metrics["a"]["all"], found.metrics["b"]["all"]
    console.print("[dim]-: A right, B wrong; +: A wrong, B right; ~: both wrong, differently[/]")
    for result in found.results:
        if result.verdict.value != "SHIP" and result.reason not in found.headline:
            console.print(result.reason, soft_wrap=True)
    metrics = table("metric", "A", "B")
    for name in METRICS:
        if any(side.get(name) is not None for side in values):
            metrics.add_row(
                name, *("–" if (v := side.get(name)) is None else f"{v:.4f}" for side in values)
            )
    if metrics.row_count:
        console.print(metrics)
