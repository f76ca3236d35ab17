"""Finds plugins by name, on first use; our own are declared in the same table as a stranger's.

The table is Python's entry points, groups `jettison.<kind>`, so that a package adds a
backend by naming it in its own `pyproject.toml`.
"""

import importlib
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from jettison.errors import MissingExtra, UnknownName

KINDS = ("backends", "steps", "scorers", "meters", "guardrails", "detectors")

_added: dict[tuple[str, str], Any] = {}


def names(kind: str) -> tuple[str, ...]:
    """Names of all plugins of one kind, sorted."""
    added = {name for added_kind, name in _added if added_kind == kind}
    return tuple(sorted(added | set(_declared(kind))))


def load(kind: str, name: str) -> Any:
    """Import and return one plugin.

    Raises:
        UnknownName: No installed package declares it.
        MissingExtra: Its module needs a library that is not installed.
    """
    if (kind, name) in _added:
        return _added[kind, name]
    declared = _declared(kind)
    if name not in declared:
        raise UnknownName(f"jettison.{kind} must be one of {list(names(kind))}, got {name!r}.")
    try:
        return declared[name].load()
    except MissingExtra:
        raise
    except ImportError as error:
        raise MissingExtra(f"jettison.{kind} {name!r} cannot be loaded: {error}.") from error


def register(kind: str, name: str, plugin: Any) -> None:
    """Add a plugin for the life of this process, as a notebook or a test does."""
    if kind not in KINDS:
        raise UnknownName(f"the kind of a plugin must be one of {list(KINDS)}, got {kind!r}.")
    _added[kind, name] = plugin


def need(module: str, extra: str) -> Any:
    """Import an optional library, or say which extra brings it.

    Raises:
        MissingExtra: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = (error.name or module).split(".")[0]
        raise MissingExtra(
            f"`{missing}` is not installed; it comes with `pip install 'jettison[{extra}]'`."
        ) from error


@cache
def _declared(kind: str) -> dict[str, EntryPoint]:
    if kind not in KINDS:
        raise UnknownName(f"the kind of a plugin must be one of {list(KINDS)}, got {kind!r}.")
    return {point.name: point for point in entry_points(group=f"jettison.{kind}")}
