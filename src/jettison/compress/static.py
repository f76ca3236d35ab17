"""Distills a classifier into one without a transformer: the student of the `static` backend."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import msgspec
import numpy as np

from jettison.backends.static import NGRAMS, WEIGHTS
from jettison.candidate import Candidate
from jettison.compress.checkpoint import LICENCE_FILES, bfloat16_is_fast, take_over, torch_run
from jettison.compress.draw import context_to_learn, draw_notes
from jettison.compress.incumbent_language import is_language
from jettison.compress.linear import DistillLinear, save_rows
from jettison.compress.settings_check import check_settings
from jettison.compress.step import Made, StepContext, equal_part
from jettison.compress.storage import stored
from jettison.compress.student_check import student_notes
from jettison.compress.token_table import TokenTable, token_table
from jettison.compress.transfer import TransferSet, gold_indices, transfer_set
from jettison.registry import need

if TYPE_CHECKING:
    from jettison.compress.fit import Lesson

TEXTS_SHOWN = 360_000
"""Texts a student is shown when `epochs` is None; on CLINC150 more gave nothing."""
FILLED_UP_TO = 20_000


class DistillStatic(msgspec.Struct, frozen=True, kw_only=True):
    """Teach a small student the incumbent's logits on train, unlabelled and made-up texts.

    Token vectors start from the incumbent's own embeddings. The student answers a short text
    in tens of microseconds of one core.
    """

    name: ClassVar[str] = "distill_static"
    code_version: ClassVar[int] = 3
    reads_data: ClassVar[bool] = True
    libraries: ClassVar[tuple[str, ...]] = ("torch", "tokenizers", "numpy")
    later_settings: ClassVar[tuple[str, ...]] = ("most_texts",)

    d: int = 128
    """Length of a token vector."""
    channels: int = 256
    """Features of the convolution."""
    window: int = 3
    """Tokens that the convolution spans."""
    hidden: int = 384
    """Neurons of the perceptron; 0 has none, and halves the time of an answer."""
    skip: bool = False
    """Whether a linear layer stands beside the perceptron; with 0 neurons it does in any case."""
    max_tokens: int = 128
    """Texts are truncated to it, special tokens not counted."""
    augment: int | None = None
    """Made-up texts that the teacher labels; None fills up to 20,000 texts in all, with at
    most ten for each known one, and takes none where the teacher is a language model."""
    epochs: int | None = None
    """Passes over all texts; None shows about 360,000 texts, in 3 to 60 passes."""
    patience: int = 6
    batch_size: int = 128
    learning_rate: float = 2e-3
    temperature: float = 2.0
    gold_weight: float | None = None
    """Weight of the cross entropy on known labels; None takes the linear student's choice of 0.3
    and 3, or 0.3 where there is none."""
    dropout: float = 0.2
    token_dropout: float = 0.1
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the multiplications in training; auto takes bfloat16 where the CPU has it in hardware."""
    ngram_share: float = 0.5
    """Weight of the linear student (see `distill_linear`) in the logits; 0 leaves it out."""
    storage: Literal["float32", "float16", "int8"] = "int8"
    """How the token vectors and the linear student's rows are kept on disk."""
    most_texts: int | None = None
    """Train and unlabelled texts to learn from, drawn where there are more; None is all."""

    def __post_init__(self) -> None:
        check_settings(
            self,
            at_least_1=(
                *("d", "channels", "window", "max_tokens", "batch_size", "patience", "epochs"),
                "most_texts",
            ),
            at_least_0=("hidden", "augment", "gold_weight"),
            shares=("dropout", "token_dropout", "ngram_share"),
            above_0=("learning_rate", "temperature"),
        )

    def make(self, candidate: Candidate, context: StepContext) -> Made:
        """Train a student and write it to the step's folder.

        Raises:
            NotEnoughData: The task has no train examples.
            StepFailed: Training diverged.
            MissingExtra: torch is not installed.
        """
        need("torch", "torch")
        whole, context = context, context_to_learn(context, self.most_texts)
        n_known = len(context.data.train) + len(context.data.unlabelled)
        fill = max(0, min(FILLED_UP_TO - n_known, 10 * n_known))
        if is_language(context.incumbent):
            fill = 0  # each answer costs money or a third of a second: real texts are worth more
        wanted = fill if self.augment is None else self.augment
        transfer = transfer_set(context, wanted)
        tokens = token_table(candidate, list(transfer.texts[: transfer.n_train + transfer.n_unlabelled]))
        rows = np.arange(len(transfer.texts))
        if transfer.n_augmented and transfer.n_train:
            # Known labels weigh as much again, or made-up texts would drown them.
            rows = np.concatenate([rows[: transfer.n_train], rows])
        epochs = self.epochs or min(60, max(3, round(TEXTS_SHOWN / len(rows))))
        started = time.monotonic()
        settings: dict[str, Any] = {"max_tokens": self.max_tokens, "threads": 1}
        gold_weight = 0.3 if self.gold_weight is None else self.gold_weight
        if self.ngram_share:
            # First, since it takes seconds: a deadline then cuts into what takes minutes.
            linear = DistillLinear(
                temperature=self.temperature, gold_weight=self.gold_weight, storage=self.storage
            )
            gold_weight = self._add_ngrams(linear, transfer, context)
            settings["characters"] = list(linear.characters)
        arrays, notes = self._train(transfer, rows, tokens, epochs, gold_weight, context)
        _scale_logits(arrays, 1 - self.ngram_share)
        notes["train_s"] = round(time.monotonic() - started, 2)

        from safetensors.numpy import save_file

        save_file(stored(arrays, "tokens", self.storage), context.folder / WEIGHTS)
        tokens.tokenizer.save(str(context.folder / "tokenizer.json"))
        take_over(candidate.path, context.folder, LICENCE_FILES)
        return Made(
            backend="static",
            labels=context.incumbent.labels,
            settings=settings,
            notes=notes | student_notes(context, "static", settings, transfer) | draw_notes(whole, context),
            resolved={
                "epochs": epochs,
                "gold_weight": gold_weight,
                "augment": transfer.n_augmented,
                "precision": "bfloat16" if self._bfloat16() else "float32",
            },
        )

    def _add_ngrams(self, linear: DistillLinear, transfer: TransferSet, context: StepContext) -> float:
        """Train the linear student on the same lesson and write it; gives the weight of known labels."""
        half = replace(context, deadline=equal_part(context.deadline, 2))
        ngrams, notes = linear.train(transfer, half)
        for name in ("rows", "bias"):
            ngrams[name] = ngrams[name] * np.float32(self.ngram_share)
        save_rows(ngrams, linear.storage, context.folder / NGRAMS)
        return float(notes["gold_weight"])

    def _bfloat16(self) -> bool:
        return self.precision == "bfloat16" or (self.precision == "auto" and bfloat16_is_fast())

    def _train(
        self,
        transfer: TransferSet,
        rows: np.ndarray,
        tokens: TokenTable,
        epochs: int,
        gold_weight: float,
        context: StepContext,
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """The trained arrays, and notes on how it went."""
        from jettison.compress.fit import Lesson, Schedule, fit
        from jettison.compress.student import StaticStudent

        vocabulary = tokens.tokenizer.get_vocab(with_added_tokens=True)
        n_tokens = max(vocabulary.values()) + 1 if tokens.vectors is None else len(tokens.vectors)
        ids, lengths = _encode(tokens.tokenizer, transfer.texts, self.max_tokens, n_tokens)
        lesson = Lesson(
            ids=ids[rows], lengths=lengths[rows], teacher=transfer.teacher[rows], gold=transfer.gold[rows]
        )
        schedule = Schedule(
            epochs=epochs,
            batch_size=min(self.batch_size, max(8, len(rows) // 20)),
            learning_rate=self.learning_rate,
            temperature=self.temperature,
            gold_weight=gold_weight,
            patience=self.patience,
            seed=context.seed,
            deadline=context.deadline,
            bfloat16=self._bfloat16(),
        )
        with torch_run(seed=context.seed, threads=context.threads):
            student = StaticStudent(
                tokens.vectors,
                np.setdiff1d(ids, [n_tokens]),
                n_tokens=n_tokens,
                n_labels=len(context.incumbent.labels),
                d=self.d,
                channels=self.channels,
                window=self.window,
                hidden=self.hidden,
                skip=self.skip,
                dropout=self.dropout,
                token_dropout=self.token_dropout,
            )
            fitted = fit(
                student,
                lesson,
                _dev_lesson(tokens.tokenizer, context, self.max_tokens, n_tokens),
                schedule,
                progress=context.progress,
            )
            arrays = student.arrays()
        return arrays, {
            "token_table": tokens.source,
            "epochs": fitted.epochs,
            "best_epoch": fitted.best_epoch,
            "stopped_by": fitted.stopped_by,
            "losses": [round(loss, 4) for loss in fitted.losses],
        }


def _scale_logits(arrays: dict[str, np.ndarray], share: float) -> None:
    """Multiply the logits that the arrays give by a share, in place."""
    hidden = len(arrays["second"])
    for array in (arrays["second"], arrays["second_bias"]):
        array *= share
    for array in (arrays["first"], arrays["first_bias"]):
        array[..., hidden:] *= share


def _dev_lesson(tokenizer: Any, context: StepContext, max_tokens: int, blank: int) -> "Lesson":
    from jettison.compress.fit import Lesson

    labels = context.incumbent.labels
    out_of_scope = context.data.out_of_scope
    # Whether an input is in scope is told by the logits' size, not by the arg-max.
    examples = [example for example in context.data.dev_fit if example.expected != out_of_scope]
    ids, lengths = _encode(tokenizer, [example.input for example in examples], max_tokens, blank)
    return Lesson(ids=ids, lengths=lengths, teacher=np.empty((0, 0)), gold=gold_indices(examples, labels))


def _encode(
    tokenizer: Any, texts: Sequence[str], max_tokens: int, blank: int
) -> tuple[np.ndarray, np.ndarray]:
    """Token ids, shape (n_texts, longest), padded by `blank`, and lengths; a text of none is one blank."""
    encoded = [e.ids[:max_tokens] for e in tokenizer.encode_batch(list(texts), add_special_tokens=False)]
    lengths = np.array([max(1, len(ids)) for ids in encoded], np.int64)
    found = np.full((len(encoded), int(lengths.max(initial=1))), blank, np.int64)
    for row, ids in enumerate(encoded):
        found[row, : len(ids)] = ids
    return found, lengths
