"""`jettison init --from-traffic`: the gateway's own log into request logs, and those into a task."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from jettison.errors import InvalidInput
from jettison.record import Record


def task_from_traffic(folder: Path, out: Path, **given: Any) -> Any:
    """Make a task of what a gateway has logged; `given` goes to `task_from_logs`.

    Answers that broke off, lean answers that were escalated, shadows and audits are left out.

    Raises:
        InvalidInput: There is no log, or it holds no texts.
    """
    from jettison.task.from_logs import task_from_logs

    n_all = n_kept = 0
    # A folder that nobody else can read, and that is gone when the task is written.
    with tempfile.TemporaryDirectory(prefix="jettison-traffic-") as place:
        path = Path(place) / f"{folder.absolute().name}.jsonl"
        with path.open("wb") as file:
            for record in _records(folder):
                n_all += 1
                line = _line(record)
                if line is not None:
                    n_kept += 1
                    file.write(line + b"\n")
        if not n_kept:
            raise InvalidInput(
                f"a task must be made of texts, got {n_all} records in {folder} and no text in any. "
                "Log them with `jettison record`, or `jettison serve --log-text keep`."
            )
        return task_from_logs([path], out, **given)


def _records(folder: Path) -> Iterator[Record]:
    from jettison.monitor.log import TrafficLog

    log, place = TrafficLog(folder), None
    while True:
        news = log.read(place)
        yield from news.records
        place = news.place
        if news.is_all:
            return


def _line(record: Record) -> bytes | None:
    """One call as a line of a request log; None for what is no answer that was given."""
    is_answer = record.role in (None, "answer") and record.error is None
    if not is_answer or not record.input or not record.output or record.output.startswith("sha256:"):
        return None
    took = record.cost
    usage = {"prompt_tokens": took.prompt_tokens, "completion_tokens": took.completion_tokens}
    response = {"content": record.output, "usage": usage}
    return msgspec.json.encode({"request": record.input, "response": response, "latency_s": took.latency_s})
