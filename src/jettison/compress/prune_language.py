"""Step `prune_language`: removes blocks, feed-forward neurons and heads of a causal language model."""

from typing import Annotated, Any, ClassVar

import msgspec
import numpy as np

from jettison.candidate import Candidate
from jettison.compress import causal_anatomy as anatomies
from jettison.compress import influence
from jettison.compress.answer_rows import AnswerRows, PromptTokens, known_answer
from jettison.compress.causal import check_causal, device_of, load_causal, parameter_count, save_causal
from jettison.compress.causal_anatomy import CausalAnatomy
from jettison.compress.checkpoint import torch_run
from jettison.compress.step import Made, StepContext
from jettison.errors import InvalidInput, NotEnoughData, StepFailed

MULTIPLE = 32
"""The neurons kept are a multiple of it, as vector units and 4-bit blocks like."""
AtLeastOne = Annotated[int, msgspec.Meta(ge=1)]


class PruneLanguage(msgspec.Struct, frozen=True, kw_only=True):
    """Keep the blocks, neurons and key-value groups that do most on the task's own prompts.

    Every block keeps as many as the others, so that a stock class loads the result. Heal it with
    `distill_language`.
    """

    name: ClassVar[str] = "prune_language"
    code_version: ClassVar[int] = 1
    reads_data: ClassVar[bool] = True
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers")

    depth: AtLeastOne | None = None
    """Blocks to keep, by block influence; None keeps all."""
    width: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    """Share of the feed-forward neurons to keep; None keeps all."""
    groups: AtLeastOne | None = None
    """Groups of heads that share keys and values to keep; None keeps all."""
    n_examples: AtLeastOne = 128
    """Train and unlabelled inputs that are measured on."""
    max_tokens: Annotated[int, msgspec.Meta(ge=8)] = 1024
    """Longest prompt with its answer; a longer one loses its beginning."""

    def make(self, candidate: Candidate, context: StepContext) -> Made:
        """Measure, cut, save.

        Raises:
            InvalidInput: Nothing is to be cut, or more is to be kept than there is.
            StepFailed: The candidate is no causal checkpoint, its family is not known, or its heads
                cannot leave.
            NotEnoughData: There is no input to measure on.
        """
        check_causal(candidate, self.name)
        if self.depth is None and self.width is None and self.groups is None:
            raise InvalidInput("step 'prune_language' must have depth, width or groups, got none.")
        tokens = PromptTokens(candidate, self.max_tokens)
        rows, pad_id = self._rows(tokens, candidate, context), tokens.pad_id
        with torch_run(seed=context.seed, threads=context.threads):
            model = load_causal(candidate).to(device_of(candidate))
            anatomy = anatomies.causal_anatomy(model.config)
            n_before = parameter_count(model)
            reference = influence.answer_logprobs(model, rows, pad_id)
            notes: dict[str, Any] = {"n_inputs": len(rows)}
            resolved: dict[str, Any] = {}
            if self.depth is not None:
                context.progress("measuring the influence of each block", None)
                resolved["kept_layers"], notes["block_influence"] = self._cut_depth(
                    model, anatomy, rows, pad_id
                )
            if self.width is not None:
                context.progress("measuring neurons", None)
                resolved["neurons"] = self._cut_width(model, anatomy, rows, pad_id)
            if self.groups is not None:
                context.progress("measuring heads", None)
                resolved["heads"] = self._cut_groups(model, anatomy, rows, pad_id)
            pruned = influence.answer_logprobs(model, rows, pad_id)
            save_causal(model.to("cpu"), context.folder, source=candidate.path)
        notes |= {
            "parameters_before": n_before,
            "parameters": parameter_count(model),
            "divergence": influence.token_divergence(reference, pruned),
            "same_token_share": influence.same_token_share(reference, pruned),
        }
        n_blocks = int(getattr(model.config, anatomy.depth))
        return Made(settings={**candidate.settings, "n_layers": n_blocks}, notes=notes, resolved=resolved)

    def _rows(self, tokens: PromptTokens, candidate: Candidate, context: StepContext) -> AnswerRows:
        """A random part of the inputs, with their answers where somebody has said them."""
        kind = str(candidate.settings.get("kind", context.data.kind))
        examples = (*context.data.train, *context.data.unlabelled)
        if not examples:
            raise NotEnoughData("step 'prune_language' needs train or unlabelled inputs, got none.")
        chosen = np.random.default_rng(context.seed).permutation(len(examples))[: self.n_examples]
        part = [examples[i] for i in chosen]
        # Where nobody has said an answer, the end of an empty one still asks for the first token.
        return tokens.rows([(e.asked, known_answer(e, kind) or "") for e in part])

    def _cut_depth(
        self, model: Any, anatomy: CausalAnatomy, rows: AnswerRows, pad_id: int
    ) -> tuple[list[int], list[float]]:
        n_blocks = len(anatomies.blocks_of(model, anatomy))
        depth = self.depth or n_blocks
        if depth >= n_blocks:
            raise InvalidInput(
                f"depth of step 'prune_language' must be under {n_blocks} blocks, got {depth}."
            )
        found = influence.block_influence(model, anatomy, rows, pad_id)
        kept = sorted(np.argsort(-found, kind="stable")[:depth].tolist())
        anatomies.keep_blocks(model, anatomy, kept)
        return kept, [round(float(value), 6) for value in found]

    def _cut_width(self, model: Any, anatomy: CausalAnatomy, rows: AnswerRows, pad_id: int) -> int:
        """Remove neurons in place; return how many each block keeps."""
        import torch

        sizes = influence.neuron_sizes(model, anatomy, rows, pad_id)
        n_neurons = len(sizes[0])
        n_kept = round((self.width or 1.0) * n_neurons / MULTIPLE) * MULTIPLE
        n_kept = min(n_neurons, max(MULTIPLE, n_kept))
        for block, scores in zip(anatomies.blocks_of(model, anatomy), sizes, strict=True):
            down = block.get_submodule(anatomy.down)
            kept = torch.from_numpy(np.sort(np.argsort(-scores, kind="stable")[:n_kept]))
            kept = kept.to(down.weight.device)
            for up in anatomy.ups:
                anatomies.keep_outputs(block.get_submodule(up), kept, transposed=anatomy.transposed)
            anatomies.keep_inputs(down, kept, transposed=anatomy.transposed)
        setattr(model.config, anatomy.width, n_kept)
        return n_kept

    def _cut_groups(self, model: Any, anatomy: CausalAnatomy, rows: AnswerRows, pad_id: int) -> int:
        """Remove groups of heads in place; return how many heads each block keeps."""
        import torch

        config = model.config
        n_groups = int(getattr(config, "num_key_value_heads", 0))
        if anatomy.attention is None:
            raise StepFailed(
                f"heads of family {config.model_type!r} cannot leave: a stock class takes their size to be "
                "hidden size / heads. Cut depth or width."
            )
        if self.groups is None or self.groups >= n_groups:
            raise InvalidInput(
                f"groups of step 'prune_language' must be under {n_groups}, got {self.groups}."
            )
        per_group = int(config.num_attention_heads) // n_groups
        sizes = influence.group_sizes(model, anatomy, rows, pad_id)
        for block, scores in zip(anatomies.blocks_of(model, anatomy), sizes, strict=True):
            attention = block.get_submodule(anatomy.attention)
            kept = np.sort(np.argsort(-scores, kind="stable")[: self.groups])
            size = int(attention.head_dim)
            device = attention.o_proj.weight.device
            narrow = torch.from_numpy(_ranges(kept, size)).to(device)
            wide = torch.from_numpy(_ranges(kept, size * per_group)).to(device)
            for name, rows_kept in (("q_proj", wide), ("k_proj", narrow), ("v_proj", narrow)):
                anatomies.keep_outputs(getattr(attention, name), rows_kept, transposed=False)
            anatomies.keep_inputs(attention.o_proj, wide, transposed=False)
        config.head_dim = size
        config.num_attention_heads = self.groups * per_group
        config.num_key_value_heads = self.groups
        return self.groups * per_group


def _ranges(groups: np.ndarray, size: int) -> np.ndarray:
    """Indices of whole groups of this size, ascending, int64."""
    return (groups[:, None] * size + np.arange(size)[None, :]).reshape(-1).astype(np.int64)
