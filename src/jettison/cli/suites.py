"""`jettison suites`: tiers and slices that show where a lean model fails, made from a team's own task."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from jettison.evaluate.suites.build import Suite

_TIERS = ("in_domain", "long_tail", "out_of_domain", "perturbed", "adversarial", "safety")


@click.group("suites")
def command() -> None:
    """Build suites, attack models, find slices where they lose, lint a task, run tests written as data."""


@command.command("build")
@click.argument("task", type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), default=Path("suite"), show_default=True)
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
@click.option("--seed", type=int, default=0, show_default=True)
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
    seed: int,
    as_json: bool,
) -> int:
    """Make tiers of TASK: in_domain, long_tail, out_of_domain, perturbed, adversarial, safety.

    OUTPUT is a task folder: point `task` in jettison.toml at it, or compare with --task.
    """
    import msgspec

    from jettison.cli.progress import Screen
    from jettison.errors import InvalidInput
    from jettison.evaluate.suites.attack import attacked_examples
    from jettison.evaluate.suites.build import SuitePlan, build_suite
    from jettison.evaluate.suites.perturbations import PERTURBATIONS
    from jettison.loop.suites import answers_of, drawn
    from jettison.loop.suites import attacked as attack
    from jettison.task.read import read_task

    if models and len(models) != 2:
        raise InvalidInput(f"--model must be given twice, for two models, got {len(models)}.")
    read = read_task(task)
    made: list[Any] = []
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
        if models:
            one, other = (answers_of(model, read, examples) for model in models)
            disagree = {e.id: a != b for e, a, b in zip(examples, one, other, strict=True)}
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
        seed=seed,
    )
    suite = build_suite(read, plan, output)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(suite), indent=2))
    else:
        _show_suite(suite)
    return 0


def _given(named: tuple[str, ...]) -> dict[str, tuple[Path, ...]]:
    from jettison.errors import InvalidInput

    found: dict[str, tuple[Path, ...]] = {}
    for one in named:
        tier, equals, path = one.partition("=")
        if not equals or not path:
            raise InvalidInput(f"--given must be TIER=FILE, got {one!r}.")
        found[tier] = (*found.get(tier, ()), Path(path))
    return found


def _show_suite(suite: "Suite") -> None:
    from rich.console import Console

    from jettison.cli.tables import table
    from jettison.stats.planning import smallest_certifiable_margin

    console = Console(highlight=False)
    shown = table("tier", "examples", "smallest margin, points", "gate")
    for tier, n in suite.n.items():
        slice_name = f"{tier}=yes" if tier == "long_tail" else f"tier={tier}"
        margin = f"{100 * smallest_certifiable_margin(n):.2g}" if n else "–"
        shown.add_row(tier, f"{n:,}", margin, "yes" if slice_name in suite.required else "")
    console.print(shown)
    console.print("[dim]smallest margin: what so many examples can certify when no answer changes[/]")
    for note in suite.notes:
        console.print(f"left out: {note}", soft_wrap=True, markup=False)
    console.print(f"written: {Path(suite.folder) / 'task.toml'}", soft_wrap=True, markup=False)
