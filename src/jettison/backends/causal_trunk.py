"""The beginning that requests have in common, kept as keys and values from one call to the next."""

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jettison.backends.language_tokens import common_length
from jettison.registry import need

LEAST_SHARED = 8
"""Tokens that contexts must share before a pass of its own is spent on them."""
NEARLY = 0.9
"""A kept trunk is taken again when it holds this share of what the contexts have in common."""


class Trunk(NamedTuple):
    """What contexts begin with."""

    n_tokens: int
    fresh: Callable[[], Any] | None
    """Gives a cache that may be written to; None where nothing is shared."""


class TrunkCache:
    """Remembers the last trunk, so that a preamble is computed once however many calls there are.

    A lone context is compared with that of the call before: from the second request on, a served
    model does not read its preamble again.
    """

    def __init__(self, model: Any, device: str) -> None:
        self._model = model
        self._device = device
        self._ids: tuple[int, ...] = ()
        self._kept: Any = None
        self._last: tuple[int, ...] = ()

    def of(self, contexts: Sequence[tuple[int, ...]]) -> Trunk:
        """The trunk of some contexts; at least one token of each is left over."""
        ends = (min(contexts), max(contexts))
        common = common_length(*ends)
        if ends[0] == ends[1]:
            common = common_length(ends[0], self._last)
        common = min(common, min(map(len, contexts)) - 1)
        self._last = contexts[-1]
        if common < LEAST_SHARED:
            return Trunk(0, None)
        held = min(common, common_length(self._ids, ends[0]))
        if held < max(LEAST_SHARED, NEARLY * common):
            self._ids, held = ends[0][:common], common
            self._kept = self._computed(self._ids)
        # What is left of a kept trunk is for this call alone; the whole stays.
        n = held
        return Trunk(n, lambda: _front(self._kept, n))

    def forget(self) -> None:
        """Give back the memory."""
        self._ids, self._kept, self._last, self._model = (), None, (), None

    def _computed(self, ids: Sequence[int]) -> Any:
        torch = need("torch", "torch")
        with torch.inference_mode():
            given = torch.tensor([list(ids)], device=self._device)
            return self._model(input_ids=given, use_cache=True, logits_to_keep=1).past_key_values


def _front(cache: Any, n_tokens: int) -> Any:
    """The first tokens of a cache, over the same memory: growing it leaves the kept one as it is."""
    made = copy.copy(cache)
    made.layers = [copy.copy(layer) for layer in cache.layers]
    for layer in made.layers:
        layer.keys, layer.values = layer.keys[..., :n_tokens, :], layer.values[..., :n_tokens, :]
    return made
