"""Make the model you run lean, prove that it still does your job, and release it.

The public names, each imported when it is first used, so that `import jettison` is instant.
The verbs that share their name with a package stand in it: `jettison.evaluate.evaluate`,
`jettison.decide.decide`.
"""

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    "AtMost": "jettison.decision",
    "Candidate": "jettison.candidate",
    "Cost": "jettison.record",
    "Decision": "jettison.decision",
    "Example": "jettison.task",
    "JettisonError": "jettison.errors",
    "Model": "jettison.model",
    "NotShownWorse": "jettison.decision",
    "NotWorse": "jettison.decision",
    "Output": "jettison.model",
    "Record": "jettison.record",
    "Release": "jettison.release",
    "RunConfig": "jettison.loop.config",
    "Task": "jettison.task",
    "Verdict": "jettison.decision",
    "measure_costs": "jettison.cost.measure",
    "open_model": "jettison.backends.open",
    "open_release": "jettison.release",
    "open_release_model": "jettison.backends.released",
    "read_config": "jettison.loop.config",
    "read_records": "jettison.record",
    "read_task": "jettison.task.read",
    "run": "jettison.loop.run",
    "take_in": "jettison.compress.incumbent",
    "write_release": "jettison.release",
}

__all__ = [
    "AtMost",
    "Candidate",
    "Cost",
    "Decision",
    "Example",
    "JettisonError",
    "Model",
    "NotShownWorse",
    "NotWorse",
    "Output",
    "Record",
    "Release",
    "RunConfig",
    "Task",
    "Verdict",
    "measure_costs",
    "open_model",
    "open_release",
    "open_release_model",
    "read_config",
    "read_records",
    "read_task",
    "run",
    "take_in",
    "write_release",
]

if TYPE_CHECKING:
    from jettison.backends.open import open_model
    from jettison.backends.released import open_release_model
    from jettison.candidate import Candidate
    from jettison.compress.incumbent import take_in
    from jettison.cost.measure import measure_costs
    from jettison.decision import AtMost, Decision, NotShownWorse, NotWorse, Verdict
    from jettison.errors import JettisonError
    from jettison.loop.config import RunConfig, read_config
    from jettison.loop.run import run
    from jettison.model import Model, Output
    from jettison.record import Cost, Record, read_records
    from jettison.release import Release, open_release, write_release
    from jettison.task import Example, Task
    from jettison.task.read import read_task

    __version__: str


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("jettison")
    if name not in _HOME:
        raise AttributeError(f"module 'jettison' has no attribute {name!r}")
    found = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
