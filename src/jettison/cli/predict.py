"""`jettison predict`: answers texts with a release, a batch at a time, however many there are."""

import codecs
import re
import shlex
import sys
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import click
import msgspec

from jettison.cli.terminal import no_fuss_when_nobody_reads, printable
from jettison.errors import InvalidInput
from jettison.files import decode_json, file_atomic
from jettison.model import Output

Row = dict[str, Any]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of one input."""

    label: str | None
    """None when the input could not be answered."""
    confidence: float | None
    in_scope: float | None
    """None when the release has no out-of-scope label."""
    flagged: bool | None
    abstained: bool
    """The label is the out-of-scope one because the answer was withheld."""
    arm: str | None
    """Of a cascade: `lean` or `fallback`."""
    escalated: bool
    error: str | None


@click.command("predict")
@click.argument("release", type=click.Path(path_type=Path))
@click.argument("texts", nargs=-1)
@click.option(
    "--input",
    "source",
    help="JSON lines, a JSON list, CSV, TSV or Parquet, or one text a line; - reads stdin.",
)
@click.option("--output", type=click.Path(path_type=Path), help="File for the answers, as JSON lines.")
@click.option("--column", default="text", show_default=True, help="Field or column that holds the text.")
@click.option(
    "--batch-size", type=click.IntRange(1), default=256, show_default=True, help="Texts at a time."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines at a terminal too.")
def command(
    release: Path,
    texts: tuple[str, ...],
    source: str | None,
    output: Path | None,
    column: str,
    batch_size: int,
    as_json: bool,
) -> int:
    """Answer TEXTS, a file or stdin with RELEASE: one line out for each text in, in order.

    JSON lines and rows keep their other fields; one that bears the name of a field of the answer is
    kept as input_<name>. Exit code 0: all answered; 1: some could not be, and say why in
    `error`; 2: bad input.
    """
    from jettison.backends.ask import ask
    from jettison.backends.released import open_release_model

    n_failed = n_asked = 0
    with ExitStack() as stack:
        stack.enter_context(no_fuss_when_nobody_reads())
        rows = stack.enter_context(closing(text_rows(texts, source, column)))
        model = stack.enter_context(closing(open_release_model(release)))
        write = _writer(stack, output, as_json)
        while batch := list(islice(rows, batch_size)):
            outputs = ask(model, [row[column] for row in batch])
            for row, found in zip(batch, outputs, strict=True):
                write(row, _answer(found))
                n_failed += found.error is not None
            n_asked += len(batch)
            sys.stdout.flush()
    if n_failed:
        click.echo(f"{n_failed} of {n_asked} texts could not be answered; see their `error`.", err=True)
    return 1 if n_failed else 0


def _answer(output: Output) -> Answer:
    failed = output.error is not None
    return Answer(
        label=None if failed else output.label,
        confidence=None if failed else output.confidence,
        in_scope=output.in_scope,
        flagged=None if output.in_scope is None else output.flagged,
        abstained=output.abstained,
        arm=output.arm,
        escalated=output.escalated,
        error=output.error,
    )


def text_rows(texts: tuple[str, ...], source: str | None, column: str) -> Generator[Row, None, None]:
    """Inputs one after the other, each with its text under `column`."""
    if texts and source is not None:
        raise InvalidInput(
            f"texts must come as arguments or by --input, got both: {texts[0]!r} and {source!r}."
        )
    if texts:
        _check_no_files(texts)
        yield from ({column: text} for text in texts)
        return
    if source is None and sys.stdin.isatty():
        raise InvalidInput("texts must be given as arguments, by --input FILE or on stdin, got none.")
    if source in (None, "-"):
        yield from _lines(sys.stdin.buffer, "stdin", column)
        return
    path = Path(str(source))
    if path.suffix.lower() in TABLES or _is_json_list(path):
        yield from _table_rows(path, column)
        return
    try:
        file = path.open("rb")
    except OSError as error:
        raise InvalidInput(f"--input must be a readable file, got {path}: {error.strerror}.") from error
    with file:
        yield from _lines(file, str(path), column)


def _check_no_files(texts: tuple[str, ...]) -> None:
    """Refuse a file's name for a text: its content is meant, nearly always."""
    for text in texts:
        if _is_file(text):
            raise InvalidInput(
                f"TEXTS must be texts, got {text!r}, which is a file. Answer what is in it by `--input "
                f"{shlex.quote(text)}`; if the name itself is the text, give it on stdin."
            )


