"""Splits made where the data brings none: grouped, stratified, and the same whatever the rows' order."""

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Sequence


def make_split(
    labels: Sequence[str],
    groups: Sequence[str],
    *,
    shares: dict[str, float],
    rest: str,
    seed: int,
    stratified: bool = True,
) -> list[str]:
    """Set shares of the examples apart.

    A group goes to one split whole. Which one depends on the seed and the groups' names,
    not on the order of the rows. Within a label each share is met to one example plus
    half the size of its largest group; what is left over goes to `rest`.

    Args:
        labels: Label of each example, shape (n_examples,).
        groups: Group of each example, shape (n_examples,); examples with one text share one.
        shares: Split → share of the examples, each in (0, 1), together under 1.
        rest: The split that takes what is left, at least one group of each label.
        seed: Another seed gives another split.
        stratified: Meet the shares within each label; else over all examples.

    Returns:
        Split of each example, in their order.
    """
    members: dict[str, Counter[str]] = defaultdict(Counter)
    for label, group in zip(labels, groups, strict=True):
        members[group][label] += 1
    strata: dict[str, list[str]] = defaultdict(list)
    for group in sorted(members, key=lambda name: _draw(seed, name)):
        strata[_majority(members[group]) if stratified else ""].append(group)

    sizes = {group: counts.total() for group, counts in members.items()}
    totals = {label: sum(sizes[group] for group in strata[label]) for label in strata}
    split_of = dict.fromkeys(members, rest)
    for name, share in shares.items():
        targets = _rounded_targets(totals, share)
        for label, ordered in strata.items():
            free = [group for group in ordered if split_of[group] == rest]
            for group in _fill(free, sizes, targets[label]):
                split_of[group] = name
    return [split_of[group] for group in groups]


def _fill(groups: Sequence[str], sizes: dict[str, int], target: int) -> list[str]:
    """The first groups whose sizes come closest to the target; one group always stays behind."""
    taken: list[str] = []
    count = 0
    for group in groups:
        if len(taken) == len(groups) - 1:
            break
        if abs(count + sizes[group] - target) < abs(count - target):
            taken.append(group)
            count += sizes[group]
    return taken


def _rounded_targets(totals: dict[str, int], share: float) -> dict[str, int]:
    """Whole numbers near `share * total` that add up to the share of all: largest remainders first."""
    exact = {label: share * total for label, total in totals.items()}
    targets = {label: math.floor(value) for label, value in exact.items()}
    missing = round(sum(exact.values())) - sum(targets.values())
    by_remainder = sorted(exact, key=lambda label: (targets[label] - exact[label], label))
    for label in by_remainder[: max(0, missing)]:
        targets[label] += 1
    return targets


def _majority(counts: Counter[str]) -> str:
    return min(counts, key=lambda label: (-counts[label], label))


def _draw(seed: int, name: str) -> bytes:
    """A fixed pseudo-random order of names for each seed."""
    return hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=16).digest()
