"""The traffic log on disk: what the gateway writes and everything that watches it reads.

A folder:

    live.sqlite               WAL; tables `records` and `feedback`, appended by one writer
    segments/records-FIRST-LAST.parquet     what was rolled out of it, by sequence number (12 digits)
    segments/feedback-FIRST-LAST.parquet

A row is in one of both places, or, for a moment while a segment is rolled, in both: readers go by
sequence number. `records.body` and `feedback.body` are JSON of `Record` and `Feedback`; a Parquet segment
has one column a field, as `jettison.record.write_records` writes it, and a column `seq`.
"""

import msgspec

LIVE_FILE = "live.sqlite"
SEGMENTS = "segments"
SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL, request_id TEXT NOT NULL, body BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS records_request ON records (request_id);
CREATE TABLE IF NOT EXISTS feedback (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL, request_id TEXT NOT NULL, body BLOB NOT NULL
);
"""


class Feedback(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody said of an earlier answer, possibly much later."""

    request_id: str
    """`Record.example_id` of the request's records."""
    time: float
    """When it came, seconds since the epoch."""
    score: float | None = None
    """How good the answer was, in 0-1."""
    label: str | None = None
    """The answer that would have been right."""
    comment: str | None = None
    source: str = "user"
    """Who says so: `user`, `audit`, or the name of a labelling job."""
    incident: str | None = None
    """A safety incident seen in the answer, by kind, as `privacy`; `none`: looked for and not found."""
