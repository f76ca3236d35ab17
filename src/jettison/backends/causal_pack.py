"""Likelihoods with every token computed once: requests as one tree, packed in one row of the model.

Requests of a call have much in common: all begin with the same preamble, and the choices of one
question with the same question. Their tokens form a tree. The trunk is computed once and kept as
keys and values; the branches lie one after the other in a single row, and a mask lets each token
see its ancestors alone. Nothing is padded and nothing is computed twice.

Source: tree attention, Miao et al. 2024, "SpecInfer", section 4.2.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from jettison.backends.device import cast
from jettison.backends.language_tokens import TokenPair, padded
from jettison.registry import need


class Scored(NamedTuple):
    """Log-probability of an ending, in nats, and whether greedy decoding takes each of its tokens."""

    logprob: float
    greedy: bool


@dataclass
class Tree:
    """Tokens after the trunk, parents before children."""

    ids: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    """-1 where the trunk itself comes before."""
    depths: list[int] = field(default_factory=list)
    reads: list[tuple[int, int, int]] = field(default_factory=list)
    """Request, token that is read, and the token asked for after it."""
    _children: dict[tuple[int, int], int] = field(default_factory=dict)

    def add(self, row: int, pair: TokenPair, n_trunk: int) -> None:
        """Take in a request; its context is longer than the trunk."""
        node = -1
        for token in pair.context[n_trunk:]:
            node = self._child(node, token)
        for token in pair.ending[:-1]:
            self.reads.append((row, node, token))
            node = self._child(node, token)
        self.reads.append((row, node, pair.ending[-1]))

    def _child(self, parent: int, token: int) -> int:
        found = self._children.get((parent, token))
        if found is None:
            found = len(self.ids)
            self._children[parent, token] = found
            self.ids.append(token)
            self.parents.append(parent)
            self.depths.append(self.depths[parent] + 1 if parent >= 0 else 0)
        return found

    def seen(self) -> np.ndarray:
        """Which tokens each token attends to, shape (n_tokens, n_tokens), bool."""
        found = np.zeros((len(self.ids), len(self.ids)), bool)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                found[node, : parent + 1] = found[parent, : parent + 1]
            found[node, node] = True
        return found


def trees(pairs: Sequence[TokenPair], n_trunk: int, budget: int) -> Iterator[Tree]:
    """Requests in trees of about `budget` tokens; neighbours in order share the most.

    Args:
        pairs: All begin with the trunk, and their contexts go on after it.
        n_trunk: Its tokens.
        budget: Tokens after which a tree is closed; a longer request has a tree to itself.
    """
    made = Tree()
    last: tuple[int, ...] = ()
    for row in sorted(range(len(pairs)), key=lambda i: (pairs[i].context[n_trunk:], pairs[i].ending)):
        pair = pairs[row]
        # A context's endings stay together, unless they alone are more than a tree takes.
        limit = budget if pair.context != last else 2 * budget
        room = limit - len(pair.ending) - (len(pair.context) - n_trunk if pair.context != last else 0)
        if made.ids and len(made.ids) > room:
            yield made
            made = Tree()
        made.add(row, pair, n_trunk)
        last = pair.context
    if made.ids:
        yield made


def score_tree(
    model: Any, tree: Tree, trunk: Any, n_trunk: int, device: str
) -> Iterator[tuple[int, Scored]]:
    """Read one tree in one pass; yields each request with one token of its ending at a time."""
    torch = need("torch", "torch")
    n = len(tree.ids)
    dtype = model.dtype
    mask = torch.zeros((1, 1, n, n_trunk + n), dtype=dtype, device=device)
    hidden = torch.from_numpy(~tree.seen()).to(device)
    mask[0, 0, :, n_trunk:].masked_fill_(hidden, torch.finfo(dtype).min)
    nodes = sorted({node for _, node, _ in tree.reads})
    place = {node: i for i, node in enumerate(nodes)}
    with torch.inference_mode():
        out = model(
            input_ids=torch.tensor([tree.ids], device=device),
            attention_mask=mask,
            position_ids=torch.tensor([tree.depths], device=device) + n_trunk,
            past_key_values=trunk,
            use_cache=trunk is not None,
            logits_to_keep=torch.tensor(nodes, device=device),
        )
        logits = out.logits[0].float()
        places = torch.tensor([place[node] for _, node, _ in tree.reads], device=device)
        tokens = torch.tensor([token for _, _, token in tree.reads], device=device)
        best, norm = logits.argmax(-1), logits.logsumexp(-1)
        taken = (logits[places, tokens] - norm[places]).tolist()
        greedy = (best[places] == tokens).tolist()
    for (row, _, _), logprob, is_best in zip(tree.reads, taken, greedy, strict=True):
        yield row, Scored(logprob, is_best)


def score_packed(
    model: Any, pairs: Sequence[TokenPair], trunk: Any, n_trunk: int, *, budget: int, device: str
) -> list[Scored]:
    """Score requests that all begin with a trunk.

    Args:
        model: A causal model of `transformers` that passes `packs`.
        pairs: Each context begins with the trunk and is longer.
        trunk: Gives fresh keys and values of the trunk each time it is called; None without one.
        n_trunk: Tokens of the trunk.
        budget: Tokens of one pass, about.
        device: Where the model is.
    """
    logprobs, greedy = [0.0] * len(pairs), [True] * len(pairs)
    for tree in trees(pairs, n_trunk, budget):
        for row, one in score_tree(model, tree, trunk() if trunk else None, n_trunk, device):
            logprobs[row] += one.logprob
            greedy[row] &= one.greedy
    return [Scored(*both) for both in zip(logprobs, greedy, strict=True)]


def score_plain(model: Any, pairs: Sequence[TokenPair], *, batch: int, device: str) -> list[Scored]:
    """The same by one padded row per request: for models whose layers cannot be packed."""
    torch = need("torch", "torch")
    found: list[Scored | None] = [None] * len(pairs)
    order = sorted(range(len(pairs)), key=lambda i: -len(pairs[i].context) - len(pairs[i].ending))
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        read = [(*pairs[row].context, *pairs[row].ending[:-1]) for row in rows]
        # On the right: what comes after a token cannot touch it, whatever the layers.
        ids, mask = padded(read, 0, "right")
        with torch.inference_mode():
            logits = model(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False).logits
            for i, row in enumerate(rows):
                n = len(pairs[row].ending)
                ending = torch.tensor(pairs[row].ending, device=device)
                last = torch.log_softmax(logits[i, len(read[i]) - n : len(read[i])].float(), -1)
                taken = last.gather(1, ending[:, None])
                found[row] = Scored(float(taken.sum()), bool((last.argmax(-1) == ending).all()))
    return [one for one in found if one is not None]


def packs(model: Any, device: str) -> bool:
    """Whether packed passes give what plain ones do: tried on a few tokens, whatever the architecture.

    Recurrent layers and sliding windows do not pack, and positions that are counted and not given
    (ALiBi) come out wrong.
    """
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if getattr(config, "sliding_window", None) or kinds != {"full_attention"}:
        return False
    n = int(config.vocab_size)
    told = [tuple((7 * i * i + 3 * i + k) % n for i in range(1, 9)) for k in (1, 2)]
    pairs = [TokenPair(told[0][:4] + one[4:6], one[6:] + told[k][2:4]) for one in told for k in (0, 1)]
    dtype = str(model.dtype).removeprefix("torch.")
    try:
        # Rounding would hide a small fault, or look like one.
        cast(model, "float32")
        packed = score_packed(model, pairs, None, 0, budget=64, device=device)
        plain = score_plain(model, pairs, batch=4, device=device)
    except (TypeError, ValueError, RuntimeError, IndexError):
        return False
    finally:
        cast(model, dtype)
    return all(abs(a.logprob - b.logprob) <= 1e-3 for a, b in zip(packed, plain, strict=True))
