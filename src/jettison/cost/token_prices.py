"""Prices of tokens, dated and with their source: the user's own table, or a small one that is bundled."""

import tomllib
from importlib.resources import files
from pathlib import Path

import msgspec

from jettison.errors import InvalidInput
from jettison.files import decode_toml


class TokenPrice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of one model, US dollars."""

    usd_per_million_input: float
    usd_per_million_output: float


class TokenPrices(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of prices, by the name that a model has on its server."""

    date: str
    source: str
    models: dict[str, TokenPrice]
    is_bundled: bool = False

    def usd_per_1000(
        self, model: str | None, prompt_tokens: float | None, completion_tokens: float | None
    ) -> float | None:
        """US dollars per 1,000 tasks of so many tokens each; None where a part of it is not known."""
        price = self.models.get(model or "")
        if price is None or prompt_tokens is None or completion_tokens is None:
            return None
        each = (
            prompt_tokens * price.usd_per_million_input + completion_tokens * price.usd_per_million_output
        )
        return each / 1000

    def priced(self, model: str) -> str:
        """The prices of one model, with where they are from."""
        price, table = self.models[model], "the bundled table" if self.is_bundled else "the table given"
        return (
            f"{model}: {price.usd_per_million_input:g} and {price.usd_per_million_output:g} in {table} "
            f"({self.source}, {self.date})"
        )

    def words(self, model: str) -> str:
        """What the money of one model rests on."""
        price, table = self.models[model], "bundled table" if self.is_bundled else "table given"
        usd_in, usd_out = price.usd_per_million_input, price.usd_per_million_output
        return (
            f"{model} at ${usd_in:g} and ${usd_out:g} per million tokens in and out, times the tokens that "
            f"its server counted ({table}: {self.source}, {self.date}); tokens "
            "from a cache are taken at the full price"
        )


def read_token_prices(path: Path) -> TokenPrices:
    """Read a table of the user's.

    Raises:
        InvalidInput: It is not readable, a field is missing or unknown, or a price is out of range.
    """
    try:
        found = msgspec.convert(decode_toml(path.read_bytes()), TokenPrices)
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise InvalidInput(f"--prices must be a readable TOML file, got {path}: {error}.") from error
    except msgspec.ValidationError as error:
        raise InvalidInput(
            f"{path} must hold date, source and [models.NAME] with usd_per_million_input and "
            f"usd_per_million_output: {error}."
        ) from error
    if not found.date.strip() or not found.source.strip():
        raise InvalidInput(f"prices must have a date and a source, got an empty one at {path}.")
    for name, price in found.models.items():
        for usd in (price.usd_per_million_input, price.usd_per_million_output):
            if not 0 <= usd <= 1e6:
                raise InvalidInput(
                    f"a price must be 0-1,000,000 US dollars per million tokens, got {usd:g} for {name!r} "
                    f"at {path}."
                )
    return msgspec.structs.replace(found, is_bundled=False)


def bundled_token_prices() -> TokenPrices:
    """The small table that comes with jettison."""
    text = (files("jettison.cost") / "token_prices.toml").read_text(encoding="utf-8")
    return msgspec.structs.replace(msgspec.convert(tomllib.loads(text), TokenPrices), is_bundled=True)