def _is_file(text: str) -> bool:
    try:
        return Path(text).suffix != "" and Path(text).is_file()
    except (OSError, ValueError):  # too long for a name, or with a zero byte
        return False


TABLES = (".csv", ".tsv", ".parquet", ".arrow")


def _is_json_list(path: Path) -> bool:
    """Whether a .json file holds one list, and not an object a line."""
    if path.suffix.lower() != ".json" or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(1024).removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"[")


def _table_rows(path: Path, column: str) -> Iterator[Row]:
    """Rows of a file of columns."""
    from jettison.task.tables import read_table

    table = read_table(path)
    if column not in table.columns:
        raise InvalidInput(
            f"--column must be one of the columns of {path}, {list(table.columns)[:8]}, got {column!r}."
        )
    for index in range(table.n_rows):
        row = {name: values[index] for name, values in table.columns.items()}
        if not isinstance(row[column], str):
            raise InvalidInput(
                f"every row of {path} must have a text under {column!r}, got {row[column]!r} "
                f"at {table.place(index)}."
            )
        yield row


def _lines(file: BinaryIO, name: str, column: str) -> Iterator[Row]:
    """Rows of a file; it holds JSON lines if so named, or if its first line begins as an object does."""
    is_json: bool | None = True if name.lower().endswith((".jsonl", ".ndjson", ".json")) else None
    for number, read in enumerate(file, 1):
        line = read.removeprefix(codecs.BOM_UTF8) if number == 1 else read
        if not line.strip():
            if is_json is False:
                yield {column: ""}
            continue
        if is_json is None:
            is_json = re.match(rb'\s*\{\s*(?:"|\}\s*$)', line) is not None
        yield _json_row(line, name, number, column) if is_json else {column: _text(line, name, number)}


def _json_row(line: bytes, name: str, number: int, column: str) -> Row:
    try:
        row = decode_json(line, Row)
    except msgspec.DecodeError as error:
        raise InvalidInput(
            f"every line of {name} must be a JSON object: {error} at line {number}."
        ) from error
    if not isinstance(row.get(column), str):
        raise InvalidInput(
            f"every line of {name} must have a text under {column!r}, got fields {sorted(row)[:8]} "
            f"at line {number}. Name the field with --column."
        )
    return row


def _text(line: bytes, name: str, number: int) -> str:
    try:
        return line.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"every line of {name} must be UTF-8 text: {error} at line {number}.") from error


def _writer(stack: ExitStack, output: Path | None, as_json: bool) -> Any:
    """A function that writes one row and its answer: JSON to a file or pipe, plain words at a terminal."""
    if output is None and sys.stdout.isatty() and not as_json:
        return lambda row, answer: click.echo(_in_words(row, answer))
    if output is None:
        return lambda row, answer: click.echo(_json_line(row, answer), nl=False)
    file = stack.enter_context(file_atomic(output))
    return lambda row, answer: file.write(_json_line(row, answer))


def _json_line(row: Row, answer: Answer) -> bytes:
    fields = Answer.__struct_fields__
    kept = {f"input_{name}" if name in fields else name: value for name, value in row.items()}
    return msgspec.json.encode({**kept, **msgspec.structs.asdict(answer)}) + b"\n"


def _in_words(row: Row, answer: Answer) -> str:
    text = printable(
        " ".join(next(iter(row.values())).split()) if len(row) == 1 else msgspec.json.encode(row).decode()
    )
    if answer.error is not None or answer.confidence is None:
        return f"{click.style('no answer', fg='red')}  {text}\n    {printable(str(answer.error))}"
    color = "yellow" if answer.flagged else "green"
    notes = [f"{answer.confidence:.3f}"]
    if answer.flagged:
        notes.append("out of scope?")
    if answer.arm is not None:
        notes.append(answer.arm)
    return f"{click.style(printable(str(answer.label)), fg=color)}  {'  '.join(notes)}  {text}"
