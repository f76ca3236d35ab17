"""Takes in an embedder as the incumbent of a task that ranks: an encoder's folder, or a static table."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from jettison.backends.embedder import table_name
from jettison.backends.open import open_model
from jettison.backends.tensors import map_tensors
from jettison.candidate import AppliedStep, Candidate, find_intact, library_versions, write_candidate
from jettison.compress import checkpoint_facts as facts
from jettison.compress.checkpoint import LICENCE_FILES, TOKENIZER_FILES, take_over
from jettison.compress.embedder_index import EMBEDDER, index_corpus
from jettison.errors import InvalidInput
from jettison.files import decode_json, file_sha256, folder_atomic, value_sha256
from jettison.task import Development

PROMPTS = "config_sentence_transformers.json"
_ROLES = {"query": "query", "passage": "passage", "document": "passage", "corpus": "passage"}


def take_in_embedder(
    folder: Path,
    name: str,
    data: Development,
    *,
    cache: Path,
    seed: int,
    progress: Callable[[str, float | None], None],
) -> Candidate:
    """Make a candidate of an embedder, its vectors of the task's corpus beside it.

    Args:
        folder: `tokenizer.json` and `model.safetensors` of a static table, or an encoder's checkpoint.
        name: What it is called.
        data: Of a task of kind `rank` or `embed`.
        cache: Folder of candidates, one folder each.
        seed: Kept in the lineage.
        progress: Called with a phrase and the share done.

    Raises:
        InvalidInput: The task's kind is another, or the folder holds no embedder.
        BrokenArtifact: It does not open.
    """
    is_table = _is_table(folder)
    weights = sorted(p.name for p in folder.glob("*.safetensors"))
    files = ("config.json", "model.safetensors.index.json", *weights, *TOKENIZER_FILES)
    settings: dict[str, Any] = {"kind": data.kind, **_prefixes(folder)}
    if not is_table:
        config = facts.read_config(folder)
        settings |= {"pooling": facts.pooling_settings(folder)["pooling"], **facts.layer_count(config)}
        settings |= {"max_tokens": facts.max_tokens(folder, config), **facts.cut_on_the_left(folder)}
    identity = [[file, file_sha256(folder / file)] for file in files if (folder / file).is_file()]
    key = value_sha256([identity, settings, [[p.id, p.text] for p in data.corpus]])[:20]
    if (made := find_intact(cache / key)) is not None:
        return made
    with folder_atomic(cache / key) as partial:
        take_over(folder, partial, (*files, *LICENCE_FILES))
        if not is_table:
            facts.make_tokenizer(folder, partial)
            settings["pad_id"] = facts.pad_id(partial, facts.read_config(folder))
        n_passages = index_corpus(partial, settings, data, progress)
        candidate = write_candidate(
            partial,
            name=name,
            backend=EMBEDDER,
            labels=(),
            settings=settings,
            licence=facts.read_licence(folder),
            lineage=[
                AppliedStep(
                    step="take_in",
                    settings={"source": name},
                    seed=seed,
                    versions=library_versions("torch", "transformers"),
                    parents=(),
                    data_digest=data.digest if n_passages else None,
                    notes={"n_passages": n_passages},
                )
            ],
        )
        _check_answers(candidate, data)
    return Candidate.at(cache / key)


def _is_table(folder: Path) -> bool:
    weights = folder / "model.safetensors"
    return weights.is_file() and table_name(map_tensors(weights)) is not None


def _prefixes(folder: Path) -> dict[str, str]:
    """What the embedder was trained to see before queries and passages, as sentence-transformers has it."""
    path = folder / PROMPTS
    if not path.is_file():
        return {}
    try:
        said = decode_json(path.read_bytes(), dict[str, Any]).get("prompts") or {}
    except msgspec.DecodeError as error:
        raise InvalidInput(f"{path} must be a JSON object: {error}.") from error
    found = {_ROLES[role]: str(text) for role, text in said.items() if role in _ROLES and text}
    return {f"{role}_prefix": text for role, text in found.items()}


def _check_answers(candidate: Candidate, data: Development) -> None:
    """Open it and let it answer one query, so that what is broken is said before any work is done."""
    examples = (data.dev or data.train or data.unlabelled)[:1]
    model = open_model(candidate)
    try:
        model.predict([example.asked for example in examples])
    finally:
        model.close()
