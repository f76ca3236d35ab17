"""Writes a release: candidate, decision, evidence, profile and card, in one immutable folder."""

import shutil
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path

from jettison.candidate import Candidate, library_versions, verify_candidate
from jettison.decision import CandidateReport, Decision
from jettison.errors import InvalidInput
from jettison.files import file_sha256, folder_atomic, write_atomic, write_json
from jettison.release.card import model_card
from jettison.release.profile import Profile
from jettison.release.read import list_release_files, open_release
from jettison.release.types import (
    CARD_FILE,
    CHECKSUMS,
    DECISION_FILE,
    EVIDENCE_FOLDER,
    PROFILE_FILE,
    RELEASE_FILE,
    Release,
    ReleaseFacts,
)
from jettison.route import Single

PACKAGES = {
    "hf": ("torch", "transformers", "tokenizers"),
    "onnx": ("onnxruntime", "tokenizers"),
    "openvino": ("openvino", "tokenizers"),
    "static": ("tokenizers",),
    "embedder": ("onnxruntime", "tokenizers"),
}
"""What each built-in backend needs besides numpy."""


def write_release(
    folder: Path | str,
    *,
    candidate: Candidate,
    decision: Decision,
    evidence: Sequence[Path],
    task_name: str,
    profile: Profile,
    notes: Sequence[str] = (),
    proven_until: str | None = None,
    now: datetime | None = None,
) -> Release:
    """Write a release of the candidate a decision has chosen.

    Args:
        folder: Must not be there yet; its name is the release's name.
        candidate: Copied whole.
        decision: Must have chosen this candidate.
        evidence: Files of records that the decision was made on, copied.
        task_name: What it is good at.
        profile: Of the reference inputs, for later drift checks.
        notes: Sentences for the model card, beside the decision's caveats.
        proven_until: ISO date after which the evidence should be gathered anew.
        now: Clock; None reads the system's.

    Raises:
        InvalidInput: The folder is there already, the decision has not chosen this
            candidate, or an evidence file is missing.
        BrokenArtifact: The candidate's files are not as its manifest says.
        CannotWrite: The disk is full or the folder read-only; nothing is left there.
    """
    path = Path(folder)
    _check_new(path)
    report = _report_of(candidate, decision)
    _check_date(proven_until)
    verify_candidate(candidate)
    created = (now or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="seconds")
    inner = "candidates/0"
    with folder_atomic(path) as partial:
        shutil.copytree(candidate.path, partial / inner)
        copied = _copy_evidence(evidence, partial / EVIDENCE_FOLDER)
        write_json(partial / DECISION_FILE, decision)
        write_json(partial / PROFILE_FILE, profile)
        facts = ReleaseFacts(
            name=path.name,
            created=created,
            task=task_name,
            route=Single(candidate=inner),
            candidates={inner: candidate.digest},
            labels=candidate.labels,
            out_of_scope=candidate.out_of_scope,
            verdict=decision.verdict.value,
            headline=decision.headline,
            decision_digest=file_sha256(partial / DECISION_FILE),
            evidence=copied,
            profile_digest=file_sha256(partial / PROFILE_FILE),
            licence=candidate.licence,
            requires=required_versions(partial / inner),
            proven_on=decision.created,
            proven_until=proven_until,
        )
        write_json(partial / RELEASE_FILE, facts)
        write_atomic(partial / CARD_FILE, model_card(facts, candidate, decision, report, notes=notes))
        _seal(partial)
        _check_new(path)
    return open_release(path)


def required_versions(folder: Path) -> dict[str, str]:
    """Installed versions of what the candidate in a folder, and the arms within it, run on."""
    backends = {Candidate.at(file.parent).backend for file in folder.rglob("candidate.json")}
    packages = sorted({package for backend in backends for package in PACKAGES.get(backend, ())})
    return library_versions("numpy", *packages)


def _check_new(path: Path) -> None:
    if path.exists():
        raise InvalidInput(
            f"a release must go to a new folder, got {path}, which is there already. "
            "A release is never overwritten: give the new one another name."
        )


def _check_date(proven_until: str | None) -> None:
    if proven_until is None:
        return
    try:
        date.fromisoformat(proven_until)
    except ValueError as error:
        raise InvalidInput(f"proven_until must be a date as 2027-01-31, got {proven_until!r}.") from error


def _report_of(candidate: Candidate, decision: Decision) -> CandidateReport:
    """What the decision found about the candidate, which it must have chosen."""
    reports = [report for report in decision.candidates if report.digest == candidate.digest]
    if not reports:
        raise InvalidInput(
            f"a release must hold a candidate that the decision judged, got {candidate.name!r} of digest "
            f"{candidate.digest[:12]}…. Decide again with this candidate."
        )
    for report in reports:
        if report.name == decision.chosen:
            return report
    raise InvalidInput(
        f"a release must hold the candidate that the decision chose, got {reports[0].name!r} where it "
        f"chose {decision.chosen!r}. {decision.headline}"
    )


def _copy_evidence(evidence: Sequence[Path], folder: Path) -> dict[str, str]:
    """Copy the files of records; two of one name get a number before it."""
    copied: dict[str, str] = {}
    for number, source in enumerate(evidence):
        if not source.is_file():
            raise InvalidInput(f"evidence must be files of records, got nothing at {source}.")
        name = source.name if source.name not in copied else f"{number}-{source.name}"
        folder.mkdir(exist_ok=True)
        shutil.copyfile(source, folder / name)
        copied[name] = file_sha256(folder / name)
    return copied


def _seal(folder: Path) -> None:
    """Write the checksums and take the right to write off every file."""
    names = list_release_files(folder)
    lines = [f"{file_sha256(folder / name)}  {name}\n" for name in names]
    write_atomic(folder / CHECKSUMS, "".join(lines))
    for name in (*names, CHECKSUMS):
        (folder / name).chmod(0o444)
