"""Examples on which a model failed: counted as wrong, so said aloud, and too many are refused."""

from collections.abc import Iterable, Sequence

from jettison.errors import BrokenArtifact
from jettison.loop.workspace import Contender, asked_once
from jettison.record import Record
from jettison.task import Finding

MOST_FAILED_SHARE = 0.01
"""Of dev, for an incumbent that gives logits: as much as a usual margin, by which whatever takes its place
would look better than it is."""
_MOST_CHARS = 160


def failure_words(records: Sequence[Record]) -> str:
    """How many examples failed and how the first did; empty where none did."""
    failed = [record for record in records if record.error is not None and not record.unanswered]
    if not failed:
        return ""
    first = " ".join(str(failed[0].error).split())
    first = first if len(first) <= _MOST_CHARS else f"{first[:_MOST_CHARS]} …"
    return f"{len(failed)} of {len(records)} examples failed, and count as wrong: {first}"


def failure_findings(contenders: Iterable[Contender]) -> list[Finding]:
    """What the report says of contenders that failed on dev examples."""
    found = []
    for contender in contenders:
        if words := failure_words(contender.records):
            failed = [r.example_id for r in contender.records if r.error is not None and not r.unanswered]
            found.append(
                Finding(
                    rule="failed_examples",
                    severity="warning",
                    message=f"{contender.name}, on dev: {words}",
                    n_examples=len(failed),
                    examples=tuple(failed[:10]),
                )
            )
    return found


def check_incumbent_answers(incumbent: Contender) -> None:
    """Refuse an incumbent that fails where it would have to answer.

    Language models and endpoints may well fail on some inputs where they run today, too; a classifier that
    does is read with the wrong settings.

    Raises:
        BrokenArtifact: It gives logits, and fails on more than 1 % of dev.
    """
    n_failed = sum(record.error is not None for record in incumbent.records)
    if asked_once(incumbent.candidate) or n_failed <= MOST_FAILED_SHARE * len(incumbent.records):
        return
    raise BrokenArtifact(
        f"the incumbent must answer at least {1 - MOST_FAILED_SHARE:.0%} of the dev examples, got "
        f"{failure_words(incumbent.records)}. See that its config.json and tokenizer_config.json state the "
        "longest input it can read."
    )
