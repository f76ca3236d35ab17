"""Step `trim_vocabulary`: tokens that the task never uses leave the tokenizer and the embedding table."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import msgspec

from jettison.backends.hf import load_torch, quiet_transformers
from jettison.backends.text import load_tokenizer
from jettison.candidate import Candidate
from jettison.compress.answer_rows import PromptTokens, known_answer
from jettison.compress.causal import load_causal, save_causal
from jettison.compress.checkpoint import LICENCE_FILES, check_hf, save_torch, take_over, torch_run
from jettison.compress.step import Made, StepContext
from jettison.errors import NotEnoughData, StepFailed
from jettison.files import decode_json, write_json
from jettison.registry import need
from jettison.task import Development, Example


class TrimVocabulary(msgspec.Struct, frozen=True, kw_only=True):
    """Keep the tokens of train and unlabelled texts, special tokens and single characters.

    Of a causal language model the texts are the rendered prompts with their answers; its token
    probabilities are then shared among the tokens left.

    Logits stay the same on every text that still becomes the same tokens. How many do not is
    measured on dev, which the vocabulary was not chosen on.
    """

    name: ClassVar[str] = "trim_vocabulary"
    code_version: ClassVar[int] = 1
    reads_data: ClassVar[bool] = True
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers", "skeletoken", "tokenizers")

    min_count: Annotated[int, msgspec.Meta(ge=1)] = 1
    """Times a token must occur in those texts to stay."""
    keep_characters: bool = True
    """Keep every single character, so that an unseen word is spelled out and not unknown."""
    keep: tuple[str, ...] = ()
    """Further texts whose tokens stay, such as product names."""

    def make(self, candidate: Candidate, context: StepContext) -> Made:
        """Count, cut, measure, save.

        Raises:
            StepFailed: The candidate is no torch checkpoint, or its tokenizer cannot be cut.
            NotEnoughData: There is no text to choose a vocabulary on.
            MissingExtra: skeletoken is not installed.
        """
        causal = candidate.backend == "hf_causal"
        if not causal:
            check_hf(candidate, self.name)
        skeletoken = need("skeletoken", "torch")
        path = candidate.path / "tokenizer.json"
        whole = load_tokenizer(path)
        whole.no_padding()
        texts = _texts(candidate, context.data, (*context.data.train, *context.data.unlabelled))
        if not texts:
            raise NotEnoughData("step 'trim_vocabulary' needs train or unlabelled texts, got none.")
        context.progress("counting tokens", None)
        model = skeletoken.TokenizerModel.from_string(path.read_text(encoding="utf-8"))
        kept = self._kept(model, whole, texts)
        removed = [token for token in model.vocabulary if token not in kept]
        context.progress("cutting the vocabulary", None)
        trimmed_model = _remove(model, removed)
        trimmed = trimmed_model.to_tokenizer()
        trimmed.no_padding()
        if self.min_count == 1 and (changed := _changed(whole, trimmed, texts)):
            raise StepFailed(
                f"a trimmed tokenizer must cut the texts it was made from as before, got {len(changed)} "
                f"of {len(texts)} changed, first {changed[0]!r}. Keep this candidate's vocabulary whole."
            )
        with torch_run(seed=context.seed, threads=context.threads):
            module = load_causal(candidate) if causal else load_torch(candidate).float()
            bytes_before = _embedding_bytes(module)
            module = _reshape(module, trimmed_model)
            (save_causal if causal else save_torch)(module, context.folder, source=candidate.path)
        _write_tokenizer(trimmed, candidate.path, context.folder)
        pad = whole.id_to_token(int(candidate.settings.get("pad_id", 0)))
        pad_id = trimmed.token_to_id(pad) if pad is not None else None
        notes = {
            "tokens_before": len(model.vocabulary),
            "tokens": len(trimmed_model.vocabulary),
            "embedding_bytes_before": bytes_before,
            "embedding_bytes": _embedding_bytes(module),
            "unseen": _compare(whole, trimmed, _texts(candidate, context.data, context.data.dev)),
            "warning": "llama.cpp's own converter refuses a changed tokenizer (llama.cpp#27277)",
        }
        moved = {} if causal else {"pad_id": pad_id or 0}
        return Made(settings={**candidate.settings, **moved}, notes=notes)

    def _kept(self, model: Any, tokenizer: Any, texts: Sequence[str]) -> set[str]:
        """Tokens that stay."""
        counts: Counter[str] = Counter()
        for encoding in tokenizer.encode_batch(list(texts)):
            counts.update(encoding.tokens)
        kept = {token for token, count in counts.items() if count >= self.min_count}
        for text in self.keep:
            kept.update(tokenizer.encode(text).tokens)
        kept.update(token.content for token in model.added_tokens.root)
        kept.update(token for token in (model.unk_token, model.pad_token) if token is not None)
        # Plain words that stand for bytes must stay whatever the texts are.
        prefix = model.continuing_subword_prefix or ""
        for token in model.vocabulary:
            is_byte = token.startswith("<0x") and token.endswith(">")
            core = token.removeprefix(prefix) if prefix else token
            if is_byte or (self.keep_characters and len(core) == 1):
                kept.add(token)
        return kept | _merge_parts(model, kept)


def _texts(candidate: Candidate, data: Development, examples: Sequence[Example]) -> list[str]:
    """What the model reads, and of a language model what it says, for some examples."""
    if candidate.backend != "hf_causal" or not examples:
        return [example.input for example in examples]
    tokens = PromptTokens(candidate, 1 << 30)
    kind = str(candidate.settings.get("kind", data.kind))
    prompts = [tokens.context(example.asked) for example in examples]
    said = [known_answer(example, kind) for example in examples]
    options = [option for example in examples for option in example.choices]
    # Every label and choice is weighed for every input, whatever the right answer is.
    ends = [tokens.answer(option) for option in dict.fromkeys((*candidate.labels, *options))]
    answered = [
        f"{prompt}{tokens.answer(answer or '')}" for prompt, answer in zip(prompts, said, strict=True)
    ]
    return [*prompts, *answered, *(f"{prompts[0]}{end}" for end in ends)]


def _merge_parts(model: Any, kept: Iterable[str]) -> set[str]:
    """Tokens that byte-pair merges pass through on the way to those kept."""
    merges = getattr(model.model, "merges", None)
    if merges is None:
        return set()
    makers: dict[str, list[tuple[str, str]]] = {}
    for left, right in merges.root:
        makers.setdefault(left + right, []).append((left, right))
    found: set[str] = set()
    queue = list(kept)
    while queue:
        for pair in makers.get(queue.pop(), ()):
            for part in pair:
                if part not in found:
                    found.add(part)
                    queue.append(part)
    return found


def _remove(model: Any, tokens: list[str]) -> Any:
    try:
        return model.remove_tokens_from_vocabulary(tokens)
    except (ValueError, KeyError) as error:
        raise StepFailed(
            f"the tokenizer must be one that skeletoken can cut, got {type(error).__name__}: {error}."
        ) from error


def _reshape(module: Any, tokenizer_model: Any) -> Any:
    """The module with its table of embeddings cut down to the tokens left, in their new order."""
    from skeletoken.external.transformers import reshape_embeddings

    with quiet_transformers():
        if hasattr(module, "head"):
            module.encoder = reshape_embeddings(module.encoder, tokenizer_model)
        elif hasattr(module, "body"):
            module.model = reshape_embeddings(module.model, tokenizer_model)
        else:
            module = reshape_embeddings(module, tokenizer_model)
    return module


def _write_tokenizer(tokenizer: Any, source: Path, folder: Path) -> None:
    """Replace the tokenizer files; those that number the old vocabulary do not come along."""
    for name in ("vocab.txt", "vocab.json", "merges.txt", "added_tokens.json", "tokenizer.json"):
        (folder / name).unlink(missing_ok=True)
    for name in ("spiece.model", "sentencepiece.bpe.model"):
        (folder / name).unlink(missing_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    take_over(source, folder, LICENCE_FILES)
    path = source / "tokenizer_config.json"
    if path.exists():
        stored = decode_json(path.read_bytes(), dict[str, Any])
        stored.pop("added_tokens_decoder", None)
        (folder / path.name).unlink(missing_ok=True)
        write_json(folder / path.name, stored)


def _changed(whole: Any, trimmed: Any, texts: Sequence[str]) -> list[str]:
    """Texts that the two tokenizers cut differently."""
    pairs = zip(whole.encode_batch(list(texts)), trimmed.encode_batch(list(texts)), strict=True)
    return [text for text, (a, b) in zip(texts, pairs, strict=True) if a.tokens != b.tokens]


def _compare(whole: Any, trimmed: Any, texts: Sequence[str]) -> dict[str, float | int] | None:
    """What trimming does to texts it has not seen; None when there are none."""
    if not texts:
        return None
    before = [e.tokens for e in whole.encode_batch(list(texts))]
    after = [e.tokens for e in trimmed.encode_batch(list(texts))]
    unknown = getattr(whole.model, "unk_token", None)
    n_before, n_after = sum(map(len, before)), sum(map(len, after))
    return {
        "n_texts": len(texts),
        "changed_share": sum(a != b for a, b in zip(before, after, strict=True)) / len(texts),
        "tokens_per_text_before": n_before / len(texts),
        "tokens_per_text": n_after / len(texts),
        "unknown_share_before": sum(row.count(unknown) for row in before) / max(1, n_before),
        "unknown_share": sum(row.count(unknown) for row in after) / max(1, n_after),
    }


def _embedding_bytes(module: Any) -> int:
    weight = getattr(module, "body", module).get_input_embeddings().weight
    return int(weight.numel() * weight.element_size())
