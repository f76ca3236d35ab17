"""Opens a release and checks every byte of it."""

from datetime import date, datetime
from pathlib import Path

import msgspec

from jettison.candidate import Candidate, verify_candidate
from jettison.decision import Decision
from jettison.errors import BrokenArtifact, InvalidInput
from jettison.files import decode_json, file_sha256, read_json
from jettison.release.profile import Profile
from jettison.release.types import (
    CHECKSUMS,
    DECISION_FILE,
    FORMAT,
    PROFILE_FILE,
    RELEASE_FILE,
    Release,
    ReleaseFacts,
)
from jettison.route import candidate_folders


def open_release(folder: Path | str, *, verify: bool = True) -> Release:
    """Read a release.

    Args:
        folder: Where it stands.
        verify: Check every byte first; False trusts the disk.

    Raises:
        InvalidInput: There is no release, or it is of a later format.
        BrokenArtifact: A file is missing, altered or was added.
    """
    path = Path(folder)
    if not (path / RELEASE_FILE).is_file():
        made = path / "release"
        way = f" The release of this run is {made}." if (made / RELEASE_FILE).is_file() else ""
        raise InvalidInput(f"{path} must be a release, got a place without {RELEASE_FILE}.{way}")
    version = _format_of(path / RELEASE_FILE)
    if version > FORMAT:
        raise InvalidInput(
            f"{path / RELEASE_FILE} must be of format {FORMAT} or older, got {version}. "
            "Upgrade jettison to open it."
        )
    if verify:
        _check_bytes(path)
    try:
        facts = read_json(path / RELEASE_FILE, ReleaseFacts)
        digest = file_sha256(path / CHECKSUMS)
    except (InvalidInput, FileNotFoundError) as error:
        raise BrokenArtifact(f"{path} is no complete release: {error}") from error
    _check_dates(facts, path / RELEASE_FILE)
    stored = {name: getattr(facts, name) for name in ReleaseFacts.__struct_fields__}
    release = Release(path=path, digest=digest, **stored)
    for inner in candidate_folders(release.route):
        # A route must not lead out of the release, whoever wrote it.
        if not (path / inner).resolve().is_relative_to(path.resolve()):
            raise BrokenArtifact(f"{path / RELEASE_FILE} must route to its own candidates, got {inner!r}.")
    return release


def verify_release(folder: Path | str) -> Release:
    """Check every byte, and that the parts belong together: digests of candidates, decision, evidence.

    Raises:
        InvalidInput: There is no release, or it is of a later format.
        BrokenArtifact: Something is missing, altered, added or of another release.
    """
    release = open_release(folder)
    for inner, digest in release.candidates.items():
        candidate = read_candidate(release, inner)
        verify_candidate(candidate)
        _check_same(release.path / inner, candidate.digest, digest)
    _check_same(
        release.path / DECISION_FILE, file_sha256(release.path / DECISION_FILE), release.decision_digest
    )
    _check_same(
        release.path / PROFILE_FILE, file_sha256(release.path / PROFILE_FILE), release.profile_digest
    )
    for name, digest in release.evidence.items():
        path = release.path / "evidence" / name
        if not path.resolve().is_relative_to((release.path / "evidence").resolve()):
            raise BrokenArtifact(f"{release.path / RELEASE_FILE} must name its own evidence, got {name!r}.")
        if not path.is_file():
            raise BrokenArtifact(f"{path} must be there, got nothing.")
        _check_same(path, file_sha256(path), digest)
    return release


def read_candidate(release: Release, folder: str) -> Candidate:
    """A candidate of a release.

    Raises:
        BrokenArtifact: It is not there.
    """
    try:
        return Candidate.at(release.path / folder)
    except InvalidInput as error:
        raise BrokenArtifact(f"{release.path} is no complete release: {error}") from error


def read_decision(release: Release) -> Decision:
    """The decision that earned the release."""
    return read_json(release.path / DECISION_FILE, Decision)


def read_profile(release: Release) -> Profile:
    """What inputs and answers looked like at release."""
    return read_json(release.path / PROFILE_FILE, Profile)


def read_checksums(path: Path) -> dict[str, str]:
    """Path to SHA-256 of each file of a release, from its `MANIFEST`.

    Raises:
        BrokenArtifact: The manifest is missing or not in the format of `sha256sum`.
    """
    try:
        lines = (path / CHECKSUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BrokenArtifact(f"{path / CHECKSUMS} must be readable text, got {error}.") from error
    found = {}
    for number, line in enumerate(lines, 1):
        digest, separator, name = line.partition("  ")
        if not separator or len(digest) != 64 or not name:
            raise BrokenArtifact(f"{path / CHECKSUMS} must have a digest and a path at line {number}.")
        found[name] = digest
    return found


def list_release_files(path: Path) -> list[str]:
    """Every file of a release but its `MANIFEST`, by relative path, sorted."""
    return sorted(
        file.relative_to(path).as_posix()
        for file in path.rglob("*")
        if (file.is_file() or file.is_symlink()) and file != path / CHECKSUMS
    )


def _check_bytes(path: Path) -> None:
    expected = read_checksums(path)
    there = list_release_files(path)
    for name in sorted(set(expected) - set(there)):
        raise BrokenArtifact(f"{path / name} must be there, got nothing. Copy the release again.")
    for name in there:
        if name not in expected:
            raise BrokenArtifact(f"{path} must hold only its own files, got {name} too.")
        if (path / name).is_symlink():
            raise BrokenArtifact(f"{path / name} must be a file of the release, got a link.")
        _check_same(path / name, _sha256(path / name), expected[name])


def _sha256(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise BrokenArtifact(f"{path} must be a readable file, got {error.strerror}.") from error


def _check_dates(facts: ReleaseFacts, path: Path) -> None:
    for name, kind in (("proven_on", datetime), ("proven_until", date)):
        value = getattr(facts, name)
        try:
            if value is not None:
                kind.fromisoformat(value)
        except ValueError as error:
            raise BrokenArtifact(
                f"{name} must be a date as 2027-01-31, got {value!r} in {path}."
            ) from error


def _check_same(path: Path, found: str, expected: str) -> None:
    if found != expected:
        raise BrokenArtifact(
            f"{path} must have digest {expected[:12]}…, got {found[:12]}…: it was altered. "
            "Copy the release again."
        )


def _format_of(path: Path) -> int:
    """Format number of a release, whatever the rest of it looks like."""

    class Format(msgspec.Struct):
        format: int

    try:
        return decode_json(path.read_bytes(), Format).format
    except OSError as error:
        raise BrokenArtifact(f"{path} must be a readable file, got {error.strerror}.") from error
    except msgspec.DecodeError as error:
        raise BrokenArtifact(f"{path} must be a release file: {error}.") from error
