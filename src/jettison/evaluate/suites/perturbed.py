"""Tier `perturbed`: test examples again, changed as users change what they write, with the same answer."""

import re
from collections.abc import Sequence

import msgspec

from jettison.errors import UnknownName
from jettison.evaluate.suites.perturbations import PERTURBATIONS
from jettison.evaluate.suites.tier import in_tier, rng_of
from jettison.task import Example

COLUMN = "perturbation"


def perturbed(
    examples: Sequence[Example],
    *,
    kinds: Sequence[str] = tuple(PERTURBATIONS),
    per_example: int = 2,
    copied_answers: bool = False,
    seed: int = 0,
) -> tuple[Example, ...]:
    """Changed copies of examples, in their order.

    The same seed and example give the same copies, whatever other examples there are. A copy shares the
    group of its original, so that intervals do not take both for independent evidence.

    Args:
        examples: With their right answers, which the copies keep.
        kinds: Names of perturbations.
        per_example: Different perturbations drawn for each example, of those that apply to it.
        copied_answers: Whether answers are copied out of the text, whose words are then left as they are.
        seed: Another seed gives other copies.

    Raises:
        UnknownName: There is no such perturbation.
    """
    for kind in kinds:
        if kind not in PERTURBATIONS:
            raise UnknownName(f"a perturbation must be one of {list(PERTURBATIONS)}, got {kind!r}.")
    made = []
    for example in examples:
        kept = _answer_words(example) if copied_answers else frozenset()
        texts: dict[str, str] = {}
        order = rng_of(seed, example.id).permutation(len(kinds)).tolist()
        for kind in (kinds[i] for i in order):
            if len(texts) == per_example:
                break
            changed = PERTURBATIONS[kind](example.input, rng_of(seed, example.id, kind), kept)
            if changed is not None and changed != example.input and changed not in texts.values():
                texts[kind] = changed
        made += [
            in_tier(
                msgspec.structs.replace(example, input=text),
                "perturbed",
                name=kind,
                source=f"{example.id} with {kind}, seed {seed}",
                slices={COLUMN: kind},
                made=True,
            )
            for kind, text in texts.items()
        ]
    return tuple(made)


def _answer_words(example: Example) -> frozenset[str]:
    answers = " ".join((example.expected or "", *example.references))
    return frozenset(re.findall(r"\w+", answers.casefold()))
