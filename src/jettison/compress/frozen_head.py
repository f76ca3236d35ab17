"""Fits a linear head on the sentence vectors of a frozen encoder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jettison.backends.hf import HEAD, load_pretrained
from jettison.backends.text import length_sorted_batches, truncation_side
from jettison.compress.checkpoint import torch_run
from jettison.compress.training import label_targets, pad_rows, tokenize
from jettison.errors import NotEnoughData
from jettison.task import Development


class FittedHead(NamedTuple):
    """What came of fitting a head."""

    notes: dict[str, Any]
    train_logits: np.ndarray
    """Of the train examples, shape (n_train, n_labels), float32."""


def fit_head(
    folder: Path,
    settings: dict[str, Any],
    data: Development,
    *,
    seed: int,
    threads: int,
    progress: Callable[[str, float | None], None],
) -> "FittedHead":
    """Write `head.safetensors` beside an encoder: multinomial logistic regression by AdamW.

    Args:
        folder: Holds the encoder and its tokenizer.
        settings: `pooling`, `normalize`, `max_tokens`, `truncation_side` and `pad_id` of the candidate.
        data: Fits on train, stops on the first half of dev.
        seed: Of the order of batches.
        threads: Of torch.
        progress: Called with a phrase and the share done.

    Returns:
        What was measured (epochs, accuracy on the half of dev that stopped it), and what the model
        now answers to train.

    Raises:
        NotEnoughData: Train has no labelled example, or a label has none.
        BrokenArtifact: The encoder does not load.
    """
    targets = label_targets([example.expected for example in data.train], data.labels)
    lacking = sorted(set(range(len(data.labels))) - set(targets.tolist()))
    if lacking:
        raise NotEnoughData(
            f"fitting a head needs train examples of every label, got none of {data.labels[lacking[0]]!r}."
        )
    with torch_run(seed=seed, threads=threads):
        from safetensors.torch import save_file

        stop = data.dev_fit or data.train
        vectors = _embed(folder, settings, [e.input for e in data.train], progress)
        stop_vectors = _embed(folder, settings, [e.input for e in stop], progress)
        stop_targets = label_targets([e.expected for e in stop], data.labels)
        head, notes = _fit(vectors, targets, stop_vectors, stop_targets, len(data.labels))
        save_file(head, folder / HEAD)
        logits = (vectors @ head["weight"].T + head["bias"]).numpy()
    return FittedHead(notes, logits)


def _embed(
    folder: Path,
    settings: dict[str, Any],
    texts: list[str],
    progress: Callable[[str, float | None], None],
) -> Any:
    """Sentence vectors, shape (n_texts, hidden), float32."""
    import torch

    from jettison.backends.torch_modules import PooledLogits

    encoder = load_pretrained(folder, "AutoModel")
    module = PooledLogits(encoder, None, settings["pooling"], settings["normalize"]).eval()
    rows = tokenize(folder, texts, int(settings["max_tokens"]), side=truncation_side(settings))
    found = torch.zeros(len(rows), encoder.config.hidden_size)
    done = 0
    with torch.inference_mode():
        for batch in length_sorted_batches([len(row) for row in rows], 16):
            ids, mask = pad_rows([rows[i] for i in batch], int(settings["pad_id"]))
            found[torch.from_numpy(batch)] = module.embed(ids, mask)
            done += len(batch)
            progress("embedding the examples", done / len(rows))
    return found.clone()


def _fit(
    vectors: Any, targets: np.ndarray, stop_vectors: Any, stop_targets: np.ndarray, n_labels: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The head at the epoch that was best on the stopping examples."""
    import torch

    mean, scale = vectors.mean(0), vectors.std(0)
    # A dimension that hardly varies would get a weight of 1e5 once the scale is folded in: harmless
    # in float32, but int8 then rounds every other weight of its row to zero. It is left out.
    typical = float(scale.median())
    scale = torch.where(scale < 1e-3 * typical, torch.inf, scale.clamp(min=max(1e-6, 0.1 * typical)))
    scaled, wanted = (vectors - mean) / scale, torch.from_numpy(targets)
    stop_scaled, stop_wanted = (stop_vectors - mean) / scale, torch.from_numpy(stop_targets)
    head = torch.nn.Linear(vectors.shape[1], n_labels)
    torch.nn.init.zeros_(head.weight)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 40)
    best: tuple[float, float] | None = None
    kept: dict[str, Any] = {}
    best_epoch = epoch = 0
    for epoch in range(1, 41):
        for rows in torch.randperm(len(scaled)).split(128):
            loss = torch.nn.functional.cross_entropy(head(scaled[rows]), wanted[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
        with torch.no_grad():
            logits = head(stop_scaled)
            loss_now = float(torch.nn.functional.cross_entropy(logits, stop_wanted, ignore_index=-1))
            right = float((logits.argmax(1) == stop_wanted).float().mean())
        if best is None or (right, -loss_now) > best:
            best, best_epoch = (right, -loss_now), epoch
            kept = {name: tensor.detach().clone() for name, tensor in head.state_dict().items()}
        if epoch - best_epoch >= 8:
            break
    assert best is not None
    # The standardization is folded in, so that the head reads the raw vectors.
    weight = kept["weight"] / scale
    folded = {"weight": weight.contiguous(), "bias": (kept["bias"] - weight @ mean).contiguous()}
    return folded, {"head": "linear, fitted on train", "epochs": epoch, "dev_fit_accuracy": best[0]}
