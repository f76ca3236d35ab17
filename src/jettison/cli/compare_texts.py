"""`jettison compare A B --texts`: two language models side by side on texts that nobody has answered."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from jettison.cli.terminal import no_fuss_when_nobody_reads

if TYPE_CHECKING:
    from jettison.evaluate.fidelity import Fidelity

NAMES = {
    "kl": "divergence from A, nats a token",
    "top_1_agreement": "share of tokens with the same likeliest",
    "perplexity": "perplexity of B",
    "perplexity_incumbent": "perplexity of A",
    "perplexity_ratio": "perplexity, B over A",
}


def compare_texts(
    a: str, b: str, source: Path, *, n_texts: int, kl_at_most: float | None, as_json: bool
) -> int:
    """Print what the texts say; exit code 1 where the divergence may be above `kl_at_most`."""
    import msgspec

    from jettison.loop.compare_texts import fidelity_of, texts_of

    texts = texts_of(source) if source.suffix == ".toml" else _lines_of(source)
    found = fidelity_of(a, b, texts[:n_texts])
    holds = kl_at_most is None or found.kl.high <= kl_at_most
    with no_fuss_when_nobody_reads():
        if as_json:
            facts = {**msgspec.to_builtins(found), "kl_at_most": kl_at_most, "holds": holds}
            click.echo(msgspec.json.format(msgspec.json.encode(facts), indent=2))
        else:
            _show(found, len(texts), kl_at_most, holds=holds)
    return 0 if holds else 1


def _show(found: "Fidelity", n_given: int, kl_at_most: float | None, *, holds: bool) -> None:
    from jettison.cli.tables import table, wide_console

    console = wide_console()
    left = f" (of {n_given:,})" if n_given > found.n_texts else ""
    console.print(f"{found.n_tokens:,} next tokens of {found.n_texts:,} texts{left}, no answers read")
    shown = table("", "value", "95 % interval")
    for name, words in NAMES.items():
        one = getattr(found, name)
        shown.add_row(words, f"{one.value:.4g}", f"{one.low:.4g} to {one.high:.4g}")
    console.print(shown)
    if kl_at_most is not None:
        color, verdict = ("green", "within") if holds else ("red", "not shown to be within")
        console.print(f"[{color}]{verdict} {kl_at_most:g} nats a token[/], upper end {found.kl.high:.4g}")


def _lines_of(source: Path) -> list[str]:
    from jettison.cli.predict import text_rows
    from jettison.errors import InvalidInput

    if not source.is_file():
        raise InvalidInput(f"--texts must be a readable file, got {source}, where there is none.")
    return [row["text"] for row in text_rows((), str(source), "text")]
