"""A candidate: a model on disk in an open format, with the steps that made it.

A candidate is a folder. `candidate.json` names the backend that opens it, its labels,
its settings, its calibration and the digest of every file; the weights stand beside it.
"""

import platform
import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import msgspec

from jettison.errors import BrokenArtifact, InvalidInput, JettisonError, UnsafeArtifact
from jettison.files import file_sha256, read_json, value_sha256, write_json

FORMAT = 1
MANIFEST = "candidate.json"
UNSAFE_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".joblib", ".ckpt", ".h5"})


class FileEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One file of an artifact."""

    path: str
    """Relative to the artifact's folder, with forward slashes."""
    bytes: int
    sha256: str


class AppliedStep(msgspec.Struct, frozen=True, kw_only=True):
    """One link of a lineage: what was done, with every setting resolved."""

    step: str
    settings: dict[str, Any]
    seed: int
    versions: dict[str, str]
    """Version of each library that did the work."""
    parents: tuple[str, ...]
    """Digests of the candidates it was made from."""
    data_digest: str | None = None
    """Digest of the development data it read; None when it read none."""
    duration_s: float | None = None
    notes: dict[str, Any] = msgspec.field(default_factory=dict)
    """What the step measured of itself: parity differences, losses, out-of-vocabulary rate."""


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """Turns raw logits into confidences that mean the same for every candidate. Fitted on dev."""

    temperature: float = 1.0
    """Logits are divided by it before the softmax. Guo et al. 2017."""
    scope_rule: Literal["max_probability", "energy"] = "max_probability"
    """What tells in-scope inputs from others: the largest in-scope probability, as most services
    use it, or the log-sum-exp of the in-scope logits. Liu et al. 2020, energy-based detection."""
    scope_quantiles: tuple[float, ...] | None = None
    """Scope scores of in-scope dev examples at evenly spaced quantiles 0..1, ascending."""
    false_alarm_share: float = 0.05
    """Share of in-scope inputs that may be flagged as out of scope."""
    data_digest: str | None = None
    scales: tuple[float, ...] | msgspec.UnsetType = msgspec.UNSET
    """Vector scaling: each label's logit is multiplied by its own number, and `biases` added, for the
    confidence alone; the answer stays the arg-max of the raw logits. Not written where unused."""
    biases: tuple[float, ...] | msgspec.UnsetType = msgspec.UNSET
    knots: tuple[tuple[float, float], ...] | msgspec.UnsetType = msgspec.UNSET
    """Isotonic map: confidence at the temperature → confidence, ascending in both, linear between."""


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """An artifact with its lineage."""

    path: Path
    name: str
    backend: str
    labels: tuple[str, ...]
    """In the order of the logits."""
    digest: str
    """Identity of what answers: files, backend, labels, settings and calibration."""
    files: tuple[FileEntry, ...] = ()
    out_of_scope: str | None = None
    settings: dict[str, Any] = msgspec.field(default_factory=dict)
    """How the backend runs it: threads, precision, max_tokens, batch_size, ..."""
    calibration: Calibration = msgspec.field(default_factory=Calibration)
    lineage: tuple[AppliedStep, ...] = ()
    """First step first."""
    licence: str | None = None
    format: int = FORMAT

    @classmethod
    def at(cls, path: Path | str) -> "Candidate":
        """Read the candidate in a folder.

        Raises:
            InvalidInput: The folder holds no `candidate.json`, or one that does not fit.
        """
        folder = Path(path)
        stored = read_json(folder / MANIFEST, _Manifest)
        if stored.format > FORMAT:
            raise InvalidInput(
                f"{folder / MANIFEST} must be of format {FORMAT} or older, got {stored.format}. "
                "Upgrade jettison to open it."
            )
        return cls(path=folder, **{name: getattr(stored, name) for name in stored.__struct_fields__})

    @property
    def artifact_bytes(self) -> int:
        """Size on disk of everything that is needed to answer."""
        return sum(entry.bytes for entry in self.files)


class _Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """`candidate.json`: a candidate without its place."""

    name: str
    backend: str
    labels: tuple[str, ...]
    digest: str
    files: tuple[FileEntry, ...] = ()
    out_of_scope: str | None = None
    settings: dict[str, Any] = msgspec.field(default_factory=dict)
    calibration: Calibration = msgspec.field(default_factory=Calibration)
    lineage: tuple[AppliedStep, ...] = ()
    licence: str | None = None
    format: int = FORMAT


def write_candidate(
    folder: Path,
    *,
    name: str,
    backend: str,
    labels: Sequence[str],
    out_of_scope: str | None = None,
    settings: Mapping[str, Any] | None = None,
    calibration: Calibration | None = None,
    lineage: Sequence[AppliedStep] = (),
    licence: str | None = None,
) -> Candidate:
    """Make a candidate of the files that already stand in a folder: digest them, write the manifest.

    Raises:
        UnsafeArtifact: One of the files could run code when opened.
        InvalidInput: Only one label, or one label twice.
    """
    # No labels at all: the answers are free text, or the examples bring their own choices.
    if len(set(labels)) != len(labels) or len(labels) == 1:
        raise InvalidInput(f"labels must be at least two and all different, got {list(labels)[:12]}.")
    check_safe(folder)
    entries = list_files(folder)
    manifest = _Manifest(
        name=name,
        backend=backend,
        labels=tuple(labels),
        digest="",
        files=entries,
        out_of_scope=out_of_scope,
        settings=dict(settings or {}),
        calibration=calibration or Calibration(),
        lineage=tuple(lineage),
        licence=licence,
    )
    manifest = msgspec.structs.replace(manifest, digest=_digest(manifest))
    write_json(folder / MANIFEST, manifest)
    return Candidate.at(folder)


