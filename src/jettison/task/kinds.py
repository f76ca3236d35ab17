"""What each kind of task has and lacks: columns, labels, prompt, and what judges it by default."""

from typing import TYPE_CHECKING

from jettison.errors import InvalidInput

if TYPE_CHECKING:
    from jettison.task.source import TaskSource

WITH_CHOICES = ("choose", "rank")
"""Kinds whose examples bring their own choices."""
WITH_REFERENCES = ("generate", "extract", "embed")
DEFAULT_SCORERS = {
    "classify": "label",
    "choose": "label",
    "generate": "normalized_exact",
    "extract": "field_f1",
    "rank": "ndcg",
    "embed": "ndcg",
}


def scorers_of(source: "TaskSource") -> tuple[str, ...]:
    """The scorers named, or the one that is usual for the kind."""
    return tuple(source.scorers or (DEFAULT_SCORERS[source.kind],))


def has_tests(source: "TaskSource") -> bool:
    """Whether a scorer checks answers with unit tests."""
    return any(source.scorer.get(name, {}).get("scorer", name) == "code" for name in scorers_of(source))


def check_kind(source: "TaskSource", where: str) -> None:
    """Refuse what does not belong to the kind.

    Raises:
        InvalidInput: A column is missing or of another kind, or a section means nothing here.
    """
    kind, columns = source.kind, source.data.columns
    if kind in WITH_CHOICES and not columns.choices:
        raise InvalidInput(
            f"data.columns.choices must name the column of choices for kind {kind!r}, got none in {where}."
        )
    if (source.data.corpus is None) == (kind == "embed"):
        raise InvalidInput(
            f"data.corpus must name the file of passages for kind 'embed' and be left out otherwise, got "
            f"{source.data.corpus!r} for kind {kind!r} in {where}."
        )
    if kind == "embed" and source.prompt is not None:
        raise InvalidInput(
            f"[prompt] must be left out for kind 'embed', which no prompt is asked in, got one in {where}."
        )
    belongs = {
        "choices": WITH_CHOICES,
        "references": WITH_REFERENCES,
        "tests": ("generate",),
        "relevance": ("rank",),
    }
    for name, kinds in belongs.items():
        if getattr(columns, name) is not None and kind not in kinds:
            raise InvalidInput(
                f"data.columns.{name} must be left out unless kind is one of {list(kinds)}, got "
                f"{getattr(columns, name)!r} for kind {kind!r} in {where}."
            )
    if kind != "classify" and (source.labels.names or source.labels.out_of_scope or source.labels.aliases):
        raise InvalidInput(
            f"[labels] must be left out unless kind is 'classify', got one for kind {kind!r} in {where}."
        )
    if source.schema is not None and kind != "extract":
        raise InvalidInput(
            f"schema must be left out unless kind is 'extract', got {source.schema!r} for kind {kind!r} "
            f"in {where}."
        )
    if source.data.separator == "":
        raise InvalidInput(f"data.separator must be non-empty text, got '' in {where}.")
    if source.scorers is not None:
        _check_scorers(source.scorers, where)
    if has_tests(source) != (columns.tests is not None):
        raise InvalidInput(
            f"data.columns.tests must name the column of unit tests where a scorer is 'code', and be left "
            f"out otherwise, got {columns.tests!r} beside scorers {list(scorers_of(source))} in {where}. "
            "`references` are further right answers, which unit tests are none of."
        )
    for name in source.scorer:
        if name not in scorers_of(source):
            raise InvalidInput(
                f"[scorer.{name}] must be of a scorer that is listed, got {name!r} beside "
                f"{list(scorers_of(source))} in {where}. Add it to `scorers`."
            )


def _check_scorers(scorers: list[str], where: str) -> None:
    if not scorers or len(set(scorers)) != len(scorers) or not all(name.strip() for name in scorers):
        raise InvalidInput(
            f"scorers must be one or more different names, got {scorers} in {where}. "
            "The first is what candidates are chosen by."
        )
