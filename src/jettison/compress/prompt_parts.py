"""What can be left out of a prompt or bounded: sentences, shots, the length and form of answers."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from jettison.backends.text import load_tokenizer
from jettison.task.prompt import Prompt, most_tokens

_SENTENCE = re.compile(r"[^.!?\n]+[.!?]*[ \t]*\n*|[.!?\n]+")
_PLACE = re.compile(r"\{(input|choices|labels)\}")
COVERED_SHARE = 0.99
"""Share of the known answers that the answer's limit leaves whole."""


def fixed_characters(prompt: Prompt) -> int:
    """Characters of a prompt that every request carries besides its input."""
    shots = sum(len(s.input) + len(s.answer) + sum(map(len, s.choices)) for s in prompt.shots)
    template = len(_PLACE.sub("", prompt.template))
    return len(prompt.system) + shots + template * (1 + len(prompt.shots)) + len(prompt.answer_prefix)


def fewer_shots(prompt: Prompt) -> list[Prompt]:
    """The prompt with 0, 1, 2, 4, ... of its shots, the first ones, fewest first."""
    counts = [0, *(2**i for i in range(32) if 2**i < len(prompt.shots))]
    return [
        msgspec.structs.replace(prompt, shots=prompt.shots[:count])
        for count in counts
        if count < len(prompt.shots)
    ]


def sentences(text: str) -> list[str]:
    """Sentences and lines of a text with what follows them, so that joined they are the text."""
    return _SENTENCE.findall(text)


def without_sentence(prompt: Prompt, field: str, number: int) -> Prompt | None:
    """The prompt without one sentence of `system` or `template`; None where it must stay."""
    parts = sentences(getattr(prompt, field))
    if _PLACE.search(parts[number]) or not parts[number].strip():
        return None
    rest = "".join(parts[:number] + parts[number + 1 :])
    return msgspec.structs.replace(prompt, **{field: rest.strip() if field == "system" else rest.lstrip()})


def answer_limit(answers: Sequence[str], folder: Path) -> tuple[int | None, str]:
    """Tokens that 99 % of the known answers need, with a little room, and how they were counted."""
    if not answers:
        return None, "no known answers"
    path = folder / "tokenizer.json"
    if path.is_file():
        tokenizer = load_tokenizer(path)
        tokenizer.no_padding()
        tokenizer.no_truncation()
        lengths = [len(e.ids) for e in tokenizer.encode_batch([f" {answer}" for answer in answers])]
        how = "by the model's tokenizer"
    else:
        lengths = [most_tokens(answer) for answer in answers]
        how = "estimated from letters, digits and signs"
    enough = int(np.quantile(np.array(lengths), COVERED_SHARE, method="higher"))
    return math.ceil(enough * 1.1) + 2, how


def schema_of(answers: Sequence[str]) -> dict[str, Any] | None:
    """A JSON schema that all the answers keep to; None where they are not all objects of plain values."""
    found: list[dict[str, Any]] = []
    for answer in answers:
        try:
            found.append(msgspec.json.decode(answer, type=dict[str, Any]))
        except msgspec.DecodeError:
            return None
    if not found:
        return None
    keys = list(dict.fromkeys(key for one in found for key in one))
    properties = {key: _type_of([one[key] for one in found if key in one]) for key in keys}
    required = [key for key in keys if all(key in one for one in found)]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _type_of(values: Sequence[Any]) -> dict[str, Any]:
    """Schema of the values of one field; anything goes where they are not plain."""
    names = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}
    kinds = {type(value) for value in values}
    if not kinds <= set(names):
        return {"type": "array"} if kinds == {list} else {}
    types = sorted(names[kind] for kind in kinds)
    if {"integer", "number"} <= set(types):
        types.remove("integer")
    return {"type": types[0] if len(types) == 1 else types}
