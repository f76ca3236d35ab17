"""`jettison suites`: tiers and slices that show where a lean model fails, made from a team's own task."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jettison.evaluate.suites.behaviour import BehaviourResult
    from jettison.evaluate.suites.build import Suite
    from jettison.loop.suites import Attacked, FoundSlices
    from jettison.record import Record

_TIERS = ("in_domain", "long_tail", "out_of_domain", "perturbed", "adversarial", "safety")


@click.group("suites")
def command() -> None:
    """Build suites, attack models, find slices where they lose, lint a task, run tests written as data."""


@command.command("build")
@click.argument("task", type=click.Path(path_type=Path))
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("suite"),
    show_default=True,
    help="Folder of the suite, a task.",
)
@click.option(
    "--tier", "tiers", multiple=True, type=click.Choice(_TIERS), help="Build only these. Repeatable."
)
@click.option("--gate", "gates", multiple=True, help="Tier or slice that must hold by itself. Repeatable.")
@click.option(
    "--per-example", type=int, default=2, show_default=True, help="Perturbed copies of an example."
)
@click.option("--perturbation", "perturbations", multiple=True, help="Only these kinds. Repeatable.")
@click.option(
    "--out-of-domain",
    "outside",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Data of other domains.",
)
@click.option("--most-out-of-domain", type=click.IntRange(1), help="At most so many of each such file.")
@click.option("--hold-out", multiple=True, help="Class taken out of the task, to be refused. Repeatable.")
@click.option("--given", multiple=True, metavar="TIER=FILE", help="Examples of a published or own set.")
@click.option("--attack", "victims", multiple=True, help="Model to search adversarial examples on.")
@click.option(
    "--budget", type=int, default=60, show_default=True, help="Questions of the search an example."
)
@click.option(
    "--attacked", type=int, default=200, show_default=True, help="Examples attacked, drawn by seed."
)
@click.option("--model", "models", multiple=True, help="Two models: mark where they disagree.")
@click.option(
    "--found", "found_file", type=click.Path(path_type=Path), help="Slices that `suites find` wrote."
)
@click.option(
    "--embedder", type=click.Path(path_type=Path),
    help="Folder of an embedder: tells inputs of low density by meaning, not by characters.",
)  # fmt: skip
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of everything random."
)
@click.option("--json", "as_json", is_flag=True, help="Print what was built as JSON.")
def build(
    task: Path,
    output: Path,
    tiers: tuple[str, ...],
    gates: tuple[str, ...],
    per_example: int,
    perturbations: tuple[str, ...],
    outside: tuple[Path, ...],
    most_out_of_domain: int | None,
    hold_out: tuple[str, ...],
    given: tuple[str, ...],
    victims: tuple[str, ...],
    budget: int,
    attacked: int,
    models: tuple[str, ...],
    found_file: Path | None,
    embedder: Path | None,
    seed: int,
    as_json: bool,
) -> int:
    """Make tiers of TASK, which show where a lean model fails.

    They are in_domain, long_tail, out_of_domain, perturbed, adversarial and safety. OUTPUT is a task
    folder: point `task` in jettison.toml at it, or compare with --task. An earlier suite there is
    replaced.
    """
    import msgspec

    from jettison.cli.progress import Screen
    from jettison.errors import InvalidInput
    from jettison.evaluate.suites.attack import attacked_examples
    from jettison.evaluate.suites.build import SuitePlan, build_suite, check_suite_folder
    from jettison.evaluate.suites.perturbations import PERTURBATIONS
    from jettison.loop.suites import answers_of, drawn
    from jettison.loop.suites import attacked as attack
    from jettison.task.read import read_task

    if models and len(models) != 2:
        raise InvalidInput(f"--model must be given twice, for two models, got {len(models)}.")
    read = read_task(task)
    check_suite_folder(output, read)  # before a search of minutes, not after
    made: list[Any] = []
    outcomes: list[dict[str, Any]] = []
    disagree: dict[str, bool] = {}
    if victims or models:
        examples = read.read_test(purpose="suites build").examples
        with Screen(quiet=as_json) as screen:
            for victim in victims:
                screen.stage(f"attacking {victim}")
                inside = [
                    e for e in examples if read.out_of_scope is None or e.expected != read.out_of_scope
                ]
                some = drawn(inside, attacked, seed=seed)
                found = attack(victim, read, some, budget=budget, seed=seed, progress=screen.progress)
                made += attacked_examples(found.attacks, victim=Path(victim).name, seed=seed)
                outcomes.append(_told(victim, found, budget=budget, seed=seed))
        if models:
            one, other = (answers_of(model, read, examples, split="test") for model in models)
            disagree = {a.example_id: a.output != b.output for a, b in zip(one, other, strict=True)}
    plan = SuitePlan(
        tiers=tiers or SuitePlan().tiers,
        gates=gates,
        perturbations=perturbations or tuple(PERTURBATIONS),
        per_example=per_example,
        out_of_domain=outside,
        most_out_of_domain=most_out_of_domain,
        hold_out=hold_out,
        given=_given(given),
        made=tuple(made),
        disagree=disagree,
        found=_read_found(found_file),
        embedder=embedder,
        seed=seed,
    )
    suite = build_suite(read, plan, output)
    if as_json:
        built = {**msgspec.to_builtins(suite), **({"attacks": outcomes} if outcomes else {})}
        click.echo(msgspec.json.format(msgspec.json.encode(built), indent=2))
        return 0
    _show_attacks(outcomes)
    _show_suite(suite)
    return 0


def _told(victim: str, found: "Attacked", *, budget: int, seed: int) -> dict[str, Any]:
    share = found.success_share
    return {
        "victim": victim,
        "n": len(found.attacks),
        "n_right": found.n_right,
        "n_turned": sum(one.succeeded for one in found.attacks),
        "turned_share": None if share is None else share.value,
        "turned_share_low": None if share is None else share.low,
        "turned_share_high": None if share is None else share.high,
        "mean_queries": found.mean_queries,
        "budget": budget,
        "seed": seed,
    }


def _show_attacks(outcomes: "Sequence[dict[str, Any]]") -> None:
    for told in outcomes:
        share, low, high = (
            "–" if told[key] is None else f"{100 * told[key]:.1f}"
            for key in ("turned_share", "turned_share_low", "turned_share_high")
        )
        click.echo(
            f"attacked {told['victim']}: {told['n_turned']} of {told['n_right']} right answers turned "
            f"wrong, {share} % ({low} to {high}); {told['mean_queries']:.1f} of "
            f"{told['budget']} questions a text"
        )


def _given(named: tuple[str, ...]) -> dict[str, tuple[Path, ...]]:
    from jettison.errors import InvalidInput

    found: dict[str, tuple[Path, ...]] = {}
    for one in named:
        tier, equals, path = one.partition("=")
        if not equals or not path:
            raise InvalidInput(f"--given must be TIER=FILE, got {one!r}.")
        found[tier] = (*found.get(tier, ()), Path(path))
    return found


def _read_found(path: Path | None) -> dict[str, dict[str, str]]:
    from jettison.files import read_json
    from jettison.loop.suites import FoundSlices

    if path is None:
        return {}
    found = read_json(path, FoundSlices)
    return {f"found_{i}": one.where for i, one in enumerate(found.slices, 1) if one.where}


def _show_suite(suite: "Suite") -> None:
    from jettison.cli.tables import table, wide_console

    console = wide_console()
    shown = table("tier", "examples", "smallest margin, points", "gate")
    for tier, n in suite.n.items():
        slice_name = f"{tier}=yes" if tier == "long_tail" else f"tier={tier}"
        margin = f"{100 * suite.smallest_margin[tier]:.2g}" if n else "–"
        shown.add_row(tier, f"{n:,}", margin, "yes" if slice_name in suite.required else "")
    console.print(shown)
    console.print(
        "[dim]smallest margin: what can be certified when no answer changes; copies of a text count once[/]"
    )
    for note in suite.notes:
        console.print(f"left out: {note}", soft_wrap=True, markup=False)
    console.print(f"written: {Path(suite.folder) / 'task.toml'}", soft_wrap=True, markup=False)


@command.command("find")
@click.argument("a")
@click.argument("b")
@click.option("--task", "task_file", type=click.Path(path_type=Path), required=True, help="task.toml")
@click.option(
    "--split",
    type=click.Choice(("dev", "test")),
    default="dev",
    show_default=True,
    help="What is searched; a reading of test is counted.",
)
@click.option("--scorer", help="Score that is lost; the task's first otherwise.")
@click.option("--alpha", type=float, default=0.05, show_default=True, help="Chance of any false report.")
@click.option("--output", type=click.Path(path_type=Path), help="Also write what was found as JSON.")
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of everything random."
)
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def find(
    a: str,
    b: str,
    task_file: Path,
    split: str,
    scorer: str | None,
    alpha: float,
    output: Path | None,
    seed: int,
    as_json: bool,
) -> int:
    """Search for slices where B loses more to A than elsewhere.

    They are of metadata, labels, words or clusters of texts.
    A and B are models, candidates, releases or prediction files. What is reported was searched on one
    half of the split and confirmed on the other. Exit code 0: nothing found; 1: something.
    """
    import msgspec

    from jettison.decide.predictions import complete, is_prediction_file, read_predictions
    from jettison.evaluate.run import evaluate
    from jettison.files import value_sha256, write_json
    from jettison.loop.suites import find_slices, opened
    from jettison.task.read import read_task

    task = read_task(task_file)
    given = {
        source: read_predictions(Path(source)).records for source in (a, b) if is_prediction_file(source)
    }
    models = [source for source in (a, b) if source not in given]
    sides: dict[str, tuple[Record, ...]] = {}
    with opened(models, task) as candidates:
        purpose = value_sha256(["find", a, b])
        examples = task.dev if split == "dev" else task.read_test(purpose=purpose).examples
        known = {example.id: example for example in examples}
        for source, candidate in zip(models, candidates, strict=True):
            sides[source] = tuple(evaluate(candidate, examples, split=split, scorers=task.scoring))
    for source, records in given.items():
        sides[source] = complete([r for r in records if r.example_id in known], known)
    found = find_slices(
        (a, sides[a]),
        (b, sides[b]),
        examples,
        scorer=scorer or task.scorers[0],
        split=split,
        alpha=alpha,
        seed=seed,
    )
    if output is not None:
        write_json(output, found)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2))
    else:
        _show_found(found)
    return 1 if found.slices else 0


def _show_found(found: "FoundSlices") -> None:
    from jettison.cli.tables import table, wide_console

    console = wide_console()
    console.print(
        f"{found.n_searched:,} subgroups searched on {found.n_search:,} {found.split} examples, "
        f"{found.n_tested} tested on {found.n_validate:,} others: {len(found.slices)} confirmed "
        f"(chance of any false one at most {100 * found.alpha:g} %)."
    )
    if not found.slices:
        return
    shown = table("slice", "loss, points", "elsewhere", "n", "p")
    for one in found.slices:
        shown.add_row(
            one.name,
            f"{100 * one.loss:.1f}",
            f"{100 * one.rest_loss:.1f}",
            f"{one.n:,}",
            f"{one.p_value:.2g}",
        )
    console.print(shown)
    for one in found.slices:
        console.print(f"{one.name}: A right, B wrong", markup=False)
        for text in one.examples[:5]:
            console.print(f"  {text}", markup=False, soft_wrap=True)


@command.command("lint")
@click.argument("task", type=click.Path(path_type=Path))
@click.option("--records", type=click.Path(path_type=Path), help="The incumbent's records or predictions.")
@click.option(
    "--embedder", type=click.Path(path_type=Path), help="Folder of an embedder: finds paraphrases."
)
@click.option("--margin", type=float, default=0.01, show_default=True, help="Of the gates.")
@click.option("--alpha", type=float, default=0.025, show_default=True, help="Of the gates.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def lint(
    task: Path, records: Path | None, embedder: Path | None, margin: float, alpha: float, as_json: bool
) -> int:
    """Look for what weakens a task.

    That is duplicates, leakage, doubtful labels, slices that are saturated or cannot decide.
    No model is asked. Exit code 0: notes at most; 1: warnings or errors.
    """
    import msgspec

    from jettison.decide.predictions import complete, read_predictions
    from jettison.evaluate.suites.lint import lint as look
    from jettison.task.read import read_task

    read = read_task(task)
    answered: tuple[Record, ...] = ()
    if records is not None:
        known = {e.id: e for e in (*read.dev, *read.test_for_inspection())}
        answered = complete(read_predictions(records).records, known)
    found = look(read, embedder=embedder, records=answered, margin=margin, alpha=alpha)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2))
    else:
        for one in found:
            click.echo(f"{one.severity}: {one.rule}: {one.message}")
            if one.examples:
                click.echo(f"    {', '.join(one.examples)}")
        click.echo(f"{len(found)} findings.")
    return 1 if any(one.severity != "note" for one in found) else 0


@command.command("check")
@click.argument("tests", type=click.Path(path_type=Path))
@click.argument("models", nargs=-1, required=True)
@click.option("--task", "task_file", type=click.Path(path_type=Path), required=True, help="task.toml")
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of perturbations."
)
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def check(tests: Path, models: tuple[str, ...], task_file: Path, seed: int, as_json: bool) -> int:
    """Run TESTS (JSONL or TOML rows: MFT, INV, DIR) on MODELS. Exit code 0: all hold; 1: some fail."""
    import msgspec

    from jettison.evaluate.suites.behaviour import read_tests
    from jettison.loop.suites import tested
    from jettison.task.read import read_task

    rows, task = read_tests(tests), read_task(task_file)
    found = {model: tested(model, task, rows, seed=seed) for model in models}
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2))
    else:
        _show_tests(found)
    return 0 if all(one.passed for results in found.values() for one in results) else 1


def _show_tests(found: "dict[str, tuple[BehaviourResult, ...]]") -> None:
    from rich.markup import escape

    from jettison.cli.tables import table, wide_console

    console = wide_console()
    called = {model: Path(model).name for model in found}
    if len(set(called.values())) < len(called):
        called = {model: model for model in found}
    is_about = any(one.capability for results in found.values() for one in results)
    about = ["about"] if is_about else []
    shown = table("test", *about, "type", "cases", *(f"failed: {name}" for name in called.values()))
    for row in zip(*found.values(), strict=True):
        cells = [
            f"{'[green]' if one.passed else '[red]'}{one.n_failed}[/] = {100 * one.failed_share:.1f} % "
            f"[dim]({100 * one.failed_low:.1f} to {100 * one.failed_high:.1f})[/]"
            for one in row
        ]
        about = [escape(row[0].capability)] if is_about else []
        shown.add_row(escape(row[0].name), *about, row[0].type, f"{row[0].n:,}", *cells)
    console.print(shown)
    for model, results in found.items():
        for one in results:
            if not one.passed:
                most = f", {100 * one.most_failures:g} % may" if one.most_failures else ""
                console.print(
                    f"{called[model]}, {one.name}: {one.n_failed:,} of {one.n:,} fail{most}", markup=False
                )
                for failure in one.failures[:5]:
                    console.print(f"  {failure}", markup=False, soft_wrap=True)


@command.command("gap")
@click.argument("a")
@click.argument("b")
@click.option("--task", "task_file", type=click.Path(path_type=Path), required=True, help="task.toml")
@click.option(
    "--split",
    type=click.Choice(("dev", "test")),
    default="dev",
    show_default=True,
    help="What the prediction learns from.",
)
@click.option("--store", type=click.Path(path_type=Path), help="Keep the prediction in this JSONL file.")
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of the folds."
)
@click.option("--json", "as_json", is_flag=True, help="Print the prediction as JSON.")
def gap(a: str, b: str, task_file: Path, split: str, store: Path | None, seed: int, as_json: bool) -> int:
    """Predict the scores of A and B on unlabelled traffic, and their gap.

    A and B are models, candidates or releases. Exit code 0, whatever is predicted.
    """
    import msgspec

    from jettison.evaluate.run import evaluate
    from jettison.files import value_sha256
    from jettison.loop.production import check_enough, keep_prediction, predict_production
    from jettison.loop.suites import opened
    from jettison.task.read import read_task

    task = read_task(task_file, needs_test=split == "test")
    check_enough(len(task.dev) if split == "dev" else task.n_test, len(task.unlabelled))
    with opened((a, b), task) as candidates:
        known = task.dev if split == "dev" else task.read_test(purpose=value_sha256(["gap", a, b])).examples
        sides = [
            (
                source,
                evaluate(candidate, known, split=split, scorers=task.scoring),
                evaluate(candidate, task.unlabelled, split="unlabelled", scorers=task.scoring),
            )
            for source, candidate in zip((a, b), candidates, strict=True)
        ]
    found = predict_production(
        sides[0], sides[1], known, task.unlabelled, scorer=task.scorers[0], seed=seed
    )
    if store is not None:
        keep_prediction(store, found)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2))
        return 0
    from jettison.cli.tables import table, wide_console

    console = wide_console()
    console.print(
        f"predicted {found.scorer} on {found.n_traffic:,} inputs of traffic, in %, from "
        f"{found.n_benchmark:,} {split} examples; A is {a}, B is {b}",
        soft_wrap=True,
        markup=False,
    )
    shown = table("of", split, "traffic", "95 % interval", "effective n")
    for one in found.predicted:
        shown.add_row(
            {"a": "A", "b": "B"}.get(one.of, "B - A"),
            f"{100 * one.benchmark:.1f}",
            f"{100 * one.value:.1f}",
            f"{100 * one.low:.1f} to {100 * one.high:.1f}",
            f"{one.effective_n:.0f}",
        )
    console.print(shown)
    console.print(found.words, soft_wrap=True, markup=False)
    if store is not None:
        console.print(
            f"kept in {store}; once traffic is labelled: "
            f"jettison label {task_file} --read FILE --store {store}",
            soft_wrap=True,
            markup=False,
        )
    return 0
