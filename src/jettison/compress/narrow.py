"""Step `narrow`: fewer feed-forward neurons, and what is left refitted to give what all of them gave."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import zip_longest
from typing import Annotated, Any, ClassVar

import msgspec
import numpy as np

from jettison.backends.hf import load_torch
from jettison.candidate import Candidate
from jettison.compress.anatomy import Anatomy, anatomy_of, layers_of
from jettison.compress.checkpoint import check_hf, save_torch, torch_run
from jettison.compress.importance import divergence
from jettison.compress.prune import keep_neurons, n_parameters, neurons_to_keep
from jettison.compress.step import Made, StepContext
from jettison.compress.training import Rows, pad_rows, predict_rows, tokenize
from jettison.errors import NotEnoughData, OutOfTime
from jettison.model import softmax

BATCH = 64


class Narrow(msgspec.Struct, frozen=True, kw_only=True):
    """Cut the width of every feed-forward block, then solve for the best map out of what is left.

    Nothing is trained: layer by layer, least squares finds the weights with which the kept
    neurons come nearest to what the whole layer gave on the team's own texts, earlier
    layers' errors included. It takes seconds to minutes, and a stock class loads the result.

    Source:
        Layer-wise reconstruction as of Kurtic et al. 2023, "ZipLM", with the neurons chosen
        by importance to the loss (`prune`).
    """

    name: ClassVar[str] = "narrow"
    code_version: ClassVar[int] = 3
    reads_data: ClassVar[bool] = True
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers")

    width: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.5
    """Share of the feed-forward neurons to keep, the same number in every layer."""
    n_tokens: Annotated[int, msgspec.Meta(ge=1)] = 40_000
    """Tokens that importance is measured and layers are refitted on, half of them of unlabelled texts where
    there are enough."""
    ridge: Annotated[float, msgspec.Meta(gt=0)] = 1e-3
    """Pull towards the weights that were there, as a share of the neurons' mean square."""

    def make(self, candidate: Candidate, context: StepContext) -> Made:
        """Choose, cut, refit, save.

        Raises:
            StepFailed: The candidate is no torch checkpoint, or its family is not known.
            OutOfTime: The deadline is over before every layer is refitted.
            NotEnoughData: There is no train or unlabelled text.
        """
        check_hf(candidate, self.name)
        pad_id = int(candidate.settings.get("pad_id", 0))
        with torch_run(seed=context.seed, threads=context.threads):
            whole, module = load_torch(candidate).float(), load_torch(candidate).float()
            anatomy = anatomy_of(module.config)
            ids = self._texts(candidate, context)
            reference = predict_rows(whole, ids, pad_id)
            rows = Rows(ids=ids, targets=drawn_answers(reference, context.seed))
            chosen = neurons_to_keep(whole, anatomy, self.width, rows, pad_id)
            batches = [pad_rows(ids[at : at + BATCH], pad_id) for at in range(0, len(ids), BATCH)]
            setattr(module.config, anatomy.width, len(chosen[0]))
            left = []
            for number, kept in enumerate(chosen):
                context.progress("refitting layers", number / len(chosen))
                if context.deadline is not None and context.deadline.is_over():
                    raise OutOfTime(
                        f"step 'narrow' must refit {len(chosen)} layers before the deadline, got "
                        f"{number}. Allow it more time, or fewer n_tokens."
                    )
                keep_neurons(layers_of(module, anatomy)[number], anatomy, kept)
                left.append(_refit(whole, module, anatomy, number, batches, self.ridge))
            narrowed = predict_rows(module, ids, pad_id)
            save_torch(module, context.folder, source=candidate.path)
        notes = {
            "n_texts": len(ids),
            "unexplained_share": [round(share, 5) for share in left],
            "parameters_before": n_parameters(whole),
            "parameters": n_parameters(module),
            "divergence": divergence(reference, narrowed),
            "same_answer_share": float((reference.argmax(1) == narrowed.argmax(1)).mean()),
        }
        return Made(notes=notes, resolved={"neurons": len(chosen[0])})

    def _texts(self, candidate: Candidate, context: StepContext) -> list[list[int]]:
        """Token ids of random texts, short ones first."""
        rng, data = np.random.default_rng(context.seed), context.data
        max_tokens = int(candidate.settings.get("max_tokens", 512))
        # In turns, so that traffic of a kind that train lacks counts as much as train does.
        kinds = [[e.input for e in examples] for examples in (data.train, data.unlabelled)]
        shuffled = [[texts[i] for i in rng.permutation(len(texts))] for texts in kinds]
        texts = [text for pair in zip_longest(*shuffled) for text in pair if text is not None]
        if not texts:
            raise NotEnoughData("step 'narrow' needs train or unlabelled texts, got none.")
        # No text has fewer than one token, so that more of them are never needed.
        ids = tokenize(candidate.path, texts[: self.n_tokens], max_tokens)
        enough = int(np.searchsorted(np.cumsum([len(row) for row in ids]), self.n_tokens)) + 1
        return sorted(ids[:enough], key=len)


