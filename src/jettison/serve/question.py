"""A typed question about a text."""

import msgspec


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """One question, whichever API it came by."""

    kind: str
    """`predicate`, `choice` or `score`."""
    instructions: str
    name: str | None
    options: tuple[str | bool, ...] = ()
    """Choices, or levels from low to high."""
