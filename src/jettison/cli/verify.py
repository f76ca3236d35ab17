"""`jettison verify`: checks every byte of a release."""

import json
from datetime import UTC, date, datetime
from pathlib import Path

import click


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
    if as_json:
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
        click.echo(json.dumps(told, indent=2))
        return 1 if is_past else 0
    click.echo(f"{found.path} is whole")
    click.echo(f"  digest   {found.digest}")
    click.echo(f"  task     {found.task}")
    click.echo(f"  verdict  {found.verdict}: {found.headline}")
    until = f", good until {found.proven_until}" if found.proven_until else ""
    click.echo(f"  proved   {found.proven_on} ({age_days} days ago){until}")
    click.echo(f"  licence  {found.licence or 'unknown'}")
    for name, version in differs.items():
        click.echo(
            f"  note     proved with {name} {found.requires[name]}, {version} here: answers may differ"
        )
    if is_past:
        click.echo(f"  hold     the proof is past {found.proven_until}: run the task again")
    return 1 if is_past else 0


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
