"""What a release says of itself, in `release.json`."""

from pathlib import Path

import msgspec

from jettison.route import Route

FORMAT = 1
RELEASE_FILE = "release.json"
DECISION_FILE = "decision.json"
PROFILE_FILE = "profile.json"
CARD_FILE = "README.md"
EVIDENCE_FOLDER = "evidence"
CHECKSUMS = "MANIFEST"
"""SHA-256 of every other file, in the format of `sha256sum`."""


class ReleaseFacts(msgspec.Struct, frozen=True, kw_only=True):
    """`release.json`: a release without its place."""

    name: str
    created: str
    """ISO 8601, UTC."""
    task: str
    route: Route
    """Who answers; folders are relative to the release."""
    candidates: dict[str, str]
    """Folder to digest of each candidate."""
    labels: tuple[str, ...]
    out_of_scope: str | None
    verdict: str
    headline: str
    """The decision in one sentence."""
    decision_digest: str
    """SHA-256 of `decision.json`."""
    evidence: dict[str, str]
    """Name in `evidence/` to SHA-256 of each file of records the decision was made on."""
    profile_digest: str
    """SHA-256 of `profile.json`."""
    licence: str | None
    """SPDX expression of the candidate; None where nobody has said."""
    requires: dict[str, str]
    """Package to the version it was proved with. Another version may answer differently."""
    proven_on: str
    """When the decision was made, ISO 8601."""
    proven_until: str | None = None
    """Date, ISO 8601, after which its owner wants the evidence gathered anew; None sets no date."""
    format: int = FORMAT


class Release(ReleaseFacts, frozen=True, kw_only=True):
    """A release on disk."""

    path: Path
    digest: str
    """SHA-256 of its `MANIFEST`: pins every byte of the release."""
