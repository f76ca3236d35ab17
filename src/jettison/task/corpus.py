"""The passages that a task of kind `embed` searches: one file of ids and texts."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from jettison.errors import InvalidInput, UnknownName
from jettison.task.cells import text_of
from jettison.task.source import did_you_mean
from jettison.task.tables import read_table
from jettison.task.types import Example, Passage

IDS = ("id", "_id")
"""Names that the column of ids may have; the second is BEIR's."""


def read_corpus(path: Path) -> tuple[Passage, ...]:
    """Passages of a table with the columns `id` (or `_id`) and `text`; a `title` is put before the text.

    Raises:
        InvalidInput: A column is missing, an id stands twice, a text is empty, or there is one passage.
    """
    table = read_table(path)
    ids = next((name for name in IDS if name in table.columns), None)
    if ids is None or "text" not in table.columns:
        raise InvalidInput(
            f"a corpus must have the columns id and text, got {list(table.columns)[:12]} in {path}."
        )
    titles = table.columns.get("title", [None] * table.n_rows)
    found: dict[str, Passage] = {}
    for row in range(table.n_rows):
        place = table.place(row)
        name = text_of(table.columns[ids][row], column=ids, place=place)
        text = text_of(table.columns["text"][row], column="text", place=place)
        if name in found:
            raise InvalidInput(f"ids of a corpus must be all different, got {name!r} again at {place}.")
        title = str(titles[row] or "").strip()
        found[name] = Passage(id=name, text=f"{title} {text}" if title else text)
    if len(found) < 2:
        raise InvalidInput(f"a corpus must have at least two passages, got {len(found)} in {path}.")
    return tuple(found.values())


def check_passages(examples: Iterable[Example], corpus: Sequence[Passage]) -> None:
    """Refuse an example whose right answer is no passage of the corpus.

    Raises:
        UnknownName: The message says which and where.
    """
    known = {passage.id for passage in corpus}
    for example in examples:
        for name in (example.expected, *example.references):
            if name is not None and name not in known:
                raise UnknownName(
                    f"right answers of kind 'embed' must be ids of passages of the corpus, got {name!r} "
                    f"at {example.source or example.id}.{did_you_mean(name, known)}"
                )
