"""Labels that may be other labels mistyped."""

from collections.abc import Mapping

from jettison.task.types import Finding


def suspect_typos(counts: Mapping[str, int]) -> list[Finding]:
    """Rare labels that look like a common one written otherwise."""
    found = []
    plain = {label: "".join(c for c in label.casefold() if c.isalnum()) for label in counts}
    for rare in sorted(counts):
        for common in sorted(counts):
            if rare == common or counts[rare] * 10 > counts[common]:
                continue
            if plain[rare] == plain[common] or (
                min(len(rare), len(common)) >= 5 and _within_one_edit(rare.casefold(), common.casefold())
            ):
                message = (
                    f"label {rare!r} ({counts[rare]} examples) may be {common!r} ({counts[common]}) "
                    f"mistyped: if so, write `{rare!r} = {common!r}` under [labels.aliases]."
                )
                found.append(
                    Finding(rule="label_typo", severity="warning", message=message, n_examples=counts[rare])
                )
                break
    return found


def _within_one_edit(a: str, b: str) -> bool:
    """Whether one letter added, left out or changed, or two neighbors swapped, makes one of the other."""
    if abs(len(a) - len(b)) > 1:
        return False
    start = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    rest_a, rest_b = a[start:], b[start:]
    return (
        rest_a[1:] == rest_b[1:]
        or rest_a[1:] == rest_b
        or rest_a == rest_b[1:]
        or (rest_a[2:] == rest_b[2:] and rest_a[:2] == rest_b[:2][::-1])
    )
