"""`jettison verify`: checks every byte of a release."""

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jettison.cli.terminal import no_fuss_when_nobody_reads, printable

if TYPE_CHECKING:
    from jettison.release import Release


@click.command("verify")
@click.argument("release", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def command(release: Path, as_json: bool) -> int:
    """Check every byte of RELEASE, and say what it is, how old its proof is and what it runs on.

    Exit code 0: whole; 1: whole, but past the date to which it was proved; 2: damaged, or no release.
    """
    from jettison.candidate import library_versions
    from jettison.release import verify_release

    found = verify_release(release)
    now = datetime.now(UTC)
    age_days = (now - _moment(found.proven_on)).days
    is_past = found.proven_until is not None and now.date() > date.fromisoformat(found.proven_until)
    here = library_versions(*(set(found.requires) - {"python", "jettison"}))
    differs = {name: here[name] for name, version in found.requires.items() if here[name] != version}
    told = {
        "release": str(found.path),
        "digest": found.digest,
        "task": found.task,
        "verdict": found.verdict,
        "candidates": found.candidates,
        "proven_on": found.proven_on,
        "proven_until": found.proven_until,
        "age_days": age_days,
        "is_past": is_past,
        "requires": found.requires,
        "differs_here": differs,
    }
    with no_fuss_when_nobody_reads():
        for line in [json.dumps(told, indent=2)] if as_json else _lines(found, age_days, is_past, differs):
            click.echo(line if as_json else printable(line))
    return 1 if is_past else 0


def _lines(found: "Release", age_days: int, is_past: bool, differs: dict[str, str]) -> Iterator[str]:
    """What people read of a release."""
    yield f"{found.path} is whole"
    yield f"  digest   {found.digest}"
    yield f"  task     {found.task}"
    yield f"  verdict  {found.verdict}: {found.headline}"
    until = f", good until {found.proven_until}" if found.proven_until else ""
    yield f"  proved   {found.proven_on} ({age_days} days ago){until}"
    yield f"  licence  {found.licence or 'unknown'}"
    for name, version in differs.items():
        yield f"  note     proved with {name} {found.requires[name]}, {version} here: answers may differ"
    if is_past:
        yield f"  hold     the proof is past {found.proven_until}: run the task again"


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
