"""Texts as token ids of a language model, by its tokenizer's own conventions, and its chat template."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from jettison.backends.words import without_surrogates
from jettison.candidate import Candidate
from jettison.errors import BrokenArtifact, InvalidInput
from jettison.language import Continuation
from jettison.registry import need
from jettison.task.prompt import Message

LEAST_CHARACTERS = 128
"""What texts must share before it is read apart."""
MARGIN = 32


class TokenPair(NamedTuple):
    """A context and what is asked after it, as token ids; neither is empty."""

    context: tuple[int, ...]
    ending: tuple[int, ...]


class LanguageTokens:
    """A tokenizer of `transformers`, read in batches, with one beginning-of-sequence token at most.

    Args:
        tokenizer: As `load_language_tokenizer` gives it.
        add_bos: Whether texts begin with the beginning-of-sequence token; None does as the
            tokenizer does by itself. A text that begins with one is left as it is.
        max_context: Longest input of the model, in tokens.
    """

    def __init__(self, tokenizer: Any, *, add_bos: bool | None, max_context: int) -> None:
        self.tokenizer = tokenizer
        self.max_context = max_context
        start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
        own = start is not None and list(tokenizer.encode(""))[:1] == [start]
        self._bos = start if (own if add_bos is None else add_bos) else None
        self.start = int(start if start is not None else (end or 0))
        """Read before a text that has nothing before it."""
        pad = tokenizer.pad_token_id
        self.pad = int(pad if pad is not None else (end or 0))
        """Fills short rows; it is masked, so any token will do."""
        self._fast: Any = getattr(tokenizer, "backend_tokenizer", None)
        if self._fast is not None:
            self._fast.no_truncation()
            self._fast.no_padding()

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, as long as it is."""
        clean = [without_surrogates(text) for text in texts]
        if self._fast is not None:
            found = encode_sharing(self._fast, clean)
        else:
            found = [self.tokenizer.encode(text, add_special_tokens=False) for text in clean]
        if self._bos is None:
            return found
        return [ids if ids[:1] == [self._bos] else [self._bos, *ids] for ids in found]

    def marked(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids with the marks that the tokenizer puts around a text; a long one loses its beginning."""
        self.tokenizer.truncation_side = "left"
        clean = [without_surrogates(text) for text in texts]
        read = self.tokenizer(clean, truncation=True, max_length=self.max_context) if clean else None
        if self._fast is not None:
            self._fast.no_truncation()
        return [] if read is None else [list(ids) or [self.start] for ids in read.input_ids]

    def pairs(self, asked: Sequence[Continuation]) -> list[TokenPair]:
        """Context and continuation of each request; the split falls where it would in the whole text.

        Raises:
            InvalidInput: A continuation has no token, or more than the model can read.

        Source: lm-evaluation-harness, `TemplateLM._encode_pair`: trailing white space of the context
        belongs to the continuation, whose tokens are those of the whole after the context's.
        """
        split = [at_last_word(one) for one in asked]
        unique = list(dict.fromkeys(context for context, _ in split))
        contexts = dict(zip(unique, self.encode(unique), strict=True))
        wholes = self.encode([context + text for context, text in split])
        return [
            self._pair(one, contexts[context], whole)
            for one, (context, _), whole in zip(asked, split, wholes, strict=True)
        ]

    def check_ending(self, text: str, n_tokens: int) -> None:
        """Raise if the model cannot say how likely a continuation of so many tokens is."""
        if not 0 < n_tokens <= self.max_context:
            raise InvalidInput(
                f"a continuation must be 1 to {self.max_context} tokens long, got {n_tokens} "
                f"of {text[:60]!r}."
            )

    def _pair(self, asked: Continuation, context: list[int], whole: list[int]) -> TokenPair:
        ending = whole[len(context) :]
        self.check_ending(asked.text, len(ending))
        # The last token of an ending is asked for and never read.
        room = self.max_context + 1 - len(ending)
        return TokenPair(tuple((context or [self.start])[-room:]), tuple(ending))


def encode_sharing(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Ids of texts by a `tokenizers.Tokenizer`; a long beginning that all share is read once.

    Words that the tokenizer cuts a text into before it looks for tokens (its pre-tokens) are read one
    by one, so tokens after a cut do not depend on those before it, and where the cuts fall depends on
    the characters next to them alone. A tokenizer that makes no such cuts is given the whole texts.
    """
    ends = (min(texts, default=""), max(texts, default=""))
    n = common_length(*ends) if len(texts) > 1 else 0
    cut = _word_cut(tokenizer, ends[0][:n]) if n >= LEAST_CHARACTERS else None
    if cut is None:
        return [e.ids for e in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]
    rests = tokenizer.encode_batch_fast([text[cut.at :] for text in texts], add_special_tokens=False)
    return [[*cut.ids, *rest.ids] for rest in rests]


def padded(rows: Sequence[Sequence[int]], pad: int, side: Literal["left", "right"]) -> tuple[Any, Any]:
    """Ids and mask of rows, filled up on one side, two int64 tensors of shape (n, n_tokens)."""
    torch = need("torch", "torch")
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), pad)
    mask = torch.zeros((len(rows), longest), dtype=torch.long)
    for i, row in enumerate(rows):
        place = slice(0, len(row)) if side == "right" else slice(longest - len(row), longest)
        ids[i, place] = torch.tensor(list(row), dtype=torch.long)
        mask[i, place] = 1
    return ids, mask


