"""Looks at the machine: runtimes, plugins, processor features, meters."""

import os
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement

from jettison import registry
from jettison.backends.machine import describe_machine
from jettison.errors import JettisonError


class Finding(NamedTuple):
    """One line of the examination."""

    what: str
    ok: bool | None
    """None where there is no good or bad."""
    detail: str


def examine() -> list[Finding]:
    """Everything `jettison doctor` says, in order."""
    return [*_machine(), *_extras(), *_plugins(), *_meters()]


def _machine() -> list[Finding]:
    return [Finding(f"machine: {name}", None, value) for name, value in describe_machine().items()]


def _extras() -> list[Finding]:
    """Each optional library against the floor that our own metadata states."""
    found = []
    for line in requires("jettison") or []:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.name == "jettison":
            continue
        extra = str(requirement.marker).split('"')[1]
        if extra in ("dev", "demo"):
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


def _meters() -> list[Finding]:
    rapl = Path("/sys/class/powercap/intel-rapl:0/energy_uj")
    readable = os.access(rapl, os.R_OK)
    energy = "RAPL, measured" if readable else "no readable meter: energy is estimated and labelled so"
    return [Finding("meter: energy", readable, energy), Finding("meter: cpu", True, "CPU-seconds, exact")]
