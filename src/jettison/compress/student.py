"""The network that `distill_static` trains, and its arrays as the static backend reads them.

A token's vector is the incumbent's own embedding, projected, plus a correction for tokens
that training saw. A convolution sees words in their order; sums and maxima over the text
feed a small perceptron beside a linear layer. Imported only where torch is.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from jettison.backends.static import EPSILON


class StaticStudent(nn.Module):  # type: ignore[misc]  # torch ships no types that mypy follows here
    """Token table, folded convolution, pooling, perceptron.

    Args:
        table: Token vectors of the incumbent, shape (n_tokens, width of the incumbent), or None.
        seen: Ids of the tokens in the training texts, ascending.
        n_tokens: Size of the vocabulary.
        n_labels: Number of labels.
        d: Length of a token vector.
        channels: Features of the convolution.
        window: Tokens that the convolution spans.
        hidden: Neurons of the perceptron; 0 has none.
        skip: Whether a linear layer stands beside the perceptron.
        dropout: Share of pooled and hidden features hidden in training.
        token_dropout: Share of tokens seen without their correction in training, as an unseen
            token is, so that the projected table keeps carrying meaning by itself.
    """

    def __init__(
        self,
        table: np.ndarray | None,
        seen: np.ndarray,
        *,
        n_tokens: int,
        n_labels: int,
        d: int,
        channels: int,
        window: int,
        hidden: int,
        skip: bool,
        dropout: float,
        token_dropout: float,
    ) -> None:
        super().__init__()
        self.window, self.token_dropout = window, token_dropout
        self.n_tokens, self.n_labels = n_tokens, n_labels
        d = d if table is None else min(d, table.shape[1])
        slots = torch.zeros(n_tokens + 1, dtype=torch.long)
        slots[torch.from_numpy(seen)] = torch.arange(1, len(seen) + 1)
        self.register_buffer("slots", slots)
        self.delta = nn.Embedding(len(seen) + 1, d, padding_idx=0)
        if table is None:
            self.project = None
            nn.init.normal_(self.delta.weight, std=0.5)
        else:
            scaled, principal = _scaled_table(table, seen, d)
            self.register_buffer("table", scaled)
            self.project = nn.Parameter(principal)
            nn.init.zeros_(self.delta.weight)
        with torch.no_grad():
            self.delta.weight[0] = 0.0
        self.conv = nn.Linear(window * d, channels)
        n_features = 2 * (d + channels)
        self.norm = nn.LayerNorm(n_features, eps=EPSILON)
        self.drop = nn.Dropout(dropout)
        self.linear = nn.Linear(n_features, n_labels) if skip or not hidden else None
        self.inner = nn.Linear(n_features, hidden) if hidden else None
        self.outer = nn.Linear(hidden, n_labels) if hidden else None

    def forward(self, ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Logits, shape (n, n_labels), of ids, shape (n, longest), padded behind `lengths` by the blank."""
        slots = self.slots[ids]
        if self.training and self.token_dropout:
            slots = slots * (torch.rand(ids.shape) >= self.token_dropout)
        vectors = self.delta(slots)
        if self.project is not None:
            # Each token once: a batch repeats its tokens many times.
            known, places = torch.unique(ids, return_inverse=True)
            vectors = vectors + functional.embedding(places, self.table[known] @ self.project)
        reach = self.window - 1
        shifted = [functional.pad(vectors, (0, 0, back, reach - back)) for back in range(self.window)]
        windows = functional.relu(self.conv(torch.cat(shifted, -1)))
        inside = torch.arange(ids.shape[1] + reach) < (lengths + reach)[:, None]
        windows = windows * inside[:, :, None]
        empty = (torch.arange(ids.shape[1]) >= lengths[:, None])[:, :, None]
        root = lengths[:, None].to(vectors.dtype) ** -0.5
        pooled = [
            vectors.masked_fill(empty, 0.0).sum(1) * root,
            windows.sum(1) * root,
            vectors.masked_fill(empty, -torch.inf).amax(1),
            windows.amax(1),
        ]
        features = self.drop(self.norm(torch.cat(pooled, -1)))
        parts = []
        if self.linear is not None:
            parts.append(self.linear(features))
        if self.inner is not None and self.outer is not None:
            parts.append(self.outer(self.drop(functional.relu(self.inner(features)))))
        return sum(parts[1:], parts[0])

    @torch.no_grad()  # type: ignore[untyped-decorator]  # as above
    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays of `model.safetensors`: the layer norm folded into the first product."""
        tokens = self.delta(self.slots[: self.n_tokens])
        if self.project is not None:
            tokens = tokens + self.table[: self.n_tokens] @ self.project
        layers = [layer for layer in (self.inner, self.linear) if layer is not None]
        weight = torch.cat([layer.weight for layer in layers]).T
        bias = torch.cat([layer.bias for layer in layers]) + self.norm.bias @ weight
        first = self.norm.weight[:, None] * weight
        channels, n_labels = self.conv.out_features, self.n_labels
        outer = self.outer
        found = {
            "tokens": tokens,
            "conv": self.conv.weight.T.reshape(self.window, -1, channels),
            "conv_bias": self.conv.bias,
            # Columns of mean zero: the mean of the features then drops out by itself.
            "first": first - first.mean(0),
            "first_bias": bias,
            "second": torch.zeros(0, n_labels) if outer is None else outer.weight.T,
            "second_bias": torch.zeros(n_labels) if outer is None else outer.bias,
        }
        return {name: np.ascontiguousarray(array.float().numpy()) for name, array in found.items()}


def _scaled_table(table: np.ndarray, seen: np.ndarray, d: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The table centered and scaled, with a zero row behind, and its `d` main directions among `seen`."""
    rows = torch.from_numpy(np.ascontiguousarray(table, np.float32))
    centered = rows - rows.mean(0)
    directions = torch.linalg.svd(centered[torch.from_numpy(seen)], full_matrices=False)[2][:d].T
    principal = torch.zeros(rows.shape[1], d)
    principal[:, : directions.shape[1]] = directions
    if directions.shape[1] < d:
        nn.init.normal_(principal[:, directions.shape[1] :], std=rows.shape[1] ** -0.5)
    scaled = centered / centered.norm(dim=1).mean().clamp(min=1e-12) * (0.5 * d**0.5)
    return torch.cat([scaled, torch.zeros(1, rows.shape[1])]), principal
