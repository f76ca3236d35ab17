"""Whether a release brings its proof: digests, decision, age."""

from datetime import UTC, date, datetime
from pathlib import Path

import msgspec

from jettison.decision import Verdict
from jettison.errors import InvalidInput
from jettison.release import Release, read_decision, verify_release
from jettison.serve.config import ProofConfig


class Proven(msgspec.Struct, frozen=True, kw_only=True):
    """A release with what is known of its proof."""

    release: Release
    age_days: float
    doubts: tuple[str, ...]
    """Why it would not be served, a short code each; empty for one that is proved."""


def open_proven(folder: Path, config: ProofConfig, *, now: datetime | None = None) -> Proven:
    """Verify a release and judge its proof.

    Args:
        folder: Of the release.
        config: How old a decision may be, and whether to serve without proof.
        now: Clock; None reads the system's.

    Raises:
        InvalidInput: Its proof does not do, and `unproven` was not asked for.
        BrokenArtifact: Digests do not match. That no flag excuses.
    """
    release = verify_release(folder)
    moment = now or datetime.now(UTC)
    proven_on = datetime.fromisoformat(release.proven_on)
    proven_on = proven_on if proven_on.tzinfo else proven_on.replace(tzinfo=UTC)
    age_days = (moment - proven_on).total_seconds() / 86400
    doubts = _doubts(release, config, age_days, moment.date())
    if doubts and not config.unproven:
        reasons = "; ".join(words for _, words in doubts)
        raise InvalidInput(
            f"a release to serve must bring its proof, got {folder}: {reasons}. "
            "Run the task again, or serve it with --unproven, which every page will say."
        )
    return Proven(release=release, age_days=age_days, doubts=tuple(code for code, _ in doubts))


def _doubts(release: Release, config: ProofConfig, age_days: float, today: date) -> list[tuple[str, str]]:
    found = []
    try:
        verdict = read_decision(release).verdict
    except InvalidInput:
        found.append(("no_decision", "its decision cannot be read"))
    else:
        if verdict != Verdict.SHIP or release.verdict != Verdict.SHIP.value:
            found.append(("hold", f"its decision says {verdict.value}"))
    if config.max_age_days is not None and age_days > config.max_age_days:
        found.append(("too_old", f"it was proved {age_days:.0f} days ago, over {config.max_age_days:g}"))
    if release.proven_until is not None and today > date.fromisoformat(release.proven_until):
        found.append(("past_date", f"its proof is past {release.proven_until}"))
    return found
