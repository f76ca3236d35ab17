"""Typed questions with calibrated probabilities: `/v1/decisions`, and `/v1/systemone` in its own words.

A classifier answers what its labels can answer. A choice is put among the labels that the question names;
a predicate is the probability of the one label that its `name` or its instructions name; a score is
the expected level, counted from 0, over labels that are its levels. What the labels cannot
answer is refused, question by question.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from jettison.serve.api_error import bad_request
from jettison.serve.calls import Answer
from jettison.serve.question import Question

MOST_QUESTIONS, MOST_CHOICES = 400, 255


def read_questions(given: Any) -> list[Question]:
    """Questions of `/v1/decisions`.

    Raises:
        ApiError: One breaks a rule; the message names it.
    """
    if not isinstance(given, list) or not 1 <= len(given) <= MOST_QUESTIONS:
        raise bad_request(f"questions must be a list of 1-{MOST_QUESTIONS}.", param="questions")
    return [_question(one, f"questions[{i}]") for i, one in enumerate(given)]


def _question(given: Any, where: str) -> Question:
    if not isinstance(given, dict) or given.get("type") not in ("predicate", "choice", "score"):
        raise bad_request(f"{where}.type must be predicate, choice or score.", param=f"{where}.type")
    kind, name = given["type"], given.get("name")
    if name is not None and not isinstance(name, str):
        raise bad_request(f"{where}.name must be a text.", param=f"{where}.name")
    options: tuple[Any, ...] = ()
    if kind == "choice":
        options = _options(given.get("choices"), "value", f"{where}.choices", (str, bool))
    elif kind == "score":
        options = _options(given.get("levels"), "label", f"{where}.levels", (str,))
    return Question(
        kind=kind, instructions=_instructions(given.get("instructions"), where), name=name, options=options
    )


def _options(given: Any, field: str, where: str, kinds: tuple[type, ...]) -> tuple[Any, ...]:
    if not isinstance(given, list) or not 2 <= len(given) <= MOST_CHOICES:
        raise bad_request(f"{where} must be a list of 2-{MOST_CHOICES}.", param=where)
    values = [one.get(field) if isinstance(one, dict) else None for one in given]
    if not all(isinstance(value, kinds) for value in values):
        raise bad_request(f"{where} must each have a {field}.", param=where)
    # `true` and `"true"` are two choices.
    if len({(type(value), value) for value in values}) != len(values):
        raise bad_request(f"{where} must all be different.", param=where)
    return tuple(values)


def _instructions(given: Any, where: str) -> str:
    if isinstance(given, str):
        return given
    if isinstance(given, list):
        return "\n".join(str(one["text"]) for one in given if isinstance(one, dict) and "text" in one)
    if isinstance(given, dict):
        return msgspec.json.encode(given).decode()
    raise bad_request(f"{where}.instructions must be given.", param=f"{where}.instructions")


def read_systemone(given: Any) -> list[Question]:
    """Questions of `/v1/systemone`: a map of names, in its order.

    Raises:
        ApiError: One breaks a rule; the message names it.
    """
    if not isinstance(given, dict) or not 1 <= len(given) <= MOST_QUESTIONS:
        raise bad_request(f"questions must be a map of 1-{MOST_QUESTIONS}.", param="questions")
    found = []
    for name, one in given.items():
        where = f"questions.{name}"
        if not isinstance(one, dict) or one.get("type", "noul") not in ("noul", "choice", "score"):
            raise bad_request(f"{where}.type must be noul, choice or score.", param=f"{where}.type")
        kind = str(one.get("type", "noul")).replace("noul", "predicate")
        criteria = one.get("criteria")
        options: tuple[str, ...] = ()
        if kind == "choice" or kind == "score":
            options = _criteria(criteria, f"{where}.criteria")
        text = _instructions(one.get("instructions", ""), where)
        found.append(Question(kind=kind, instructions=text, name=name, options=options))
    return found


def _criteria(given: Any, where: str) -> tuple[str, ...]:
    """Options as a map with descriptions, or as a list."""
    options = tuple(given) if isinstance(given, dict | list) else ()
    is_text = all(isinstance(option, str) for option in options)
    if not 2 <= len(options) <= MOST_CHOICES or not is_text or len(set(options)) != len(options):
        raise bad_request(f"{where} must be 2-{MOST_CHOICES} different options.", param=where)
    return options


def decide(question: Question, answer: Answer) -> dict[str, Any]:
    """One answer, in the words of `/v1/decisions`."""
    shares = _shares(question, answer)
    if shares is None:
        return {"type": "refusal", "name": question.name}
    if answer.logits is None:
        return {**_told(question, shares), "estimated": True}
    return _told(question, shares)


def _told(question: Question, shares: Sequence[float]) -> dict[str, Any]:
    if question.kind == "predicate":
        return {"type": "predicate", "name": question.name, "probability": shares[0]}
    best = max(range(len(shares)), key=shares.__getitem__)
    # Among all labels this is the calibrated confidence; among some of them, the share of the best.
    confidence = shares[best]
    if question.kind == "choice":
        return {
            "type": "choice",
            "name": question.name,
            "choice": question.options[best],
            "confidence": confidence,
            "probabilities": [
                {"value": value, "probability": share}
                for value, share in zip(question.options, shares, strict=True)
            ],
        }
    return {
        "type": "score",
        "name": question.name,
        "score": math.fsum(i * share for i, share in enumerate(shares)),
        "confidence": confidence,
        "probabilities": [
            {"value": i, "label": str(label), "probability": share}
            for i, (label, share) in enumerate(zip(question.options, shares, strict=True))
        ],
    }


def is_answerable(question: Question, labels: Sequence[str]) -> bool:
    """Whether a model of these labels has an answer."""
    known = {label.casefold() for label in labels}
    if question.kind == "predicate":
        return _predicate_label(question, labels) is not None
    return all(_word(option).casefold() in known for option in question.options)


def _shares(question: Question, answer: Answer) -> list[float] | None:
    """Probability of each option (of a predicate: that it holds); None where the labels do not fit."""
    if not is_answerable(question, answer.labels):
        return None
    found = answer.probabilities()
    if not found:  # of an arm that names a label alone: what it leaves is spread over the others
        sure = 1.0 if answer.confidence is None else answer.confidence
        rest = (1.0 - sure) / max(1, len(answer.labels) - 1)
        found = {label: sure if label == answer.text else rest for label in answer.labels}
    by_word = {label.casefold(): share for label, share in found.items()}
    if question.kind == "predicate":
        label = _predicate_label(question, answer.labels)
        return [by_word.get(str(label).casefold(), 0.0)]
    texts = {option for option in question.options if isinstance(option, str)}
    shares = [
        # Where `true` and `"true"` both stand, the label, being a text, is the text's.
        0.0
        if isinstance(option, bool) and _word(option) in texts
        else by_word.get(_word(option).casefold(), 0.0)
        for option in question.options
    ]
    total = math.fsum(shares)
    return [share / total for share in shares] if total > 0 else [1 / len(shares)] * len(shares)


def _predicate_label(question: Question, labels: Sequence[str]) -> str | None:
    named = {(question.name or "").casefold(), question.instructions.casefold().strip(" .?!")}
    return next((label for label in labels if label.casefold() in named), None)


def _word(option: str | bool) -> str:
    return str(option).lower() if isinstance(option, bool) else option


def decision_body(answers: list[dict[str, Any]], model: str, used: Mapping[str, Any]) -> bytes:
    """Body of `/v1/decisions`."""
    return msgspec.json.encode(
        {
            "object": "decision",
            "model": model,
            "answers": answers,
            "usage": {
                "input_tokens": used["prompt_tokens"],
                "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
                "output_tokens": 0,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": used["prompt_tokens"],
                **({"estimated": True} if "estimated" in used else {}),
            },
        }
    )


def systemone_body(answers: list[dict[str, Any]], model: str, used: Mapping[str, Any]) -> bytes:
    """Body of `/v1/systemone`; what was refused is missing."""
    told = {}
    for answer in answers:
        if answer["type"] == "predicate":
            told[answer["name"]] = {"type": "noul", "noul": answer["probability"]}
        elif answer["type"] == "choice":
            shares = {str(one["value"]): one["probability"] for one in answer["probabilities"]}
            told[answer["name"]] = {
                "type": "choice",
                "choice": answer["choice"],
                "probabilities": shares,
                "confidence": answer["confidence"],
            }
        elif answer["type"] == "score":
            told[answer["name"]] = {
                "type": "score",
                "score": answer["score"],
                "legend": {str(one["value"]): one["label"] for one in answer["probabilities"]},
                "probabilities": {str(one["value"]): one["probability"] for one in answer["probabilities"]},
                "confidence": answer["confidence"],
            }
    n_in = used["prompt_tokens"]
    return msgspec.json.encode(
        {"model": model, "answers": told, "usage": {"input_tokens": n_in, "output_tokens": 0}}
    )
