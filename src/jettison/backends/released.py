"""Opens a release as a model."""

from pathlib import Path

from jettison.backends.open import open_model
from jettison.errors import InvalidInput
from jettison.model import Model
from jettison.release import Release, open_release
from jettison.release.read import read_candidate
from jettison.route import Single


def open_release_model(release: Release | Path | str) -> Model:
    """Load what a release routes to, ready to predict.

    Args:
        release: An opened release, or its folder, which is then verified.

    Raises:
        InvalidInput: There is no release there, or its route needs a gateway.
        BrokenArtifact: It is damaged.
        MissingExtra: Its backend's library is not installed.
    """
    opened = release if isinstance(release, Release) else open_release(release)
    if not isinstance(opened.route, Single):
        raise InvalidInput(
            f"a release to predict with must route to one candidate, got a {type(opened.route).__name__}."
        )
    return open_model(read_candidate(opened, opened.route.candidate))