def drawn_answers(logits: np.ndarray, seed: int) -> np.ndarray:
    """Labels drawn as likely as a model finds them, shape (n,), int64.

    Against them the loss is as steep as its Fisher information says, on texts with a label or without.
    """
    shares = softmax(logits).cumsum(axis=1)
    drawn = (np.random.default_rng(seed).random((len(logits), 1)) > shares[:, :-1]).sum(axis=1)
    return np.asarray(drawn, np.int64)


def _refit(
    whole: Any, module: Any, anatomy: Anatomy, number: int, batches: list[tuple[Any, Any]], ridge: float
) -> float:
    """Solve for one layer's map out of its neurons, in place.

    Returns:
        The share of what the whole layer gave that the refitted one does not, in squares.
    """
    import torch

    down = layers_of(module, anatomy)[number].get_submodule(anatomy.down)
    has_bias = down.bias is not None
    size = down.in_features + has_bias
    products = torch.zeros(size, size, dtype=torch.float64)
    cross = torch.zeros(size, down.out_features, dtype=torch.float64)
    squares = 0.0
    with torch.no_grad(), _watched(whole, anatomy, number) as of_whole:
        with _watched(module, anatomy, number) as of_module:
            for ids, mask in batches:
                _, _, wanted = of_whole(ids, mask)
                read, gave, total = of_module(ids, mask)
                if has_bias:
                    read = torch.cat([read, torch.ones(len(read), 1)], dim=1)
                # What goes around the neurons has errors too, which they can make good for.
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
    """The layer that was asked for has been computed; the rest need not be."""


@contextmanager
def _watched(module: Any, anatomy: Anatomy, number: int) -> Iterator[Any]:
    """A function of ids and mask that runs a module up to one layer.

    It gives, for each real token, what the map out of the neurons read and gave, and the sum of
    that with what goes around: shapes (n, n_neurons), (n, hidden), (n, hidden).
    """
    layer = layers_of(module, anatomy)[number]
    seen: dict[str, Any] = {}

    def keep_down(_: Any, inputs: tuple[Any, ...], output: Any) -> None:
        seen["read"], seen["gave"] = inputs[0], output

    def keep_sum(_: Any, inputs: tuple[Any, ...], *output: Any) -> None:
        value = output[0] if output else inputs[0]
        seen["sum"] = value[0] if isinstance(value, tuple) else value
        raise _Reached

    def run(ids: Any, mask: Any) -> tuple[Any, Any, Any]:
        with suppress(_Reached):
            module(ids, mask)
        real = mask.bool().reshape(-1)
        return tuple(seen[name].reshape(len(real), -1)[real] for name in ("read", "gave", "sum"))

    handles = [layer.get_submodule(anatomy.down).register_forward_hook(keep_down)]
    if anatomy.after:
        handles.append(layer.get_submodule(anatomy.after).register_forward_pre_hook(keep_sum))
    else:
        handles.append(layer.register_forward_hook(keep_sum))
    try:
        yield run
    finally:
        for handle in handles:
            handle.remove()
