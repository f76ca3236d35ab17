"""Training batches that do not fit in memory go through in parts, whose gradients add up to the batch's."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, Self, TypeVar

import numpy as np

MOST_BYTES = 2 << 30
"""Activations kept for one backward pass, on a CPU. A constant, and not what is free: the parts decide how
sums are rounded, and the same seed must give the same weights on any machine."""
LONG_TOKENS = 128
"""Mean length from which attention trains without dropout."""


class Cut(Protocol):
    """Tokenized rows that can be cut into parts."""

    @property
    def ids(self) -> Sequence[Sequence[int]]:
        """Token ids of each row, not padded."""

    def __len__(self) -> int: ...

    def take(self, index: np.ndarray) -> Self:
        """The rows at these places."""


Batch = TypeVar("Batch", bound=Cut)


class Passes:
    """Runs batches forward and backward, each in as many parts as memory asks for.

    Args:
        module: What is trained, with a stock `config` of `transformers`.
        most_bytes: Activations kept for one pass; None takes `MOST_BYTES` on a CPU and half of what is
            free on a GPU.
    """

    def __init__(self, module: Any, most_bytes: int | None = None) -> None:
        # Of a model of texts and images this is the part for texts.
        self._config = module.config.get_text_config()
        self._keeps_pairs = _is_unfused(module) or _drops_attention(module)
        if most_bytes is None:
            most_bytes = _half_of_free(module) or MOST_BYTES
        self._most_bytes = most_bytes

    def parts(self, batch: Batch, n_scored: int = 1) -> Iterator[Batch]:
        """The batch's rows in their order, cut where the next one would not fit; at least one a part.

        A batch stays whole where the configuration does not tell the shape that the estimate needs.

        Args:
            batch: Rows of a batch, best sorted by length.
            n_scored: Places of each row that get logits.
        """
        lengths = [len(row) for row in batch.ids]
        if not _tells_its_shape(self._config):
            yield batch
            return
        start, longest = 0, 0
        for end, length in enumerate(lengths):
            longest = max(longest, length)
            if end > start and self._bytes(end + 1 - start, longest, n_scored) > self._most_bytes:
                yield batch.take(np.arange(start, end))
                start, longest = end, length
        yield batch if start == 0 else batch.take(np.arange(start, len(lengths)))

    def backward(self, batch: Batch, loss: Callable[[Batch], Any], n_scored: int = 1) -> float:
        """Add the gradient of the batch's loss to the parameters'; returns the loss.

        Args:
            batch: Rows of a batch.
            loss: Of a part, its share of the batch's loss: shares add up.
            n_scored: Places of each row that get logits.
        """
        total = 0.0
        for part in self.parts(batch, n_scored):
            share = loss(part)
            total += float(share.detach())
            share.backward()
        return total

    def _bytes(self, n_rows: int, n_tokens: int, n_scored: int) -> int:
        return kept_bytes(self._config, n_rows, n_tokens, n_scored=n_scored, keeps_pairs=self._keeps_pairs)


def kept_bytes(
    config: Any, n_rows: int, n_tokens: int, *, n_scored: int = 1, keeps_pairs: bool = True
) -> int:
    """Estimated activations that a transformer keeps for its backward pass, in bytes.

    An estimate: 1.1 to 1.5 times what BERT, DistilBERT, ModernBERT and Llama keep in float32, up to 2.2
    times where products are in bfloat16; of MPNet 1.4 to 2.5, of DeBERTa-v3 0.8 to 1.1 times.

    Args:
        config: Of a stock checkpoint.
        n_rows: Rows of the batch.
        n_tokens: Tokens of each, padding included.
        n_scored: Places of each row that get logits.
        keeps_pairs: Whether attention keeps a weight for each pair of tokens, as it does where it drops
            some and where no fused kernel computes it.
    """
    hidden = int(config.hidden_size)
    neurons = int(_first(config, "intermediate_size", "hidden_dim", "n_inner") or 4 * hidden)
    heads = int(config.num_attention_heads)
    a_token = 16 * hidden + 3 * neurons
    if keeps_pairs:
        a_token += 4 * heads * n_tokens
    labels = int(getattr(config, "num_labels", 0) or 0)
    vocabulary = int(getattr(config, "vocab_size", 0) or 0)
    scored = 3 * n_scored * (vocabulary if n_scored > 1 else labels)
    return 4 * n_rows * (int(config.num_hidden_layers) * a_token * n_tokens + scored)


def leave_out_attention_dropout(module: Any, lengths: Sequence[int] | np.ndarray) -> str | None:
    """Train long texts without dropout in attention, in place: with it no fused kernel runs.

    Texts of 450 tokens took three times as long with it. Dropout elsewhere stays.

    Returns:
        What was done, for the step's notes; None where nothing was, as in families without such a kernel.
    """
    mean = float(np.mean(lengths)) if len(lengths) else 0.0
    if mean < LONG_TOKENS or _is_unfused(module) or not _drops_attention(module):
        return None
    for part, name in _attention_dropouts(module):
        setattr(part, name, 0.0)
    return f"left out, for speed: texts have {mean:.0f} tokens in the mean"


def _tells_its_shape(config: Any) -> bool:
    return all(
        hasattr(config, name) for name in ("hidden_size", "num_attention_heads", "num_hidden_layers")
    )


def _is_unfused(module: Any) -> bool:
    """Whether the family computes attention without a fused kernel, as DeBERTa and MPNet do."""
    return getattr(module.config, "_attn_implementation", None) == "eager"


def _drops_attention(module: Any) -> bool:
    return any(getattr(part, name) > 0 for part, name in _attention_dropouts(module))


def _attention_dropouts(module: Any) -> list[tuple[Any, str]]:
    """Where rates of dropout of attention weights stand: objects, and names of their attributes."""
    found: list[tuple[Any, str]] = []
    for part in module.modules():
        family = type(part).__name__
        if isinstance(getattr(part, "attention_dropout", None), float):
            found.append((part, "attention_dropout"))
        elif family.endswith("SelfAttention") and hasattr(getattr(part, "dropout", None), "p"):
            found.append((part.dropout, "p"))
    return found


def _half_of_free(module: Any) -> int | None:
    """Half of the free memory of the GPU that a module is on, in bytes; None on a CPU."""
    device = next(module.parameters()).device
    if device.type != "cuda":
        return None
    import torch

    return int(torch.cuda.mem_get_info(device)[0]) // 2


def _first(config: Any, *names: str) -> int | None:
    return next((value for name in names if (value := getattr(config, name, None))), None)
