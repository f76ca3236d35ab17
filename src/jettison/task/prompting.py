"""`[prompt]` of a task file into a `Prompt`: checked, its shots taken from train alone."""

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from jettison.errors import InvalidInput
from jettison.files import decode_json
from jettison.task.examples import text_key
from jettison.task.prompt import Prompt, Shot
from jettison.task.source import PromptSource, did_you_mean
from jettison.task.types import Example, TaskKind

_PLACES = ("input", "choices", "labels")


def resolve_prompt(
    source: PromptSource,
    kind: TaskKind,
    *,
    labels: Sequence[str],
    train: Sequence[Example],
    held_out: Sequence[Example],
) -> Prompt:
    """The prompt that a task file asks for.

    Args:
        source: As it is written.
        kind: Of the task.
        labels: Of the task, () unless the kind is `classify`.
        train: Where a number of shots is drawn from, the same for each seed whatever the rows' order.
        held_out: Examples of dev and test; a shot must be none of their texts.

    Raises:
        InvalidInput: A place in the template, a word or a shot does not fit the task.
    """
    check_template(source.template, kind)
    _check_words(source, kind, labels)
    held = {text_key(example.input) for example in held_out}
    if isinstance(source.shots, int):
        shots = _drawn(source.shots, source.seed, kind, train, held)
    else:
        shots = tuple(
            _checked(shot, i, kind, labels, held)
            for i, shot in enumerate(
                Shot(input=one.input, answer=one.answer, choices=tuple(one.choices)) for one in source.shots
            )
        )
    same = set(Prompt.__struct_fields__) - {"stop", "shots"}
    given = {name: getattr(source, name) for name in same}
    return Prompt(**given, stop=tuple(source.stop), shots=shots)


def check_template(template: str, kind: TaskKind) -> None:
    """Refuse a template without a place for the input, or with one that its kind does not have.

    Raises:
        InvalidInput: It is such a one.
    """
    if "{input}" not in template:
        raise InvalidInput(
            f"prompt.template must have `{{input}}` where the text goes, got {template[:80]!r}."
        )
    allowed = {"input", *(["labels"] if kind == "classify" else [])}
    allowed |= {"choices"} if kind in ("choose", "rank") else set()
    for name in re.findall(r"\{(\w+)\}", template):
        if name in _PLACES and name not in allowed:
            raise InvalidInput(
                f"prompt.template must have only {sorted(allowed)} in braces for kind {kind!r}, "
                f"got {name!r}."
            )
        # Other braces stand for themselves, but one letter off is a slip.
        if name not in allowed and (hint := did_you_mean(name, allowed)):
            raise InvalidInput(
                f"prompt.template must have only {sorted(allowed)} in braces for kind {kind!r}, got "
                f"{name!r}.{hint}"
            )


def _check_words(source: PromptSource, kind: TaskKind, labels: Sequence[str]) -> None:
    if source.words and kind != "classify":
        raise InvalidInput(
            f"prompt.words must be left out unless kind is 'classify', got {len(source.words)} words."
        )
    for label, word in source.words.items():
        if label not in labels:
            raise InvalidInput(
                f"prompt.words must be keyed by labels of the task, got {label!r}."
                f"{did_you_mean(label, labels)}"
            )
        if not word.strip():
            raise InvalidInput(f"prompt.words must be non-empty text, got {word!r} for {label!r}.")
    said = [source.words.get(label, label) for label in labels]
    twice = next((word for word in said if said.count(word) > 1), None)
    if twice is not None:
        raise InvalidInput(f"prompt.words must differ from label to label, got {twice!r} for two of them.")


def _drawn(
    n: int, seed: int, kind: TaskKind, train: Sequence[Example], held: Collection[str]
) -> tuple[Shot, ...]:
    """Shots out of train, in turn from each label where there are labels; none that dev or test has too."""
    seen = set(held)
    free: dict[str, list[Example]] = defaultdict(list)
    for example in sorted(train, key=lambda one: _draw(seed, one.id)):
        key = text_key(example.input)
        if key not in seen and example.expected is not None:
            seen.add(key)
            free[example.expected if kind == "classify" else ""].append(example)
    n_free = sum(map(len, free.values()))
    if n > n_free:
        raise InvalidInput(
            f"prompt.shots must be at most the {n_free} examples of train whose text dev and test lack, "
            f"got {n}. Fewer will do, or write them out as [[prompt.shots]]."
        )
    order = sorted(free, key=lambda label: _draw(seed, label))
    taken: list[Example] = []
    while len(taken) < n:
        taken += [free[label].pop(0) for label in order if free[label]]
    return tuple(shot_of(example, kind) for example in taken[:n])


def shot_of(example: Example, kind: TaskKind) -> Shot:
    """A labelled example as a worked one; the answer to a ranking is the choices' positions, best first."""
    answer = example.expected or ""
    if kind == "rank":
        order = sorted(range(len(example.choices)), key=lambda i: -example.relevance[i])
        answer = json.dumps(order)
    return Shot(input=example.input, answer=answer, choices=example.choices)


def _checked(shot: Shot, i: int, kind: TaskKind, labels: Sequence[str], held: Collection[str]) -> Shot:
    place = f"at `$.prompt.shots[{i}]`"
    if kind == "classify" and shot.answer not in labels:
        raise InvalidInput(
            f"the answer of a shot must be one of the {len(labels)} labels, got {shot.answer!r} {place}."
            f"{did_you_mean(shot.answer, labels)}"
        )
    if kind == "choose" and shot.answer not in shot.choices:
        raise InvalidInput(
            f"the answer of a shot must be one of its choices, got {shot.answer!r} among "
            f"{list(shot.choices)[:8]} {place}."
        )
    if kind == "extract" and not _is_object(shot.answer):
        raise InvalidInput(f"the answer of a shot must be a JSON object, got {shot.answer[:80]!r} {place}.")
    if text_key(shot.input) in held:
        raise InvalidInput(
            f"a shot must be no example of dev or test, got {shot.input[:80]!r} {place}. "
            "Take one from train."
        )
    return shot


def _is_object(text: str) -> bool:
    try:
        return isinstance(decode_json(text, Any), dict)
    except msgspec.DecodeError:
        return False


def _draw(seed: int, name: str) -> bytes:
    return hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=16).digest()