def common_length(one: Sequence[Any], other: Sequence[Any]) -> int:
    """How many items two sequences begin with alike."""
    n = min(len(one), len(other))
    return next((i for i in range(n) if one[i] != other[i]), n)


class _Cut(NamedTuple):
    at: int
    """Characters before it."""
    ids: list[int]


def _word_cut(tokenizer: Any, head: str) -> _Cut | None:
    """The last place in a text where it may be cut, whatever comes after it; None if there is none.

    It keeps a distance from the end, where what comes after might still join in: the longest
    added token, at least `MARGIN`.
    """
    read = tokenizer.encode(head, add_special_tokens=False)
    added = max((len(token.content) for token in tokenizer.get_added_tokens_decoder().values()), default=0)
    last = len(head) - max(MARGIN, added)
    starts = [
        i
        for i in range(1, len(read.ids))
        if read.word_ids[i] != read.word_ids[i - 1] and read.offsets[i - 1][1] <= last
    ]
    for i in reversed(starts[-8:]):
        at = read.offsets[i - 1][1]
        parts = tokenizer.encode_batch_fast([head[:at], head[at:]], add_special_tokens=False)
        # Not so where a tokenizer puts a space before every text, or takes one away.
        if parts[0].ids == read.ids[:i] and parts[1].ids == read.ids[i:]:
            return _Cut(at, read.ids[:i])
    return None


def load_language_tokenizer(candidate: Candidate) -> Any:
    """The checkpoint's tokenizer, with its chat template.

    Raises:
        BrokenArtifact: There is none that loads.
    """
    transformers = need("transformers", "torch")
    try:
        return transformers.AutoTokenizer.from_pretrained(
            candidate.path,
            local_files_only=True,
            trust_remote_code=bool(candidate.settings.get("trust_remote_code", False)),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BrokenArtifact(f"{candidate.path} must hold a tokenizer, got: {reason}") from error


def apply_template(tokenizer: Any, messages: Sequence[Message]) -> str:
    """The chat as text; where a template knows no system role, it is put before the first question.

    Raises:
        InvalidInput: The template refuses the messages.
    """
    turns = [{"role": m.role, "content": m.content} for m in messages]
    tries = [turns]
    if len(turns) > 1 and turns[0]["role"] == "system":
        system, first, *rest = turns
        tries.append([{"role": "user", "content": f"{system['content']}\n\n{first['content']}"}, *rest])
    for asked in tries:
        try:
            return str(tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True))
        except Exception as error:  # noqa: BLE001 - a template is code of the checkpoint's own
            refusal = error
    raise InvalidInput(f"the model's chat template refuses the prompt: {refusal}.") from refusal


def at_last_word(asked: Continuation) -> tuple[str, str]:
    """Context without its trailing white space, and the continuation with it."""
    bare = asked.context.rstrip()
    return bare, asked.context[len(bare) :] + asked.text
