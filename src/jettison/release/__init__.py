"""A release: an immutable, self-contained, verifiable folder that can answer."""

from jettison.release.profile import Profile
from jettison.release.read import open_release, read_decision, read_profile, verify_release
from jettison.release.types import FORMAT, Release
from jettison.release.write import write_release

__all__ = [
    "FORMAT",
    "Profile",
    "Release",
    "open_release",
    "read_decision",
    "read_profile",
    "verify_release",
    "write_release",
]
