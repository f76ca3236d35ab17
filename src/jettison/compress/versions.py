"""Libraries must be of the versions that the extras ask for: another package may have pulled one down."""

import re
from importlib.metadata import PackageNotFoundError, requires, version

from jettison.errors import MissingExtra
from jettison.registry import need


def check_versions(*extras: str) -> None:
    """Refuse to convert a model with libraries older or newer than those that were tried.

    Args:
        extras: Names of extras, such as `torch`. A library that is not installed at all is
            left to the import that needs it.

    Raises:
        MissingExtra: An installed library is outside of its bounds.
    """
    requirement = need("packaging.requirements", "torch").Requirement
    for line in requires("jettison") or ():
        wanted = requirement(line)
        extra = re.search(r"""extra\s*==\s*["']([\w-]+)["']""", str(wanted.marker or ""))
        if extra is None or extra.group(1) not in extras or wanted.extras:
            continue
        try:
            found = version(wanted.name)
        except PackageNotFoundError:
            continue
        if not wanted.specifier.contains(found, prereleases=True):
            raise MissingExtra(
                f"`{wanted.name}` must be {wanted.specifier}, got {found}. Another package may have "
                f"changed it; `pip install 'jettison[{extra.group(1)}]'` puts it back."
            )
