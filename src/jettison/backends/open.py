"""Opens a candidate as a model, by the backend that its manifest names."""

from jettison import registry
from jettison.backends.abstain import Abstaining, abstains
from jettison.candidate import Candidate
from jettison.model import Model


def open_model(candidate: Candidate) -> Model:
    """Load a candidate into memory, ready to predict.

    Raises:
        UnknownName: No backend of that name is installed.
        MissingExtra: The backend's library is not installed.
        BrokenArtifact: The files do not load.
    """
    opened: Model = registry.load("backends", candidate.backend)(candidate)
    if candidate.out_of_scope is not None and abstains(candidate):
        return Abstaining(opened, candidate.out_of_scope)
    return opened
