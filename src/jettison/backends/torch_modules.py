"""The torch modules behind backend `hf`: token ids and mask in, logits out, and nothing else.

Imports torch, so it is imported inside the functions that need it.
"""

from typing import Any

import torch
from torch import nn


class TokenLogits(nn.Module):  # type: ignore[misc]
    """A stock sequence classifier of `transformers`."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    @property
    def config(self) -> Any:
        """The configuration of the checkpoint."""
        return self.model.config

    @property
    def body(self) -> Any:
        """The encoder without its head."""
        return self.model.base_model

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        """Logits, shape (n, n_labels), of ids and mask, both shape (n, n_tokens), int64."""
        return self.model(input_ids=input_ids, attention_mask=attention_mask).logits

    def forward_hidden(self, input_ids: Any, attention_mask: Any) -> tuple[Any, tuple[Any, ...]]:
        """Logits, and the hidden states before and after each layer, shape (n, n_tokens, hidden)."""
        out = self.model(input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True)
        return out.logits, out.hidden_states


class PooledLogits(nn.Module):  # type: ignore[misc]
    """An encoder, its token vectors pooled to one sentence vector, and a linear head."""

    def __init__(self, encoder: Any, head: Any, pooling: str, normalize: bool) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.pooling = pooling
        self.normalize = normalize

    @property
    def config(self) -> Any:
        """The configuration of the encoder."""
        return self.encoder.config

    @property
    def body(self) -> Any:
        """The encoder without its head."""
        return self.encoder

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        """Logits, shape (n, n_labels), of ids and mask, both shape (n, n_tokens), int64."""
        return self.head(self.embed(input_ids, attention_mask))

    def forward_hidden(self, input_ids: Any, attention_mask: Any) -> tuple[Any, tuple[Any, ...]]:
        """Logits, and the hidden states before and after each layer, shape (n, n_tokens, hidden)."""
        out = self.encoder(input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True)
        return self.head(self._pooled(out.last_hidden_state, attention_mask)), out.hidden_states

    def embed(self, input_ids: Any, attention_mask: Any) -> Any:
        """Sentence vectors, shape (n, hidden)."""
        out = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        return self._pooled(out.last_hidden_state, attention_mask)

    def _pooled(self, hidden: Any, attention_mask: Any) -> Any:
        if self.pooling == "cls":
            vectors = hidden[:, 0]
        else:
            weights = attention_mask.unsqueeze(-1).to(hidden.dtype)
            vectors = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
        return torch.nn.functional.normalize(vectors, dim=-1) if self.normalize else vectors
