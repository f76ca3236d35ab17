"""A release's whole route as one candidate: what answers a request is what is measured."""

from pathlib import Path

import msgspec

from jettison.candidate import Candidate, FileEntry
from jettison.errors import InvalidInput
from jettison.release.read import read_candidate
from jettison.release.types import Release
from jettison.route import Cascade, Route, Single, candidate_folders


def route_candidate(release: Release) -> Candidate:
    """What a release routes to, as one candidate of the release's name.

    A route of one candidate is that candidate, a cascade made by a step included. A cascade of several
    candidates of the release becomes one of backend `cascade` with the release's folder as its place;
    it is opened from this record, and no manifest of its own is written.

    Raises:
        InvalidInput: The route needs the gateway: shadows, splits, guardrails, upstreams.
        BrokenArtifact: A candidate is not there.
    """
    route = release.route
    if isinstance(route, Single):
        return msgspec.structs.replace(read_candidate(release, route.candidate), name=release.name)
    if not _is_cascade(route):
        folders = [str(release.path / folder) for folder in candidate_folders(route)]
        raise InvalidInput(
            "a release measured by itself must route to one candidate or a cascade of them, got a "
            f"{type(route).__name__.lower()} in {release.path}. Serve it (`jettison serve`) and measure "
            f"its address, or name one of its candidates: {folders[:4]}."
        )
    inner = {folder: read_candidate(release, folder) for folder in candidate_folders(route)}
    return Candidate(
        path=Path(release.path),
        name=release.name,
        backend="cascade",
        labels=release.labels,
        digest=release.digest,
        files=tuple(
            FileEntry(path=f"{folder}/{entry.path}", bytes=entry.bytes, sha256=entry.sha256)
            for folder, candidate in inner.items()
            for entry in candidate.files
        ),
        out_of_scope=release.out_of_scope,
        settings={"route": msgspec.to_builtins(route)},
        licence=release.licence,
    )


def _is_cascade(route: Route) -> bool:
    match route:
        case Single():
            return True
        case Cascade(lean=lean, fallback=fallback):
            return _is_cascade(lean) and _is_cascade(fallback)
    return False
