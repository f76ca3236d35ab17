"""Settings: the same weights, run otherwise. The free gains that every other step has to beat."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import msgspec
import numpy as np

from jettison.backends.text import load_tokenizer
from jettison.candidate import MANIFEST, Candidate
from jettison.compress.step import Made, StepContext
from jettison.errors import InvalidInput, NotEnoughData
from jettison.files import link_or_copy
from jettison.task import Development

COVERED_SHARE = 0.999
"""Share of the data's texts that `max_tokens = "data"` leaves whole."""
TOKENS_OF_A_SENTENCE = 25.0
_ROUND_TO = 8

AtLeastOne = Annotated[int, msgspec.Meta(ge=1)]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Change how a candidate is run; None leaves a setting as it is."""

    threads: AtLeastOne | None = None
    precision: Literal["float32", "bfloat16"] | None = None
    """What the backend computes in, where it has a choice (`openvino`, `hf`)."""
    max_tokens: AtLeastOne | Literal["data"] | None = None
    """Tokens a text is cut to. `data`: enough for 99.9 % of the texts of train, dev and
    `unlabelled`, rounded up to a multiple of 8, and never more than before."""
    batch_size: AtLeastOne | None = None
    pad_to_multiple: AtLeastOne | None = None
    """Token counts are rounded up to this, so that a runtime meets fewer shapes."""

    name: ClassVar[str] = "settings"
    code_version: ClassVar[int] = 1
    reads_data: ClassVar[bool] = True
    libraries: ClassVar[tuple[str, ...]] = ("tokenizers",)

    def make(self, candidate: Candidate, context: StepContext) -> Made:
        """Link the files and write the settings.

        Raises:
            InvalidInput: A setting does not exist for the candidate's backend, or it has no tokens.
            NotEnoughData: `max_tokens = "data"` and there is no text.
        """
        changed, notes = self._changes(candidate, context)
        for entry in candidate.files:
            if entry.path != MANIFEST:
                link_or_copy(candidate.path / entry.path, context.folder / entry.path)
        return Made(
            settings={**candidate.settings, **changed},
            notes=notes,
            resolved={"max_tokens": changed["max_tokens"]} if "max_tokens" in changed else {},
        )

    def _changes(self, candidate: Candidate, context: StepContext) -> tuple[dict[str, Any], dict[str, Any]]:
        given = {name: value for name, value in msgspec.to_builtins(self).items() if value is not None}
        notes: dict[str, Any] = {}
        if "precision" in given:
            precision = given.pop("precision")
            key = {"openvino": "precision", "hf": "dtype"}.get(candidate.backend)
            if key is None and precision != "float32":
                raise InvalidInput(
                    f"precision of backend {candidate.backend!r} must be 'float32', got {precision!r}."
                )
            if key is not None:
                given[key] = precision
        if "max_tokens" in given:
            before = int(candidate.settings.get("max_tokens", 512))
            lengths = token_lengths(candidate, context)
            if given["max_tokens"] == "data":
                given["max_tokens"] = min(before, tokens_to_cover(lengths))
            if len(lengths):
                notes["truncated_share"] = float((lengths > given["max_tokens"]).mean())
                notes["longest_tokens"] = int(lengths.max())
            notes["n_texts"] = len(lengths)
        return given, notes


def token_lengths(candidate: Candidate, context: StepContext) -> np.ndarray:
    """Tokens of each text of train, dev and `unlabelled`, untruncated, shape (n_texts,).

    Raises:
        InvalidInput: The candidate does not read tokens.
    """
    path = candidate.path / "tokenizer.json"
    if not path.is_file():
        raise InvalidInput(
            f"max_tokens must be set on a candidate that reads tokens, got backend {candidate.backend!r}."
        )
    tokenizer = load_tokenizer(path)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    data = context.data
    texts = [example.input for example in (*data.train, *data.dev, *data.unlabelled)]
    return np.array([len(encoding.ids) for encoding in tokenizer.encode_batch_fast(texts)], np.int64)


def mean_tokens(candidate: Candidate, data: Development, *, n_texts: int = 2000) -> float:
    """Tokens of a text of train and `unlabelled`, as the candidate cuts it: the mean of at most so many.

    They are taken at equal distances, as files come sorted. Where the candidate reads no tokens, or there
    are no texts, 25: a long sentence.
    """
    path = candidate.path / "tokenizer.json"
    texts = [example.input for example in (*data.train, *data.unlabelled)]
    if not path.is_file() or not texts:
        return TOKENS_OF_A_SENTENCE
    tokenizer = load_tokenizer(path)
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length=int(candidate.settings.get("max_tokens", 512)))
    part = texts[:: -(-len(texts) // n_texts)]
    return float(np.mean([len(encoding.ids) for encoding in tokenizer.encode_batch_fast(part)]))


def tokens_to_cover(lengths: Sequence[int] | np.ndarray, *, share: float = COVERED_SHARE) -> int:
    """Least multiple of 8 that leaves a share of texts whole.

    Raises:
        NotEnoughData: There are no texts.
    """
    if not len(lengths):
        raise NotEnoughData('max_tokens = "data" needs at least 1 text in train, dev or unlabelled, got 0.')
    enough = int(np.quantile(np.asarray(lengths), share, method="higher"))
    return max(1, -(-enough // _ROUND_TO)) * _ROUND_TO
