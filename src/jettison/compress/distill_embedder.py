"""Step `distill_embedder`: an encoder's knowledge of single tokens as a table, without a network."""

from typing import Annotated, Any, ClassVar

import msgspec
import numpy as np

from jettison.backends.hf import load_pretrained
from jettison.backends.text import load_tokenizer
from jettison.candidate import Candidate
from jettison.compress.checkpoint import LICENCE_FILES, take_over, torch_run
from jettison.compress.embedder_index import index_corpus
from jettison.compress.quantize_embedder import check_encoder
from jettison.compress.step import Made, StepContext
from jettison.files import link_or_copy

KEPT = ("kind", "query_prefix", "passage_prefix", "depth")
RARE = 1e-3
"""Share of all tokens at which a token's weight is halved."""
_BATCH = 1024


class DistillEmbedder(msgspec.Struct, frozen=True, kw_only=True):
    """Embed each token of the vocabulary alone, keep the main directions, weigh rare tokens up.

    A text is then the mean of its tokens' vectors: two products and a sum where the encoder has millions.
    It knows nothing of word order, and loses most where that matters.

    Source:
        Model2Vec, Tulkens & van Dongen 2024; weights by smooth inverse frequency, Arora et al. 2017, here
        counted on the task's own texts.
    """

    name: ClassVar[str] = "distill_embedder"
    code_version: ClassVar[int] = 1
    reads_data: ClassVar[bool] = True
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers")

    dimensions: Annotated[int, msgspec.Meta(ge=2)] = 256
    """Main directions kept; no more than the encoder is wide."""

    def make(self, candidate: Candidate, context: StepContext) -> Made:
        """Embed the vocabulary, reduce, weigh, save.

        Raises:
            StepFailed: The candidate is no encoder's checkpoint that embeds.
            MissingExtra: torch or transformers is not installed.
        """
        check_encoder(candidate, self.name)
        tokenizer = load_tokenizer(candidate.path / "tokenizer.json")
        tokenizer.no_padding()
        tokenizer.no_truncation()
        with torch_run(seed=context.seed, threads=context.threads):
            vectors = token_vectors(candidate, tokenizer, context)
        table, kept_share = main_directions(vectors, self.dimensions)
        table *= rarity(tokenizer, len(table), _texts(context))[:, None]
        link_or_copy(candidate.path / "tokenizer.json", context.folder / "tokenizer.json")
        _save(table, context)
        take_over(candidate.path, context.folder, LICENCE_FILES)
        settings = {key: candidate.settings[key] for key in KEPT if key in candidate.settings}
        notes: dict[str, Any] = {"n_tokens": len(table), "variance_kept": round(kept_share, 4)}
        notes["n_passages"] = index_corpus(context.folder, settings, context.data, context.progress)
        return Made(settings=settings, notes=notes, resolved={"dimensions": table.shape[1]})


def token_vectors(candidate: Candidate, tokenizer: Any, context: StepContext) -> np.ndarray:
    """Each token embedded between the encoder's marks of beginning and end, shape (n_tokens, width)."""
    import torch

    from jettison.backends.torch_modules import PooledLogits

    encoder = load_pretrained(candidate.path, "AutoModel")
    module = PooledLogits(encoder, None, str(candidate.settings.get("pooling", "mean")), False).eval()
    n_tokens = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1
    around = tokenizer.post_process(tokenizer.encode("", add_special_tokens=False)).ids
    head, tail = around[:1], around[1:]
    found = []
    with torch.inference_mode():
        for start in range(0, n_tokens, _BATCH):
            rows = [[*head, token, *tail] for token in range(start, min(start + _BATCH, n_tokens))]
            ids = torch.tensor(rows)
            found.append(module.embed(ids, torch.ones_like(ids)).numpy())
            context.progress("embedding the vocabulary", min(1.0, (start + _BATCH) / n_tokens))
    return np.concatenate(found)


def main_directions(vectors: np.ndarray, n: int) -> tuple[np.ndarray, float]:
    """Vectors, less their mean, in the n directions of most variance, and the share of variance in them."""
    centered = vectors.astype(np.float64) - vectors.mean(axis=0)
    values, directions = np.linalg.eigh(centered.T @ centered)
    order = np.argsort(-values)[: min(n, len(values))]
    share = float(values[order].sum() / values.sum())
    return (centered @ directions[:, order]).astype(np.float32), share


def rarity(tokenizer: Any, n_tokens: int, texts: list[str]) -> np.ndarray:
    """Weight of each token, shape (n_tokens,): 1 for one never seen, less the more frequent it is."""
    counts = np.zeros(n_tokens)
    for encoding in tokenizer.encode_batch(texts, add_special_tokens=False):
        np.add.at(counts, encoding.ids, 1)
    shares = counts / max(1.0, counts.sum())
    return np.asarray(RARE / (RARE + shares), np.float32)


def _texts(context: StepContext) -> list[str]:
    """The task's own texts: what is searched or ranked, and what is asked."""
    data = context.data
    asked = [*data.train, *data.unlabelled, *data.dev_fit]
    ranked = {choice for example in asked for choice in example.choices}
    return [*(passage.text for passage in data.corpus), *(e.input for e in asked), *sorted(ranked)]


def _save(table: np.ndarray, context: StepContext) -> None:
    from safetensors.numpy import save_file

    # Half of float32's bytes; what it rounds off is far below what a mean of tokens leaves out.
    save_file({"embeddings": table.astype(np.float16)}, context.folder / "model.safetensors")
