"""How much each block, neuron and group of heads of a causal model does, measured on prompts."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from jettison.backends.text import length_sorted_batches
from jettison.compress.answer_rows import AnswerRows
from jettison.compress.answer_training import last_logits, pad_right
from jettison.compress.causal_anatomy import CausalAnatomy, blocks_of

BATCH = 8


def block_influence(model: Any, anatomy: CausalAnatomy, rows: AnswerRows, pad_id: int) -> np.ndarray:
    """1 - mean cosine of the hidden state before and after each block, shape (n_blocks,).

    0 is a block that only scales what it is given. Padding does not count.

    Source: Men et al. 2024, "ShortGPT: Layers in Large Language Models are More Redundant Than You
    Expect", equation 1.
    """
    import torch

    totals = np.zeros(len(blocks_of(model, anatomy)))
    n_tokens = 0

    def measure(number: int, before: Any, after: Any, real: Any) -> None:
        cosine = torch.nn.functional.cosine_similarity(before.double(), after.double(), dim=-1)
        totals[number] += float((1.0 - cosine)[real].sum())

    for _, mask in _passes(model, rows, pad_id, anatomy, measure):
        n_tokens += int(mask.sum())
    return np.maximum(totals / max(1, n_tokens), 0.0)


def neuron_sizes(model: Any, anatomy: CausalAnatomy, rows: AnswerRows, pad_id: int) -> list[np.ndarray]:
    """How much each feed-forward neuron adds to the hidden state; for each block, shape (n_neurons,).

    Mean over tokens of |activation| times the length of the neuron's row of the map out.

    Source: Sun et al. 2024, "A Simple and Effective Pruning Approach for Large Language Models" (Wanda),
    the same product by neuron; Muralidharan et al. 2024 (Minitron) rank by the activation alone.
    """
    downs = [block.get_submodule(anatomy.down) for block in blocks_of(model, anatomy)]
    lengths = [_input_lengths(down, anatomy.transposed) for down in downs]
    means = _mean_sizes(model, downs, rows, pad_id)
    return [mean * length for mean, length in zip(means, lengths, strict=True)]


def group_sizes(model: Any, anatomy: CausalAnatomy, rows: AnswerRows, pad_id: int) -> list[np.ndarray]:
    """The same for groups of heads that share keys and values; for each block, shape (n_groups,)."""
    assert anatomy.attention is not None
    outs = [
        block.get_submodule(anatomy.attention).get_submodule("o_proj")
        for block in blocks_of(model, anatomy)
    ]
    n_groups = int(model.config.num_key_value_heads)
    found = []
    for out, mean in zip(outs, _mean_sizes(model, outs, rows, pad_id), strict=True):
        found.append((mean * _input_lengths(out, False)).reshape(n_groups, -1).sum(1))
    return found


def answer_logprobs(model: Any, rows: AnswerRows, pad_id: int) -> list[np.ndarray]:
    """Log-probabilities of every token at the places that predict each answer, (n_answer, n_vocabulary)."""
    import torch

    found: list[np.ndarray] = []
    with torch.inference_mode():
        for start in range(0, len(rows), BATCH):
            part = rows.take(np.arange(start, min(start + BATCH, len(rows))))
            ids, mask = pad_right(part, pad_id, str(next(model.parameters()).device))
            logits = last_logits(model, ids, mask, int(part.n_answer.max()))
            logprobs = torch.log_softmax(logits, -1).cpu().numpy()
            found += [logprobs[row, -n:] for row, n in enumerate(part.n_answer.tolist())]
    return found


def token_divergence(reference: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> float:
    """Mean KL(reference || other) a token, in nats, of `answer_logprobs`."""
    p, q = np.concatenate(reference).astype(np.float64), np.concatenate(other).astype(np.float64)
    return float((np.exp(p) * (p - q)).sum(-1).mean())


def same_token_share(reference: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> float:
    """Share of places, in 0-1, where both find the same token likeliest."""
    return float((np.concatenate(reference).argmax(-1) == np.concatenate(other).argmax(-1)).mean())


def _input_lengths(linear: Any, transposed: bool) -> np.ndarray:
    """Euclidean length of what a unit of each input adds to the output, shape (n_inputs,)."""
    return np.asarray(linear.weight.detach().norm(dim=1 if transposed else 0).double().cpu().numpy())


def _mean_sizes(model: Any, linears: Sequence[Any], rows: AnswerRows, pad_id: int) -> list[np.ndarray]:
    """Mean |input| of some linear maps over real tokens, one array a map, shape (n_inputs,)."""
    totals: list[Any] = [0.0] * len(linears)
    real: list[Any] = [None]

    def hook(number: int) -> Callable[[Any, tuple[Any, ...]], None]:
        def add(_: Any, inputs: tuple[Any, ...]) -> None:
            totals[number] = totals[number] + inputs[0][real[0]].abs().double().sum(0)

        return add

    handles = [linear.register_forward_pre_hook(hook(i)) for i, linear in enumerate(linears)]
    n_tokens = 0
    try:
        for ids, mask in _batches(model, rows, pad_id):
            real[0] = mask.bool()
            n_tokens += int(mask.sum())
            last_logits(model, ids, mask, 1)
    finally:
        for handle in handles:
            handle.remove()
    return [total.cpu().numpy() / max(1, n_tokens) for total in totals]


def _passes(
    model: Any,
    rows: AnswerRows,
    pad_id: int,
    anatomy: CausalAnatomy,
    measure: Callable[[int, Any, Any, Any], None],
) -> Iterator[tuple[Any, Any]]:
    """Run batches, calling `measure` with what each block is given and gives, and which tokens are real."""
    real: list[Any] = [None]

    def hook(number: int) -> Callable[[Any, tuple[Any, ...], dict[str, Any], Any], None]:
        def look(_: Any, args: tuple[Any, ...], given: dict[str, Any], out: Any) -> None:
            before = args[0] if args else given["hidden_states"]
            measure(number, before, out[0] if isinstance(out, tuple) else out, real[0])

        return look

    with _hooked([(block, hook(i)) for i, block in enumerate(blocks_of(model, anatomy))]):
        for ids, mask in _batches(model, rows, pad_id):
            real[0] = mask.bool()
            last_logits(model, ids, mask, 1)
            yield ids, mask


@contextmanager
def _hooked(pairs: Sequence[tuple[Any, Any]]) -> Iterator[None]:
    handles = [module.register_forward_hook(hook, with_kwargs=True) for module, hook in pairs]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _batches(model: Any, rows: AnswerRows, pad_id: int) -> Iterator[tuple[Any, Any]]:
    import torch

    device = str(next(model.parameters()).device)
    with torch.inference_mode():
        for index in length_sorted_batches([len(row) for row in rows.ids], BATCH):
            yield pad_right(rows.take(np.asarray(index)), pad_id, device)
