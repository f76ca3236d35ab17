"""Step `narrow`: fewer neurons and heads, and what is left refitted to give what all of them gave."""

from functools import partial
from itertools import zip_longest
from typing import Annotated, Any, ClassVar

import msgspec
import numpy as np

from jettison.backends.hf import load_torch
from jettison.candidate import Candidate
from jettison.compress.anatomy import (
    FAMILIES,
    NEURONS_LEAVE,
    Anatomy,
    Heads,
    anatomy_of,
    layers_of,
    loses_neurons,
)
from jettison.compress.checkpoint import check_hf, save_torch, torch_run
from jettison.compress.importance import divergence, head_importance, neuron_importance
from jettison.compress.prune import (
    MULTIPLE,
    keep_neurons,
    keeps_all,
    n_parameters,
    neurons_to_keep,
)
from jettison.compress.refit import Cut, Waiting, refit
from jettison.compress.step import Made, StepContext
from jettison.compress.training import Rows, pad_rows, predict_rows, tokenized
from jettison.errors import InvalidInput, NotEnoughData, OutOfTime, StepFailed
from jettison.model import softmax

BATCH = 64


class Narrow(msgspec.Struct, frozen=True, kw_only=True):
    """Cut the width of feed-forward blocks and attention, then solve for the best map out of what is left.

    Nothing is trained: layer by layer, least squares finds the weights with which the kept
    heads and neurons come nearest to what all of them gave on the team's own texts, errors of
    what comes before included. It takes seconds to minutes, and a stock class loads the result:
    heads stay in it with all weights zero, and leave when it is exported.

    Source:
        Layer-wise reconstruction as of Kurtic et al. 2023, "ZipLM", with the neurons chosen
        by importance to the loss (`prune`).
    """

    name: ClassVar[str] = "narrow"
    code_version: ClassVar[int] = 3
    reads_data: ClassVar[bool] = True
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers")
    later_settings: ClassVar[tuple[str, ...]] = ("heads", "uneven")

    width: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.5
    """Share of the feed-forward neurons to keep, the same number in every layer."""
    uneven: bool | None = None
    """Whether layers may keep neurons in different numbers, the most needed over all layers together."""
    heads: Annotated[float, msgspec.Meta(gt=0, lt=1)] | None = None
    """Share of all attention heads to keep, the most needed, at least one in each layer; None keeps all."""
    n_tokens: Annotated[int, msgspec.Meta(ge=1)] = 40_000
    """Tokens that importance is measured and layers are refitted on, half of them of unlabelled texts where
    there are enough."""
    ridge: Annotated[float, msgspec.Meta(gt=0)] = 1e-3
    """Pull towards the weights that were there, as a share of the neurons' mean square."""

    def make(self, candidate: Candidate, context: StepContext) -> Made:
        """Choose, cut, refit, save.

        Raises:
            StepFailed: The candidate is no torch checkpoint, or its family is not known.
            InvalidInput: Its settings leave all neurons, or all heads, in place.
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
            cuts = self._cuts(whole, anatomy, rows, pad_id)
            batches = [pad_rows(ids[at : at + BATCH], pad_id) for at in range(0, len(ids), BATCH)]
            of_whole, of_rest = (Waiting(one, anatomy, batches) for one in (whole, module))
            left = []
            for number, cut in enumerate(cuts):
                context.progress("refitting layers", number / len(cuts))
                if context.deadline is not None and context.deadline.is_over():
                    raise OutOfTime(
                        f"step 'narrow' must refit {len(cuts)} maps before the deadline, got "
                        f"{number}. Allow it more time, or fewer n_tokens."
                    )
                cut.make(of_rest.layers[cut.layer])
                left.append(refit(of_whole, of_rest, cut, self.ridge))
            narrowed = predict_rows(module, ids, pad_id)
            n_left = n_parameters(module)
            neurons = even_out(layers_of(module, anatomy), anatomy)
            setattr(module.config, anatomy.width, max(neurons))
            save_torch(module, context.folder, source=candidate.path)
        notes = {
            "n_texts": len(ids),
            "unexplained_share": [round(share, 5) for share in left],
            "parameters_before": n_parameters(whole),
            "parameters": n_left,  # heads without weights included: they leave with the export
            "divergence": divergence(reference, narrowed),
            "same_answer_share": float((reference.argmax(1) == narrowed.argmax(1)).mean()),
        }
        if self.uneven:
            notes["neurons_by_layer"] = neurons
        return Made(notes=notes, resolved={"neurons": max(neurons)})

    def _cuts(self, whole: Any, anatomy: Anatomy, rows: Rows, pad_id: int) -> list[Cut]:
        """What to cut, in the order of the layers.

        Raises:
            StepFailed: What the settings ask to go cannot leave a model of the family.
            InvalidInput: By the settings no head, or no neuron, would go.
        """
        if anatomy.heads is None and (self.heads is not None or self.uneven):
            raise StepFailed(
                f"step 'narrow' must have neither heads nor uneven for a model of family "
                f"{whole.config.model_type!r}: what goes by them leaves the exports of "
                f"{sorted(name for name, known in FAMILIES.items() if known.heads)} alone."
            )
        activation = getattr(whole.config, anatomy.activation, "gelu")
        if self.uneven and not loses_neurons(anatomy, activation):
            raise StepFailed(
                f"step 'narrow' must not be uneven for a model of activation {activation!r}: neurons "
                f"without weights leave the exports of those with {sorted(NEURONS_LEAVE)} alone."
            )
        cuts = []
        if self.heads is not None and anatomy.heads is not None:
            importance = head_importance(whole, anatomy, anatomy.heads, rows, pad_id)
            kept_heads = most_needed(np.stack(importance), self.heads)
            if kept_heads.all():
                raise InvalidInput(
                    f"heads of step 'narrow' must leave out some of the {kept_heads.shape[1]} heads in "
                    f"each of {len(kept_heads)} layers, got {self.heads:g}, which keeps all: a layer keeps "
                    "one at least."
                )
            for number, needed in enumerate(kept_heads):
                others = np.flatnonzero(~needed)
                silence = partial(silence_heads, heads=anatomy.heads, n_heads=len(needed), silent=others)
                cuts.append(Cut(number, silence, anatomy.heads.out, anatomy.heads.after))
        neurons = (uneven_neurons if self.uneven else neurons_to_keep)(
            whole, anatomy, self.width, rows, pad_id
        )
        n_neurons = int(getattr(whole.config, anatomy.width))
        if self.heads is None and all(len(kept) == n_neurons for kept in neurons):
            raise keeps_all(n_neurons, self.width, step=self.name)
        for number, kept in enumerate(neurons):
            keep = partial(keep_neurons, anatomy=anatomy, kept=kept)
            cuts.append(Cut(number, keep, anatomy.down, anatomy.after))
        # A layer's heads come before its neurons, and were put first: equals stay in their order.
        return sorted(cuts, key=lambda cut: cut.layer)

    def _texts(self, candidate: Candidate, context: StepContext) -> list[list[int]]:
        """Token ids of random texts, short ones first."""
        rng, data = np.random.default_rng(context.seed), context.data
        # In turns, so that traffic of a kind that train lacks counts as much as train does.
        kinds = [[e.input for e in examples] for examples in (data.train, data.unlabelled)]
        shuffled = [[texts[i] for i in rng.permutation(len(texts))] for texts in kinds]
        texts = [text for pair in zip_longest(*shuffled) for text in pair if text is not None]
        if not texts:
            raise NotEnoughData("step 'narrow' needs train or unlabelled texts, got none.")
        # No text has fewer than one token, so that more of them are never needed.
        ids = tokenized(candidate, texts[: self.n_tokens])
        enough = int(np.searchsorted(np.cumsum([len(row) for row in ids]), self.n_tokens)) + 1
        return sorted(ids[:enough], key=len)


def drawn_answers(logits: np.ndarray, seed: int) -> np.ndarray:
    """Labels drawn as likely as a model finds them, shape (n,), int64.

    Against them the loss is as steep as its Fisher information says, on texts with a label or without.
    """
    shares = softmax(logits).cumsum(axis=1)
    drawn = (np.random.default_rng(seed).random((len(logits), 1)) > shares[:, :-1]).sum(axis=1)
    return np.asarray(drawn, np.int64)


def most_needed(importance: np.ndarray, share: float) -> np.ndarray:
    """Which parts to keep, over all layers together, at least one of each layer.

    Args:
        importance: Of each part to the loss, shape (n_layers, n_parts).
        share: To keep, in 0-1.

    Returns:
        Booleans, of the same shape.
    """
    kept = np.zeros(importance.shape, bool)
    kept[np.arange(len(importance)), importance.argmax(axis=1)] = True
    n_more = round(share * importance.size) - len(importance)
    others = np.argsort(np.where(kept, np.inf, -importance), axis=None, kind="stable")
    kept.flat[others[: max(0, n_more)]] = True
    return kept


def uneven_neurons(
    module: Any, anatomy: Anatomy, width: float, rows: Rows, pad_id: int
) -> list[np.ndarray]:
    """Numbers of the neurons most important over all layers together, ascending, for each layer."""
    importance = np.stack(neuron_importance(module, anatomy, rows, pad_id))
    counts = most_needed(importance, width).sum(axis=1)
    counts = np.clip(np.round(counts / MULTIPLE).astype(int) * MULTIPLE, MULTIPLE, importance.shape[1])
    return [
        np.sort(np.argsort(-scores, kind="stable")[:n])
        for scores, n in zip(importance, counts, strict=True)
    ]


def even_out(layers: Any, anatomy: Anatomy) -> list[int]:
    """Give every layer as many neurons as the widest, in place, those added without weights.

    Returns:
        How many each had.
    """
    import torch

    counts = [layer.get_submodule(anatomy.down).in_features for layer in layers]
    for layer, count in zip(layers, counts, strict=True):
        up, down = layer.get_submodule(anatomy.up), layer.get_submodule(anatomy.down)
        n_more = max(counts) - count
        if n_more == 0:
            continue
        with torch.no_grad():
            up.weight = torch.nn.Parameter(torch.nn.functional.pad(up.weight, (0, 0, 0, n_more)))
            down.weight = torch.nn.Parameter(torch.nn.functional.pad(down.weight, (0, n_more)))
            if up.bias is not None:
                up.bias = torch.nn.Parameter(torch.nn.functional.pad(up.bias, (0, n_more)))
        up.out_features = down.in_features = max(counts)
    return counts


def silence_heads(layer: Any, heads: Heads, n_heads: int, silent: np.ndarray) -> None:
    """Set all weights of some heads of a layer to zero, where training leaves them.

    Args:
        layer: Of a module of `load_torch`.
        heads: Where its family keeps them.
        n_heads: How many the layer has.
        silent: Numbers of those to silence.
    """
    import torch

    out = layer.get_submodule(heads.out)
    size = out.in_features // n_heads
    places = torch.from_numpy((silent[:, None] * size + np.arange(size)).reshape(-1))
    with torch.no_grad():
        for path in heads.reads:
            read = layer.get_submodule(path)
            read.weight[places] = 0.0
            if read.bias is not None:
                read.bias[places] = 0.0
        out.weight[:, places] = 0.0
