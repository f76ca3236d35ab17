"""Data files in, columns out: JSONL, JSON, CSV, TSV, Parquet and Arrow, each fault with its place."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from jettison.errors import InvalidInput, UnsafeArtifact
from jettison.files import BOM, decode_json

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow")
_RUNS_CODE = (".pkl", ".pickle", ".pt", ".pth", ".joblib", ".npy", ".npz")


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of one file as columns of equal length; a value that a row lacks is None."""

    path: Path
    columns: Mapping[str, list[Any]]
    n_rows: int
    lines: Sequence[int] | None = None
    """Line of each row where rows are lines; None counts rows from 0."""
    label_names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Names of the integers in a column, where the file brings them (Hugging Face ClassLabel)."""

    def place(self, row: int) -> str:
        """Where a row stands, for messages."""
        return (
            f"{self.path.name} row {row}" if self.lines is None else f"{self.path.name}:{self.lines[row]}"
        )


def read_table(path: Path) -> Table:
    """Read one data file, whatever its format, which its suffix names.

    Raises:
        InvalidInput: It is missing, empty, broken or of an unknown format.
        UnsafeArtifact: It could run code when opened.
    """
    suffix = path.suffix.lower()
    if suffix in _RUNS_CODE:
        raise UnsafeArtifact(
            f"data must be JSONL, JSON, CSV, TSV or Parquet, got {path}, which may hold a pickle that runs "
            "code when opened. Save it as Parquet."
        )
    try:
        table = _read(path, suffix)
    except OSError as error:
        raise InvalidInput(f"{path} must be a readable file, got {error.strerror}.") from error
    if not table.n_rows:
        raise InvalidInput(f"{path} must have at least one row, got 0.")
    return table


def _read(path: Path, suffix: str) -> Table:
    if path.is_dir():
        raise InvalidInput(
            f"{path} must be a data file, got a folder. Name a file, or the folder as `path`."
        )
    if not path.is_file():
        raise InvalidInput(f"{path} must be a data file, got nothing there.")
    if suffix not in SUFFIXES:
        raise InvalidInput(f"a data file must end in one of {list(SUFFIXES)}, got {path}.")
    if suffix in (".jsonl", ".ndjson"):
        return _read_jsonl(path)
    if suffix == ".json":
        return _read_json(path)
    if suffix in (".csv", ".tsv"):
        return _read_csv(path, delimiter="," if suffix == ".csv" else "\t")
    return _read_arrow(path)


def _read_jsonl(path: Path) -> Table:
    content = path.read_bytes().removeprefix(BOM)
    _check_utf8(path, content)
    rows: list[dict[str, Any]] = []
    lines: list[int] = []
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            rows.append(decode_json(line, dict[str, Any]))
        except msgspec.DecodeError as error:
            hint = " NaN is no JSON: write null." if b"NaN" in line else ""
            raise InvalidInput(f"{path}:{number} must be one JSON object: {error}.{hint}") from error
        lines.append(number)
    return _of_rows(path, rows, lines)


def _read_json(path: Path) -> Table:
    content = path.read_bytes()
    _check_utf8(path, content)
    try:
        rows = decode_json(content, list[dict[str, Any]])
    except msgspec.DecodeError as error:
        raise InvalidInput(
            f"{path} must be a JSON list of objects: {error}. One object a line goes into a .jsonl file."
        ) from error
    return _of_rows(path, rows, None)


def _of_rows(path: Path, rows: Sequence[dict[str, Any]], lines: Sequence[int] | None) -> Table:
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [row.get(name) for row in rows] for name in names}
    return Table(path=path, columns=columns, n_rows=len(rows), lines=lines)


def _read_csv(path: Path, *, delimiter: str) -> Table:
    content = path.read_bytes().removeprefix(BOM)
    _check_utf8(path, content)
    csv.field_size_limit(1 << 30)
    reader = csv.reader(io.StringIO(content.decode(), newline=""), delimiter=delimiter, strict=True)
    try:
        header = next(reader, [])
        if len(set(header)) != len(header):
            raise InvalidInput(f"{path} must have columns of different names, got {header}.")
        rows, lines = [], []
        for row in reader:
            if row and len(row) != len(header):
                raise InvalidInput(
                    f"{path}:{reader.line_num} must have {len(header)} fields as its header has, "
                    f"got {len(row)}. Quote a field that holds the delimiter."
                )
            if row:
                rows.append(row)
                lines.append(reader.line_num)
    except csv.Error as error:
        raise InvalidInput(f"{path}:{reader.line_num} must be valid CSV: {error}.") from error
    columns = {name: [row[i] or None for row in rows] for i, name in enumerate(header)}
    return Table(path=path, columns=columns, n_rows=len(rows), lines=lines)


def _read_arrow(path: Path) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if path.suffix.lower() == ".parquet":
            found = pq.ParquetFile(path, memory_map=True).read()
        else:
            found = _read_ipc(pa, path)
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:160]
        raise InvalidInput(f"{path} must be a whole {path.suffix[1:]} file: {reason}.") from error
    if len(set(found.column_names)) != len(found.column_names):
        raise InvalidInput(f"{path} must have columns of different names, got {found.column_names}.")
    metadata = (found.schema.metadata or {}).get(b"huggingface")
    return Table(
        path=path,
        columns=_ArrowColumns(found, path),
        n_rows=found.num_rows,
        label_names=class_label_names(metadata),
    )


class _ArrowColumns(Mapping[str, list[Any]]):
    """Columns that become Python values when they are asked for: embeddings beside a text cost nothing."""

    def __init__(self, table: Any, path: Path) -> None:
        self._table = table
        self._path = path
        self._made: dict[str, list[Any]] = {}

    def __getitem__(self, name: str) -> list[Any]:
        if name not in self._made:
            if name not in self._table.column_names:
                raise KeyError(name)
            self._made[name] = self._values(name)
        return self._made[name]

    def _values(self, name: str) -> list[Any]:
        import pyarrow as pa

        column = self._table.column(name)
        try:
            values: list[Any] = _with_times_as_text(pa, column).to_pylist()
        except (pa.ArrowException, ValueError, OverflowError) as error:
            reason = " ".join(str(error).split())[:160]
            raise InvalidInput(
                f"columns of {self._path} must hold values that Python can, got {column.type} in {name!r}: "
                f"{reason}. Save the file without this column, or with it as UTF-8 text."
            ) from error
        return values

    def __iter__(self) -> Iterator[str]:
        return iter(self._table.column_names)

    def __len__(self) -> int:
        return len(self._table.column_names)


def _with_times_as_text(pa: Any, column: Any) -> Any:
    """Dates and times as text, the same whatever their unit: Python has no nanoseconds, nor year 10000."""
    if pa.types.is_duration(column.type):
        column = column.cast(pa.int64())
    elif not pa.types.is_temporal(column.type) or pa.types.is_interval(column.type):
        return column
    return column.cast(pa.string())


def _read_ipc(pa: Any, path: Path) -> Any:
    """An Arrow file in the streaming format, which `datasets` writes, or in the file format."""
    with pa.memory_map(str(path)) as source:
        try:
            return pa.ipc.open_stream(source).read_all()
        except pa.ArrowInvalid:
            return pa.ipc.open_file(source).read_all()


def class_label_names(metadata: bytes | None) -> dict[str, tuple[str, ...]]:
    """Names of each ClassLabel column, from the JSON that `datasets` keeps in a schema or info file."""
    if not metadata:
        return {}
    try:
        content = decode_json(metadata, Any)
    except msgspec.DecodeError:
        return {}
    info = content.get("info", content) if isinstance(content, dict) else {}
    features = info.get("features") or {}
    return {
        name: tuple(feature["names"])
        for name, feature in features.items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names")
    }


def _check_utf8(path: Path, content: bytes) -> None:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InvalidInput(
            f"{path}:{line} must be UTF-8 text, got byte 0x{content[error.start]:02x}. "
            + (
                "It holds zero bytes and is no text file: export the table as CSV, JSONL or Parquet."
                if b"\0" in content
                else "Convert the file: `iconv -f latin1 -t utf-8`."
            )
        ) from error
