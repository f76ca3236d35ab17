"""`jettison traffic`: what each arm of the traffic cost and how its answers moved, day by day."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

if TYPE_CHECKING:
    from jettison.monitor.traffic_tables import Amount, CostRow, DriftRow, Share
    from jettison.release import Release


@click.command("traffic")
@click.argument("log", type=click.Path(path_type=Path))
@click.option(
    "--release",
    type=click.Path(path_type=Path),
    help="Whose reference profile the answers are compared with; else each arm's first day is.",
)
@click.option(
    "--alpha",
    type=float,
    default=0.01,
    show_default=True,
    help="Probability of any false finding in the drift table.",
)
@click.option("--days", type=int, default=14, show_default=True, help="Newest days shown; --json has all.")
@click.option(
    "--markdown",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write all tables there too, as Markdown.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    log: Path, release: Path | None, alpha: float, days: int, markdown: Path | None, as_json: bool
) -> int:
    """Add up the whole traffic LOG: cost and drift tables by day and arm.

    Segments are read out of core by DuckDB (extra `live`), together with what is still in the live
    file; the gateway may go on writing. Memory does not grow with the log.
    """
    import msgspec

    from jettison.errors import InvalidInput
    from jettison.files import write_atomic
    from jettison.monitor.drift import sketch_of
    from jettison.monitor.log import find_log
    from jettison.monitor.tally_log import tally_log
    from jettison.monitor.traffic_tables import cost_rows, drift_rows
    from jettison.release import read_profile

    if not 0 < alpha < 1:
        raise InvalidInput(f"--alpha must be in (0, 1), got {alpha}.")
    if days < 1:
        raise InvalidInput(f"--days must be at least 1, got {days}.")
    opened = _opened(release)
    sketch = sketch_of(read_profile(opened)) if opened is not None else None
    tally = tally_log(
        find_log(log),
        candidates=tuple(opened.candidates.values()) if opened is not None else None,
        labels=tuple(sketch.categories.get("label", ())) if sketch is not None else None,
    )
    costs, drift = cost_rows(tally), drift_rows(tally, sketch, alpha=alpha)
    if markdown is not None:
        every = {row.day for row in costs}
        write_atomic(markdown, _markdown((_requests(costs), _spent(costs), _moved(drift, every))))
    if as_json:
        told = {"costs": msgspec.to_builtins(costs), "drift": msgspec.to_builtins(drift)}
        click.echo(json.dumps(told, indent=2))
        return 0
    there = {row.day for row in costs if row.day != "all"}
    newest = {"all", *sorted(there)[-days:]}
    shown = [row for row in costs if row.day in newest]
    _show((_requests(shown), _spent(shown), _moved(drift, newest)), left_out=len(there) + 1 - len(newest))
    return 0


def _opened(release: Path | None) -> "Release | None":
    from jettison.release import open_release

    return None if release is None else open_release(release)


class _Table(NamedTuple):
    title: str
    note: str
    headers: tuple[str, ...]
    rows: "Sequence[tuple[str, ...]]"


def _requests(rows: "Sequence[CostRow]") -> _Table:
    shown = []
    for row in rows:
        latency = {one.share: f"{one.value_s:.3g} s" for one in row.latency_s}
        shown.append(
            (
                row.day,
                row.arm or "–",
                f"{row.n_requests:,}",
                f"{row.n_calls:,}",
                _share(row.errors),
                _share(row.escalated),
                *(latency.get(share, "–") for share in (0.5, 0.95, 0.99)),
            )
        )
    headers = ("day", "arm", "requests", "calls", "errors", "escalated", "p50", "p95", "p99")
    return _Table("Requests", "shares with 95 % intervals; latency to 1 %", headers, shown)


def _spent(rows: "Sequence[CostRow]") -> _Table:
    shown = []
    for row in rows:
        of, money = row.amounts, row.amounts["price_usd"]
        tier = f" ({', '.join(row.energy_tiers)})" if row.energy_tiers else ""
        per = None if money is None or money.per_request is None else 1000 * money.per_request
        shown.append(
            (
                row.day,
                row.arm or "–",
                _amount(of["prompt_tokens"], ""),
                _amount(of["completion_tokens"], ""),
                _amount(money, " $"),
                "–" if per is None else f"{per:.4g} $",
                _amount(of["cpu_s"], " s"),
                _amount(of["energy_j"], f" J{tier}"),
            )
        )
    headers = ("day", "arm", "tokens in", "out", "money", "a 1,000 requests", "CPU", "energy")
    return _Table("What they took", "in brackets: share of the calls that brought it", headers, shown)


def _moved(rows: "Sequence[DriftRow]", days: set[str]) -> _Table:
    shown = [
        (
            row.day,
            row.arm or "–",
            row.name,
            row.against,
            f"{row.n:,}",
            "–" if row.moved is None else f"{row.moved:.1%}",
            "–" if row.p_adjusted is None else f"{row.p_adjusted:.2g}",
        )
        for row in rows
        if row.has_drifted and row.day in days
    ]
    n_moved = sum(row.has_drifted for row in rows)
    note = f"{n_moved} of {len(rows)} distributions of an arm's day moved by at least 5 %"
    return _Table("Drift", note, ("day", "arm", "what", "against", "n", "moved", "p, all tests"), shown)


def _show(tables: tuple[_Table, ...], *, left_out: int) -> None:
    from rich.console import Console
    from rich.markup import escape

    from jettison.cli.tables import table

    console = Console(highlight=False)
    for one in tables:
        console.print(f"[bold]{one.title}[/]  [dim]{one.note}[/]")
        shown = table(*one.headers)
        for row in one.rows:
            shown.add_row(*map(escape, row))
        if one.rows:
            console.print(shown)
        console.print()
    if left_out > 0:
        console.print(f"[dim]{left_out} earlier days are in the sums and not shown (--days)[/]")


def _markdown(tables: tuple[_Table, ...]) -> str:
    parts = ["# The traffic log, by day and arm"]
    for one in tables:
        parts.append(f"## {one.title}\n\n{one.note[:1].upper()}{one.note[1:]}.")
        lines = [one.headers, tuple("---" for _ in one.headers), *one.rows]
        if one.rows:
            parts.append("\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines))
    return "\n\n".join(parts) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _share(share: "Share | None") -> str:
    return "–" if share is None else f"{share.value:.2%} ({share.low:.2%} to {share.high:.2%})"


def _amount(amount: "Amount | None", unit: str) -> str:
    if amount is None:
        return "–"
    known = "" if amount.known_share == 1 else f" [{amount.known_share:.0%}]"
    figure = f"{amount.total:,.0f}" if amount.total >= 1000 else f"{amount.total:.4g}"
    return f"{figure}{unit}{known}"
