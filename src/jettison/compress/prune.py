"""Step `prune`: removes layers and feed-forward neurons; a stock class still loads the rest."""

from typing import Annotated, Any, ClassVar

import msgspec
import numpy as np

from jettison.backends.hf import load_torch
from jettison.candidate import Candidate
from jettison.compress.anatomy import Anatomy, anatomy_of, layers_of, set_layers
from jettison.compress.checkpoint import check_hf, save_torch, torch_run
from jettison.compress.importance import divergence, layers_to_keep, neuron_importance
from jettison.compress.step import Made, StepContext
from jettison.compress.training import Rows, label_targets, predict_rows, tokenized
from jettison.errors import InvalidInput, NotEnoughData
from jettison.task import Example

MULTIPLE = 32
"""The neurons kept are a multiple of it, as vector units like."""


class Prune(msgspec.Struct, frozen=True, kw_only=True):
    """Keep the layers and feed-forward neurons that the answers need most.

    Every layer keeps as many neurons as the others. Attention heads stay: in stock encoders
    the size of a head is hidden size / heads, so none can leave alone.
    """

    name: ClassVar[str] = "prune"
    code_version: ClassVar[int] = 1
    reads_data: ClassVar[bool] = True
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers")

    depth: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Layers to keep; None keeps all."""
    width: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    """Share of the feed-forward neurons to keep; None keeps all."""
    n_examples: Annotated[int, msgspec.Meta(ge=1)] = 256
    """Train examples that importance is measured on."""

    def make(self, candidate: Candidate, context: StepContext) -> Made:
        """Measure, cut, save.

        Raises:
            InvalidInput: Neither depth nor width is given, or one of them leaves all in place.
            StepFailed: The candidate is no torch checkpoint, or its family is not known.
        """
        check_hf(candidate, self.name)
        if self.depth is None and self.width is None:
            raise InvalidInput("step 'prune' must have a depth or a width, got neither.")
        with torch_run(seed=context.seed, threads=context.threads):
            module = load_torch(candidate).float()
            anatomy = anatomy_of(module.config)
            n_neurons = int(getattr(module.config, anatomy.width))
            if self.depth is None and self.width and _n_kept(n_neurons, self.width) == n_neurons:
                raise keeps_all(n_neurons, self.width, step=self.name)
            rows = rows_to_measure(candidate, context, self.n_examples, step=self.name)
            pad_id = int(candidate.settings.get("pad_id", 0))
            reference = predict_rows(module, rows.ids, pad_id)
            n_before = n_parameters(module)
            notes: dict[str, Any] = {}
            resolved: dict[str, Any] = {}
            if self.depth is not None:
                kept, notes["removed_layers"] = self._cut_depth(module, anatomy, rows, pad_id, context)
                resolved["kept_layers"] = kept
            if self.width is not None:
                resolved["neurons"] = self._cut_width(module, anatomy, rows, pad_id)
            pruned = predict_rows(module, rows.ids, pad_id)
            save_torch(module, context.folder, source=candidate.path)
        notes |= {
            "parameters_before": n_before,
            "parameters": n_parameters(module),
            "divergence": divergence(reference, pruned),
            "same_answer_share": float((reference.argmax(1) == pruned.argmax(1)).mean()),
            "heads": "kept: in a stock checkpoint the head size is hidden size / heads",
        }
        settings = {**candidate.settings, "n_layers": int(getattr(module.config, anatomy.depth))}
        return Made(settings=settings, notes=notes, resolved=resolved)

    def _cut_depth(
        self, module: Any, anatomy: Anatomy, rows: Rows, pad_id: int, context: StepContext
    ) -> tuple[list[int], list[Any]]:
        import torch

        whole = layers_of(module, anatomy)
        depth = self.depth or len(whole)
        if depth >= len(whole):
            raise InvalidInput(f"depth of step 'prune' must be under {len(whole)} layers, got {depth}.")
        kept, removals = layers_to_keep(module, anatomy, depth, rows, pad_id, context.progress)
        set_layers(module, anatomy, torch.nn.ModuleList([whole[i] for i in kept]))
        config = module.config
        setattr(config, anatomy.depth, depth)
        if getattr(config, "layer_types", None):
            config.layer_types = [config.layer_types[i] for i in kept]
        return kept, msgspec.to_builtins(removals)

    def _cut_width(self, module: Any, anatomy: Anatomy, rows: Rows, pad_id: int) -> int:
        """Remove neurons in place; return how many each layer keeps."""
        chosen = neurons_to_keep(module, anatomy, self.width or 1.0, rows, pad_id)
        for layer, kept in zip(layers_of(module, anatomy), chosen, strict=True):
            keep_neurons(layer, anatomy, kept)
        setattr(module.config, anatomy.width, len(chosen[0]))
        return len(chosen[0])


def rows_to_measure(candidate: Candidate, context: StepContext, n_examples: int, *, step: str) -> Rows:
    """A random part of train, labelled.

    Raises:
        NotEnoughData: There is no train example with a label of the candidate.
    """
    examples = [e for e in context.data.train if e.expected in candidate.labels]
    if not examples:
        raise NotEnoughData(f"step {step!r} needs labelled train examples, got none.")
    rng = np.random.default_rng(context.seed)
    part: list[Example] = [examples[i] for i in rng.permutation(len(examples))[:n_examples]]
    return Rows(
        ids=tokenized(candidate, [e.input for e in part]),
        targets=label_targets([e.expected for e in part], candidate.labels),
    )


def neurons_to_keep(
    module: Any, anatomy: Anatomy, width: float, rows: Rows, pad_id: int
) -> list[np.ndarray]:
    """Numbers of the most important neurons of each layer, ascending, as many in each."""
    n_kept = _n_kept(int(getattr(module.config, anatomy.width)), width)
    importance = neuron_importance(module, anatomy, rows, pad_id)
    return [np.sort(np.argsort(-scores, kind="stable")[:n_kept]) for scores in importance]


def _n_kept(n_neurons: int, width: float) -> int:
    return min(n_neurons, max(MULTIPLE, round(width * n_neurons / MULTIPLE) * MULTIPLE))


def keeps_all(n_neurons: int, width: float, *, step: str) -> InvalidInput:
    """What to raise where a width leaves every neuron in place."""
    return InvalidInput(
        f"width of step {step!r} must leave out some of the {n_neurons} neurons of a layer, got "
        f"{width:g}, which keeps all: a layer keeps a multiple of {MULTIPLE}."
    )


def keep_neurons(layer: Any, anatomy: Anatomy, kept: np.ndarray) -> None:
    """Cut the two linear maps around a layer's neurons down to those kept."""
    import torch

    up, down = layer.get_submodule(anatomy.up), layer.get_submodule(anatomy.down)
    n_neurons = down.in_features
    columns = torch.from_numpy(kept)
    rows = torch.cat([columns, columns + n_neurons]) if anatomy.gated else columns
    with torch.no_grad():
        up.weight = torch.nn.Parameter(up.weight[rows].clone())
        if up.bias is not None:
            up.bias = torch.nn.Parameter(up.bias[rows].clone())
        down.weight = torch.nn.Parameter(down.weight[:, columns].clone())
    up.out_features, down.in_features = len(rows), len(columns)


def n_parameters(module: Any) -> int:
    """Weights of a module."""
    return int(sum(p.numel() for p in module.parameters()))