CUT_NOTE = "cut_short_by_deadline"
"""Note of what a deadline made a step leave out or do otherwise."""
ARMS = ("lean", "fallback")
"""Folders in a cascade's own that hold its arms, each a whole candidate."""


class PartLineage(msgspec.Struct, frozen=True, kw_only=True):
    """The steps behind one part of a candidate that are behind no part before it."""

    part: str
    """Its name; empty for what the whole, or several parts, came from."""
    steps: tuple[AppliedStep, ...]


def lineage_by_part(candidate: Candidate) -> tuple[PartLineage, ...]:
    """Every step behind a candidate, those of a cascade's arms too, which its own lineage has but one of.

    A step that several arms share stands once, before all; the cascade's own come last.
    """
    leaves = _leaves(candidate)
    if len(leaves) < 2:
        return (PartLineage(part="", steps=candidate.lineage),)
    behind = [{value_sha256(_undated(step)) for step in steps} for _, steps in leaves]
    seen: set[str] = set()
    parts: dict[str, list[AppliedStep]] = {"": []}
    for name, steps in leaves:
        for step in steps:
            key = value_sha256(_undated(step))
            if key in seen:
                continue
            seen.add(key)
            n_having = sum(key in one for one in behind)
            parts.setdefault("" if n_having > 1 else name, []).append(step)
    return tuple(PartLineage(part=part, steps=tuple(steps)) for part, steps in parts.items() if steps)


def _leaves(candidate: Candidate) -> list[tuple[str, tuple[AppliedStep, ...]]]:
    """Name and steps of each arm that is no cascade, of each cascade its steps after its arms'."""
    arms = [
        Candidate.at(candidate.path / arm) for arm in ARMS if (candidate.path / arm / MANIFEST).is_file()
    ]
    if not arms:
        return [(candidate.name, candidate.lineage)]
    own = candidate.lineage[len(arms[0].lineage) :]
    return [*(leaf for arm in arms for leaf in _leaves(arm)), (candidate.name, own)]


def _undated(step: AppliedStep) -> AppliedStep:
    """Without the readings of a clock, which arms do not keep."""
    return msgspec.structs.replace(step, duration_s=None, notes={})


def verify_candidate(candidate: Candidate) -> None:
    """Check every byte of a candidate against its manifest.

    Raises:
        BrokenArtifact: A file is missing, altered or was added.
    """
    found = {entry.path: entry for entry in list_files(candidate.path)}
    for entry in candidate.files:
        if entry.path not in found:
            raise BrokenArtifact(f"{candidate.path / entry.path} must be there, got nothing.")
        if found[entry.path] != entry:
            raise BrokenArtifact(
                f"{candidate.path / entry.path} must have SHA-256 {entry.sha256[:12]}…, "
                f"got {found[entry.path].sha256[:12]}…. Make the candidate again."
            )
    extra = sorted(set(found) - {entry.path for entry in candidate.files})
    if extra:
        raise BrokenArtifact(f"{candidate.path} must hold only its own files, got {extra[0]} too.")
    if _digest(candidate) != candidate.digest:
        raise BrokenArtifact(
            f"{candidate.path / MANIFEST} must have digest {candidate.digest[:12]}…, "
            f"got {_digest(candidate)[:12]}…: settings or calibration were edited."
        )


def find_intact(folder: Path) -> Candidate | None:
    """The candidate an earlier run left in a cache folder; None when it is not there or damaged."""
    try:
        found = Candidate.at(folder)
        intact = all((folder / f.path).stat().st_size == f.bytes for f in found.files)
    except (JettisonError, OSError):
        return None
    return found if intact else None


def find_verified(folder: Path) -> Candidate | None:
    """Like `find_intact`, but every file is read against its digest, and a damaged folder is removed.

    For what everything else is judged by: the incumbent. Sizes alone would let a flipped bit through.
    """
    try:
        found = Candidate.at(folder)
        verify_candidate(found)
    except (BrokenArtifact, InvalidInput):
        shutil.rmtree(folder, ignore_errors=True)
        return None
    return found


def list_files(folder: Path) -> tuple[FileEntry, ...]:
    """Every file of an artifact but its own manifest, by path, with size and digest."""
    return tuple(
        FileEntry(
            path=path.relative_to(folder).as_posix(),
            bytes=path.stat().st_size,
            sha256=file_sha256(path),
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / MANIFEST
    )


def check_safe(folder: Path) -> None:
    """Refuse a folder with weights in a format that can run code.

    Raises:
        UnsafeArtifact: There is such a file.
    """
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in UNSAFE_SUFFIXES and not _is_openvino_weights(path):
            raise UnsafeArtifact(
                f"weights must be safetensors, ONNX or GGUF, got {path}. "
                "Convert it with `save_pretrained(..., safe_serialization=True)`."
            )


def library_versions(*packages: str) -> dict[str, str]:
    """Installed versions of the named packages, of Python and of jettison."""
    found = {"python": platform.python_version()}
    for package in ("jettison", *packages):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _is_openvino_weights(path: Path) -> bool:
    """OpenVINO keeps raw tensors in `name.bin` beside `name.xml`; they are data, not pickle."""
    return path.suffix == ".bin" and path.with_suffix(".xml").exists()


def _digest(manifest: "_Manifest | Candidate") -> str:
    return value_sha256(
        {
            "backend": manifest.backend,
            "labels": manifest.labels,
            "out_of_scope": manifest.out_of_scope,
            "settings": manifest.settings,
            "calibration": manifest.calibration,
            "files": manifest.files,
        }
    )


Precision = Literal["float32", "bfloat16", "int8", "int4"]
