"""Puts a small encoder in the incumbent's place: the way out of a language model altogether."""

from pathlib import Path
from typing import Any, ClassVar

import msgspec

from jettison.backends.hf import quiet_transformers
from jettison.candidate import Candidate, check_safe
from jettison.compress import checkpoint_facts as facts
from jettison.compress.checkpoint import LICENCE_FILES, TOKENIZER_FILES, take_over, torch_run
from jettison.compress.hub import fetch, is_hub_id
from jettison.compress.step import Made, StepContext
from jettison.errors import InvalidInput, StepFailed
from jettison.files import file_sha256, value_sha256
from jettison.registry import need


class Encoder(msgspec.Struct, frozen=True, kw_only=True):
    """Start from another model: an encoder with a new head that knows nothing yet.

    A `distill` after it teaches the incumbent's answers, whatever the incumbent is. The result
    is a stock sequence classifier.
    """

    name: ClassVar[str] = "encoder"
    code_version: ClassVar[int] = 1
    reads_data: ClassVar[bool] = False
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers")

    source: str
    """Folder or hub id of an encoder: config.json, safetensors, tokenizer."""

    def source_digest(self) -> str:
        """Digest of the checkpoint's files."""
        folder = _folder(self.source)
        names = ("config.json", *(p.name for p in sorted(folder.glob("*.safetensors"))), *TOKENIZER_FILES)
        return value_sha256([[n, file_sha256(folder / n)] for n in names if (folder / n).is_file()])

    def make(self, candidate: Candidate, context: StepContext) -> Made:
        """Write the encoder with a head of random weights for the incumbent's labels.

        Raises:
            InvalidInput: There is no encoder at `source`.
            StepFailed: The task has no labels of its own, or the model cannot classify sequences.
        """
        labels = context.incumbent.labels
        if len(labels) < 2:
            raise StepFailed("step 'encoder' needs a task with labels of its own, got free answers.")
        folder = _folder(self.source)
        config = facts.read_config(folder)
        check_safe(folder)
        with torch_run(seed=context.seed, threads=context.threads):
            _with_new_head(folder, labels, self.source).save_pretrained(context.folder)
        take_over(folder, context.folder, (*TOKENIZER_FILES, *LICENCE_FILES))
        facts.make_tokenizer(folder, context.folder)
        settings: dict[str, Any] = {
            "max_tokens": facts.max_tokens(folder, config),
            "pad_id": facts.pad_id(context.folder, config),
            **facts.cut_on_the_left(folder),
            **facts.layer_count(config),
        }
        notes = {"encoder": Path(self.source).name}
        return Made(
            backend="hf", labels=labels, settings=settings, notes=notes, licence=facts.read_licence(folder)
        )


def _with_new_head(folder: Path, labels: tuple[str, ...], source: str) -> Any:
    transformers = need("transformers", "torch")
    try:
        with quiet_transformers():
            return transformers.AutoModelForSequenceClassification.from_pretrained(
                folder,
                num_labels=len(labels),
                id2label=dict(enumerate(labels)),
                label2id={label: i for i, label in enumerate(labels)},
                # A head of another shape is the one that is replaced.
                ignore_mismatched_sizes=True,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                dtype="float32",
            )
    except MemoryError:
        raise
    # What a configuration may hold makes transformers raise nearly anything, its own Exceptions too.
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        raise StepFailed(f"{source} must be an encoder that can classify sequences: {reason}") from error


def _folder(source: str) -> Path:
    path = Path(source).expanduser()
    if not path.exists() and is_hub_id(source):
        path = fetch(source)
    if not (path / "config.json").is_file() or not any(path.glob("*.safetensors")):
        raise InvalidInput(
            "encoder.source must be a folder with config.json and *.safetensors, or a hub id, "
            f"got {source!r}."
        )
    return path
