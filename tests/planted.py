"""Made-up requests with metadata, and losses planted in a subgroup of them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from jettison.task import Example

DOMAINS = 12
CHANNELS = ("web", "app", "phone", "mail")


@dataclass(frozen=True)
class Planted:
    """Losses with a subgroup that loses more."""

    name: str
    member: np.ndarray
    loss: np.ndarray


def requests(n: int, *, seed: int = 0) -> tuple[Example, ...]:
    """Texts of words by domain and of common words, with two columns of metadata and a label."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(n):
        domain = int(rng.choice(DOMAINS, p=np.arange(1, DOMAINS + 1) / np.arange(1, DOMAINS + 1).sum()))
        own = [f"d{domain}w{int(w)}" for w in rng.zipf(1.7, int(rng.integers(3, 7))) if w < 40]
        common = [f"common{int(w)}" for w in rng.zipf(1.5, int(rng.integers(2, 8))) if w < 60]
        words = [*own, *common]
        rng.shuffle(words)
        made.append(
            Example(
                id=str(i),
                input=" ".join([*words, "please"]),
                expected=f"label{domain}-{int(rng.integers(3))}",
                slices={"domain": f"d{domain}", "channel": CHANNELS[int(rng.integers(4))]},
            )
        )
    return tuple(made)


def losses(n: int, rng: np.random.Generator, share: np.ndarray | float = 0.02) -> np.ndarray:
    """Answers lost with the given shares, gained with a share of 2 %."""
    return (rng.random(n) < share).astype(float) - (rng.random(n) < 0.02)


def plant(examples: tuple[Example, ...], *, seed: int, size: tuple[float, float] = (0.02, 0.08)) -> Planted:
    """A subgroup of at least 2 % of the examples, of a random kind, that loses 10 points more."""
    rng = np.random.default_rng(seed)
    while True:
        name, rule = _rule(rng)
        member = np.array([rule(e) for e in examples])
        if size[0] <= member.mean() <= size[1]:
            share = np.where(member, 0.12, 0.02)
            return Planted(name, member, losses(len(examples), rng, share))


def _rule(rng: np.random.Generator) -> tuple[str, Callable[[Example], bool]]:
    domain, kind = int(rng.integers(DOMAINS)), int(rng.integers(5))
    if kind == 0:
        return f"domain=d{domain}", lambda e: e.slices["domain"] == f"d{domain}"
    if kind == 1:
        label = f"label{domain}-{int(rng.integers(3))}"
        return f"expected={label}", lambda e: e.expected == label
    if kind == 2:
        word = f"d{domain}w{int(rng.integers(1, 5))}"
        return f"word {word}", lambda e: word in e.input.split()
    if kind == 3:
        word = f"common{int(rng.integers(4, 20))}"
        return f"word {word}", lambda e: word in e.input.split()
    channel = CHANNELS[int(rng.integers(4))]
    name = f"domain=d{domain} & channel={channel}"
    return name, lambda e: e.slices == {"domain": f"d{domain}", "channel": channel}
