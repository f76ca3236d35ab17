"""Cuts a long text into overlapping parts of bounded length, so that a short passage is not lost in it."""


def windows(text: str, *, size: int = 600, step: int = 400) -> list[str]:
    """Parts that together cover the text, in order.

    Args:
        text: Any.
        size: Characters of a part at most.
        step: From the start of a part to that of the next, at most; each start is moved back to a space
            where there is one near, and any passage of up to `size - step` characters lies whole in a part.

    Returns:
        The text itself where it is no longer than `size`.
    """
    if len(text) <= size:
        return [text]
    found, start = [], 0
    while start + size < len(text):
        found.append(text[start : start + size])
        space = text.rfind(" ", start + step // 2, start + step)
        start = space + 1 if space > 0 else start + step
    found.append(text[max(start, 0) :])
    return found
