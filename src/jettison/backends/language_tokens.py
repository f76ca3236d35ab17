"""Texts as token ids of a language model, by its tokenizer's own conventions, and its chat template."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from jettison.backends.text import without_surrogates
from jettison.candidate import Candidate
from jettison.errors import BrokenArtifact, InvalidInput
from jettison.language import Continuation
from jettison.registry import need
from jettison.task.prompt import Message


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
            read = self._fast.encode_batch_fast(clean, add_special_tokens=False)
            found = [encoding.ids for encoding in read]
        else:
            found = [self.tokenizer.encode(text, add_special_tokens=False) for text in clean]
        if self._bos is None:
            return found
        return [ids if ids[:1] == [self._bos] else [self._bos, *ids] for ids in found]

    def pairs(self, asked: Sequence[Continuation]) -> list[TokenPair]:
        """Context and continuation of each request; the split falls where it would in the whole text.

        Raises:
            InvalidInput: A continuation has no token, or more than the model can read.

        Source: lm-evaluation-harness, `TemplateLM._encode_pair`: trailing white space of the context
        belongs to the continuation, whose tokens are those of the whole after the context's.
        """
        split = [_at_last_word(one) for one in asked]
        unique = list(dict.fromkeys(context for context, _ in split))
        contexts = dict(zip(unique, self.encode(unique), strict=True))
        wholes = self.encode([context + text for context, text in split])
        return [
            self._pair(one, contexts[context], whole)
            for one, (context, _), whole in zip(asked, split, wholes, strict=True)
        ]

    def _pair(self, asked: Continuation, context: list[int], whole: list[int]) -> TokenPair:
        ending = whole[len(context) :]
        if not 0 < len(ending) <= self.max_context:
            raise InvalidInput(
                f"a continuation must be 1 to {self.max_context} tokens long, got {len(ending)} "
                f"of {asked.text[:60]!r}."
            )
        # The last token of an ending is asked for and never read.
        room = self.max_context + 1 - len(ending)
        return TokenPair(tuple((context or [self.start])[-room:]), tuple(ending))


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
    try:
        return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
    except Exception as error:
        if not turns or turns[0]["role"] != "system" or len(turns) < 2:
            raise InvalidInput(f"the model's chat template refuses the prompt: {error}.") from error
    system, first, *rest = turns
    merged = {"role": "user", "content": f"{system['content']}\n\n{first['content']}"}
    return str(tokenizer.apply_chat_template([merged, *rest], tokenize=False, add_generation_prompt=True))


def _at_last_word(asked: Continuation) -> tuple[str, str]:
    """Context without its trailing white space, and the continuation with it."""
    bare = asked.context.rstrip()
    return bare, asked.context[len(bare) :] + asked.text
