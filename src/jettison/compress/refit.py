"""Refits, in closed form, what is left of a layer to give what the whole layer gave."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, NamedTuple

from jettison.compress.anatomy import Anatomy, layers_of


class Cut(NamedTuple):
    """What goes in a layer, and the linear map to refit, whose output is added to what goes around."""

    layer: int
    """Its number."""
    make: Callable[[Any], None]
    """Cuts the layer, in place."""
    out: str
    """Path of the map."""
    after: str
    """Path of the norm that reads the sum; empty where the sum is what the layer gives."""


class Waiting:
    """Texts on their way through a model, all of them waiting before one layer.

    So that a layer is not computed again for each that comes after it. In a family whose layers do not
    simply follow each other, every look starts at the tokens.

    Args:
        module: As of `load_torch`, in eval mode. Layers from the one waited before may change.
        anatomy: Of its family.
        batches: Token ids and masks, each of shape (n, n_tokens).
    """

    def __init__(self, module: Any, anatomy: Anatomy, batches: Sequence[tuple[Any, Any]]) -> None:
        import torch

        self.layers = layers_of(module, anatomy)
        self.at = 0
        self._module, self._batches = module, batches
        self._held: list[Any] = []
        self._beside: list[list[tuple[tuple[Any, ...], dict[str, Any]]]] = []
        self._follow = True
        with torch.no_grad():
            for number, batch in enumerate(batches):
                inputs, beside = self._called(batch)
                self._held.append(inputs[0])
                self._beside.append(beside)
                if number == 0:
                    self._follow = self._replays(inputs)

    def go_to(self, layer: int) -> None:
        """Wait before a later layer."""
        import torch

        while self.at < layer:
            if self._follow:
                with torch.no_grad():
                    self._held = [self._through(number, self.at) for number in range(len(self._batches))]
            self.at += 1

    def look(self, cut: Cut) -> Iterator[tuple[Any, Any, Any]]:
        """What the map to refit reads and gives, and the sum of that with what goes around.

        Yields:
            For each batch, of each real token: shapes (n, n_in), (n, hidden), (n, hidden).
        """
        self.go_to(cut.layer)
        with _watched(self.layers[cut.layer], cut) as seen:
            for number, (ids, mask) in enumerate(self._batches):
                with suppress(_Reached):
                    if self._follow:
                        self._through(number, cut.layer)
                    else:
                        self._module(ids, mask)
                real = mask.bool().reshape(-1)
                read, gave, total = (seen[name] for name in ("read", "gave", "sum"))
                yield tuple(value.reshape(len(real), -1)[real] for value in (read, gave, total))

    def _called(
        self, batch: tuple[Any, Any]
    ) -> tuple[list[Any], list[tuple[tuple[Any, ...], dict[str, Any]]]]:
        """Hidden states that each layer is called with, and what it is given beside them."""
        inputs: list[Any] = []
        beside: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

        def keep(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            rest = dict(kwargs)
            inputs.append(args[0] if args else rest.pop("hidden_states"))
            beside.append((args[1:], rest))
            if layer is self.layers[-1]:
                raise _Reached

        with ExitStack() as stack, suppress(_Reached):
            for layer in self.layers:
                handle = layer.register_forward_pre_hook(keep, with_kwargs=True)
                stack.callback(handle.remove)
            self._module(*batch)
        return inputs, beside

    def _replays(self, inputs: list[Any]) -> bool:
        """Whether each layer of the first batch was given what the one before it gives."""
        import torch

        given = zip(inputs[1:], range(len(inputs) - 1), strict=True)
        for wanted, layer in given:
            self._held[0] = inputs[layer]
            if not torch.equal(self._through(0, layer), wanted):
                return False
        self._held[0] = inputs[0]
        return len(inputs) == len(self.layers)

    def _through(self, number: int, layer: int) -> Any:
        """What a layer gives for a batch that waits before it."""
        args, kwargs = self._beside[number][layer]
        given = self.layers[layer](self._held[number], *args, **kwargs)
        return given[0] if isinstance(given, tuple) else given


def refit(whole: Waiting, rest: Waiting, cut: Cut, ridge: float) -> float:
    """Solve for one map out of a layer's neurons or heads, in place.

    Args:
        whole: Texts in the model as it was.
        rest: The same texts in the one that was cut.
        cut: What was cut, and which map to solve for.
        ridge: Pull towards the weights that were there, as a share of the mean square of what it reads.

    Returns:
        The share of what the whole layer gave that the refitted one does not, in squares.
    """
    import torch

    down = rest.layers[cut.layer].get_submodule(cut.out)
    has_bias = down.bias is not None
    size = down.in_features + has_bias
    products = torch.zeros(size, size, dtype=torch.float64)
    cross = torch.zeros(size, down.out_features, dtype=torch.float64)
    squares = 0.0
    with torch.no_grad():
        for (_, _, wanted), (read, gave, total) in zip(whole.look(cut), rest.look(cut), strict=True):
            if has_bias:
                read = torch.cat([read, torch.ones(len(read), 1)], dim=1)
            # What goes around has errors too, which the map can make good for.
            target = wanted - (total - gave)
            products += (read.T @ read).double()
            cross += (read.T @ target).double()
            squares += float((target.double() ** 2).sum())
        parts = [down.weight.T, down.bias[None]] if has_bias else [down.weight.T]
        before = torch.cat(parts).double()
        pull = torch.full((size,), ridge, dtype=torch.float64)
        pull *= products.diagonal()[: down.in_features].mean().clamp(min=1e-12)
        pull[down.in_features :] = 0.0
        solved = torch.linalg.solve(products + torch.diag(pull), cross + pull[:, None] * before)
        explained = 2 * (solved * cross).sum() - (solved * (products @ solved)).sum()
        down.weight.copy_(solved[: down.in_features].T.float())
        if has_bias:
            down.bias.copy_(solved[-1].float())
    return max(0.0, 1.0 - float(explained) / max(squares, 1e-12))


class _Reached(Exception):
    """What was asked for has been computed; the rest need not be."""


@contextmanager
def _watched(layer: Any, cut: Cut) -> Iterator[dict[str, Any]]:
    """What the map to refit read and gave when the layer was last called, and the sum, where calls end."""
    seen: dict[str, Any] = {}

    def keep_map(_: Any, inputs: tuple[Any, ...], output: Any) -> None:
        seen["read"], seen["gave"] = inputs[0], output

    def keep_sum(_: Any, inputs: tuple[Any, ...], *output: Any) -> None:
        value = output[0] if output else inputs[0]
        seen["sum"] = value[0] if isinstance(value, tuple) else value
        raise _Reached

    handles = [layer.get_submodule(cut.out).register_forward_hook(keep_map)]
    if cut.after:
        handles.append(layer.get_submodule(cut.after).register_forward_pre_hook(keep_sum))
    else:
        handles.append(layer.register_forward_hook(keep_sum))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
