"""Task files in, examples and splits out."""

from jettison.task.read import read_task
from jettison.task.types import (
    SPLITS,
    Development,
    Example,
    Finding,
    Input,
    Passage,
    Question,
    Split,
    Task,
    TaskKind,
    TestReading,
)

__all__ = [
    "SPLITS",
    "Development",
    "Example",
    "Finding",
    "Input",
    "Passage",
    "Question",
    "Split",
    "Task",
    "TaskKind",
    "TestReading",
    "read_task",
]
