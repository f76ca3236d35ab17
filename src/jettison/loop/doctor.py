"""Looks at the machine: runtimes, plugins, processor features, meters."""

import re
from importlib.metadata import PackageNotFoundError, requires, version
from typing import NamedTuple

from packaging.requirements import Requirement

from jettison import registry
from jettison.backends.machine import describe_machine
from jettison.compress.maker import MAKERS, how_to_set_up, maker_python, maker_version
from jettison.cost.instruments import examine_instruments
from jettison.errors import JettisonError


class Finding(NamedTuple):
    """One line of the examination."""

    what: str
    ok: bool | None
    """None where there is no good or bad."""
    detail: str
    figures: dict[str, float] | None = None
    """What was found in numbers, each with its unit in its name."""


def examine() -> list[Finding]:
    """Everything `jettison doctor` says, in order."""
    return [*_machine(), *_extras(), *_plugins(), *_makers(), *_meters()]


def _machine() -> list[Finding]:
    return [Finding(f"machine: {name}", None, value) for name, value in describe_machine().items()]


def _extras() -> list[Finding]:
    """Each optional library against the floor that our own metadata states."""
    found = []
    for line in requires("jettison") or []:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.name == "jettison":
            continue
        of_extra = re.search(r'extra == "([^"]+)"', str(requirement.marker))
        if of_extra is None or (extra := of_extra[1]) in ("dev", "demo"):
            continue
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            detail = f"not installed; it comes with `pip install 'jettison[{extra}]'`"
            found.append(Finding(f"{extra}: {requirement.name}", False, detail))
            continue
        fits = requirement.specifier.contains(installed, prereleases=True)
        detail = installed if fits else f"{installed} is installed, {requirement.specifier} is needed"
        found.append(Finding(f"{extra}: {requirement.name}", fits, detail))
    return found


def _plugins() -> list[Finding]:
    found = []
    for kind in ("backends", "steps"):
        for name in registry.names(kind):
            try:
                registry.load(kind, name)
            except JettisonError as error:
                found.append(Finding(f"{kind}: {name}", False, str(error)))
            else:
                found.append(Finding(f"{kind}: {name}", True, "loads"))
    return found


def _makers() -> list[Finding]:
    """Tools in environments of their own: whether each is set up, or how to."""
    found = []
    for maker in MAKERS.values():
        installed = maker_version(maker)
        detail = f"not set up, step {maker.serves} cannot run: {how_to_set_up(maker)}"
        if installed is not None:
            other = "" if installed == maker.version else f"; {maker.version} is what was tried"
            detail = f"{installed} in {maker_python(maker).parent.parent}, for step {maker.serves}{other}"
        found.append(Finding(f"maker: {maker.name}", installed is not None, detail))
    return found


def _meters() -> list[Finding]:
    return [Finding(f"measures: {i.name}", i.is_there, i.detail, i.figures) for i in examine_instruments()]
