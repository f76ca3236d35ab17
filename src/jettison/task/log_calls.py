"""Request logs in, calls out: what a language model was asked, and what it said.

Read are lines of a request and its response, as OpenAI's chat completions have them, in the shapes that
gateways write; the input and output files of OpenAI's batches, joined by `custom_id`; and traces
exported as OTLP JSON with the attributes of OpenTelemetry's conventions for generative AI.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from jettison.errors import InvalidInput
from jettison.files import decode_json
from jettison.task.log_shapes import Piece, Request, pieces_of
from jettison.task.log_use import Use, fuller

MAX_LINE_BYTES = 8 << 20
MAX_DOCUMENT_BYTES = 256 << 20
MAX_BAD_SHARE = 0.1
MIN_BAD = 20
"""Bad lines that are passed over whatever their share."""
_SHOWN = 10
_MAX_ANSWERS = 16
"""Different answers kept of one request."""


@dataclass(kw_only=True)
class Call:
    """One request, with the answers it got each time it was made."""

    request: Request
    place: str
    """Where it was found first."""
    answers: Counter[str] = field(default_factory=Counter)
    uses: dict[str, Use] = field(default_factory=dict)
    """Answer → what it took, in the first call that says most of it."""
    n: int = 0


@dataclass(kw_only=True)
class Calls:
    """All calls of some logs, equal requests merged, and what was passed over."""

    calls: list[Call]
    n_read: int
    """Calls read, before merging."""
    n_lines: int
    bad: list[str]
    """The first lines that could not be read, with place and reason."""
    n_bad: int
    n_unmatched: int
    """Requests of batches without an answer, and answers without a request."""
    kept_share: float
    """Share of different requests that were kept: below 1 where there were too many to hold."""


def read_calls(paths: Sequence[Path], *, max_calls: int = 100_000) -> Calls:
    """Read log files.

    Args:
        paths: JSONL files, or JSON documents; batches' inputs and outputs in any order.
        max_calls: Most different requests to hold. Of more, a part chosen by their content is kept.

    Raises:
        InvalidInput: A file is missing, more than a tenth of the lines is unreadable, or no call is found.
    """
    for path in paths:
        if not path.is_file():
            raise InvalidInput(f"a log must be a file, got {path}, where there is none.")
    reader = _Reader(max_calls)
    for path in paths:
        for place, item in _items(path):
            reader.take(place, item)
    if reader.n_bad > max(MIN_BAD, MAX_BAD_SHARE * reader.n_lines):
        raise InvalidInput(
            f"at most {MAX_BAD_SHARE:.0%} of the lines of a log may be unreadable, got {reader.n_bad} of "
            f"{reader.n_lines}: {'; '.join(reader.bad[:3])}."
        )
    if not reader.kept.calls:
        first = f" The first line passed over: {reader.bad[0]}." if reader.bad else ""
        raise InvalidInput(
            f"logs must hold requests with their answers, got none in {reader.n_lines} lines "
            f"({reader.n_unmatched} requests or answers without the other half).{first}"
        )
    return Calls(
        calls=list(reader.kept.calls.values()),
        n_read=reader.n_read,
        n_lines=reader.n_lines,
        bad=reader.bad,
        n_bad=reader.n_bad,
        n_unmatched=reader.n_unmatched,
        kept_share=reader.kept.share,
    )


def _items(path: Path) -> Iterator[tuple[str, Any]]:
    """Place and content of each line that is JSON, of each item of a JSON list, or of a whole document.

    What cannot be read comes as an `InvalidInput` in its place.
    """
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            place = f"{path.name}:{number}"
            if len(line) > MAX_LINE_BYTES and not line.endswith(b"\n"):
                while (rest := file.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                    pass
                yield place, InvalidInput(f"longer than {MAX_LINE_BYTES >> 20} MB")
                continue
            if not line.strip():
                continue
            try:
                item = decode_json(line, Any)
            except msgspec.DecodeError as error:
                if number == 1 and line.strip()[:1] in (b"[", b"{") and _is_document(path, line):
                    yield from _document(path)
                    return
                yield place, InvalidInput(f"no JSON: {error}")
                continue
            yield from _unrolled(place, item)


def _is_document(path: Path, first_line: bytes) -> bool:
    """Whether the file is one pretty-printed JSON document: its first line is only a beginning."""
    opened = first_line.count(b"{") + first_line.count(b"[")
    closed = first_line.count(b"}") + first_line.count(b"]")
    return opened > closed and path.stat().st_size <= MAX_DOCUMENT_BYTES


def _document(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        content = decode_json(path.read_bytes(), Any)
    except msgspec.DecodeError as error:
        yield path.name, InvalidInput(f"no JSON: {error}")
        return
    yield from _unrolled(path.name, content)


def _unrolled(place: str, item: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(item, list):
        for i, one in enumerate(item):
            yield f"{place}[{i}]", one
    else:
        yield place, item


class _Reader:
    """Takes items one by one and joins the halves of batches."""

    def __init__(self, max_calls: int) -> None:
        self.kept = _Kept(max_calls)
        self.n_read = self.n_lines = self.n_bad = 0
        self.bad: list[str] = []
        self._max = max_calls
        self._requests: dict[str, tuple[Request, str]] = {}
        self._answers: dict[str, tuple[str, Use]] = {}
        self._n_dropped = 0

    @property
    def n_unmatched(self) -> int:
        return len(self._requests) + len(self._answers) + self._n_dropped

    def take(self, place: str, item: Any) -> None:
        """Read one line; what is wrong with it is noted, and the next one read."""
        self.n_lines += 1
        try:
            if isinstance(item, InvalidInput):
                raise item
            for piece in pieces_of(item):
                self._place(piece, place)
        except InvalidInput as error:
            self.n_bad += 1
            if len(self.bad) < _SHOWN:
                self.bad.append(f"{place}: {error}")

    def _place(self, piece: Piece, place: str) -> None:
        request, answer, key, use = piece.request, piece.answer, piece.key, piece.use or Use()
        if key is not None and answer is None and request is not None:
            if key not in self._answers:
                self._hold(self._requests, key, (request, place))
                return
            answer, use = self._answers.pop(key)
        elif key is not None and request is None and answer is not None:
            if key not in self._requests:
                self._hold(self._answers, key, (answer, use))
                return
            request, place = self._requests.pop(key)
        if request is not None and answer is not None:
            self.n_read += 1
            self.kept.add(request, answer, use, place)

    def _hold(self, waiting: dict[str, Any], key: str, half: Any) -> None:
        """Halves wait for the other one; of too many, the oldest goes."""
        waiting[key] = half
        if len(waiting) > 4 * self._max:
            waiting.pop(next(iter(waiting)))
            self._n_dropped += 1


class _Kept:
    """Different requests by content; of too many, those whose hash is low, so that counts stay whole."""

    def __init__(self, most: int) -> None:
        self.calls: dict[bytes, Call] = {}
        self.share = 1.0
        self._most = most

    def add(self, request: Request, answer: str, use: Use, place: str) -> None:
        key = hashlib.blake2b(msgspec.json.encode(request.said), digest_size=16).digest()
        if not self._stays(key):
            return
        call = self.calls.setdefault(key, Call(request=request, place=place))
        call.n += 1
        if answer in call.answers or len(call.answers) < _MAX_ANSWERS:
            call.answers[answer] += 1
            if request.model is not None:
                use = msgspec.structs.replace(use, model=request.model)
            call.uses[answer] = fuller(call.uses.get(answer), use)
        while len(self.calls) > self._most:
            self.share /= 2
            self.calls = {key: call for key, call in self.calls.items() if self._stays(key)}

    def _stays(self, key: bytes) -> bool:
        return int.from_bytes(key[:8]) < self.share * 2**64
