"""A task: examples, slices and splits that say what good means, whatever model answers.

The splits are kept apart by construction: whatever fits or chooses (steps, search,
calibration) is handed a `Development`, which has no test examples in it. Only the
decision asks for them, through `Task.read_test`, and each time is written down.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import msgspec

from jettison.files import value_sha256
from jettison.task.prompt import Prompt

SPLITS = ("train", "dev", "test", "unlabelled")
TaskKind = Literal["classify", "choose", "generate", "extract", "rank", "embed"]
"""`classify`: one of the task's labels. `choose`: one of the example's own choices. `generate`: a text.
`extract`: a JSON object of fields. `rank`: the example's choices, best first. `embed`: passages of the
task's corpus, best first."""
Split = Literal["train", "dev", "test", "unlabelled"]


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """An input that brings its own choices: the answers of one question, the documents of one query."""

    text: str
    choices: tuple[str, ...]


Input = str | Question
"""What a model is handed."""


class Example(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One case with its expected answer."""

    id: str
    """Unique within the task."""
    input: str
    """What the model is given."""
    expected: str | None = None
    """The right label; None where nobody has said (split `unlabelled`)."""
    group: str | None = None
    """Examples of one group depend on each other (turns of a chat) and share a split."""
    slices: dict[str, str] = msgspec.field(default_factory=dict)
    """Metadata to report on, such as {"domain": "tweets"}."""
    weight: float = 1.0
    source: str | None = None
    """Where it came from: file and line, or log and request."""
    choices: tuple[str, ...] = ()
    """What may be answered here, where that differs from example to example."""
    references: tuple[str, ...] = ()
    """Further right answers beside `expected`; of kind `embed`, ids of passages."""
    tests: tuple[str, ...] = ()
    """Programs that check an answer, for scorer `code`: no right answers."""
    relevance: tuple[float, ...] = ()
    """How well each of the choices answers the query, for `rank`; shape (n_choices,)."""

    @property
    def is_judged(self) -> bool:
        """Whether somebody has said what is right, or what checks an answer."""
        return self.expected is not None or bool(self.references or self.tests)

    @property
    def asked(self) -> Input:
        """What a model is handed: the input, with the choices where there are some."""
        return Question(text=self.input, choices=self.choices) if self.choices else self.input


class Passage(msgspec.Struct, frozen=True, kw_only=True):
    """One text of a corpus."""

    id: str
    """What answers and examples call it."""
    text: str


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing seen in the data that its owner should know."""

    rule: str
    """Name of the check, such as `duplicate_across_splits`."""
    severity: Literal["error", "warning", "note"]
    message: str
    n_examples: int = 0
    examples: tuple[str, ...] = ()
    """Ids of up to ten of them."""


@dataclass(frozen=True, kw_only=True)
class Development:
    """The part of a task that models may be fitted and chosen on. It holds no test example."""

    name: str
    kind: TaskKind
    labels: tuple[str, ...]
    out_of_scope: str | None
    """The label that means "none of these", where the task has one."""
    train: tuple[Example, ...] = field(repr=False)
    dev: tuple[Example, ...] = field(repr=False)
    unlabelled: tuple[Example, ...] = field(repr=False)
    prompt: Prompt | None = None
    """How a language model is asked; None where no language model takes part."""
    scorers: tuple[str, ...] = ("label",)
    """What judges an answer; the first is what candidates are chosen and released by."""
    scorer_settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Scorer → its settings, where it has some."""
    schema: dict[str, Any] | None = None
    """JSON Schema of what to extract, for kind `extract`."""
    corpus: tuple[Passage, ...] = field(default=(), repr=False)
    """What is searched, for kind `embed`."""

    @cached_property
    def digest(self) -> str:
        """Changes when any of the examples, the labels, the prompt or what judges the answers does."""
        parts = [self.kind, self.labels, self.out_of_scope, self.train, self.dev, self.unlabelled]
        more = (self.prompt, self.schema, self.scorer_settings or None, self.corpus or None)
        return value_sha256([*parts, *(one for one in more if one is not None)])

    @cached_property
    def dev_fit(self) -> tuple[Example, ...]:
        """The half of dev that early stopping and calibration read."""
        return tuple(example for example in self.dev if _half(example) == 0)

    @cached_property
    def dev_certify(self) -> tuple[Example, ...]:
        """The other half, which certifies a cascade's threshold and nothing else fits on."""
        return tuple(example for example in self.dev if _half(example) == 1)


@dataclass(frozen=True, kw_only=True)
class Task:
    """Examples, slices and splits: what good means."""

    development: Development
    required_slices: tuple[str, ...]
    """Slices that must each be non-inferior, as `all` or `column=value`."""
    findings: tuple[Finding, ...]
    """What reading the data turned up."""
    folder: Path
    """Where `task.toml` stands; the ledger of test reads is kept beside it."""
    test_digest: str
    n_test: int
    slice_counts: dict[str, int] = field(default_factory=dict)
    """Test examples per slice: counts only, for planning."""
    _load_test: Callable[[], tuple[Example, ...]] = field(repr=False)

    @property
    def name(self) -> str:
        return self.development.name

    @property
    def kind(self) -> TaskKind:
        return self.development.kind

    @property
    def scorers(self) -> tuple[str, ...]:
        """The task's own, and the judge of the out-of-scope flag where there is such a label."""
        more = () if self.out_of_scope is None else ("out_of_scope",)
        return tuple(dict.fromkeys((*self.development.scorers, *more)))

    @property
    def scoring(self) -> dict[str, dict[str, Any]]:
        """Each scorer with its settings, in their order."""
        return {name: self.development.scorer_settings.get(name, {}) for name in self.scorers}

    @property
    def labels(self) -> tuple[str, ...]:
        return self.development.labels

    @property
    def out_of_scope(self) -> str | None:
        return self.development.out_of_scope

    @property
    def train(self) -> tuple[Example, ...]:
        return self.development.train

    @property
    def dev(self) -> tuple[Example, ...]:
        return self.development.dev

    @property
    def unlabelled(self) -> tuple[Example, ...]:
        return self.development.unlabelled

    def read_test(
        self, *, purpose: str, ledger: Path | None = None, is_choice: bool = True
    ) -> "TestReading":
        """Hand out the test examples and write down that it happened.

        Args:
            purpose: What they are read for, stable over a resumed run (the digest of
                the decision's inputs): the same purpose counts once.
            ledger: File to keep the count in, instead of `.jettison/test_reads.jsonl`
                beside the task.
            is_choice: False where the incumbent alone is asked: nothing is chosen by that, and
                it is not counted.
        """
        from jettison.task.ledger import count_test_read, n_test_reads

        path = ledger or self.folder / ".jettison" / "test_reads.jsonl"
        examples = self._load_test()
        texts = [example.input for example in examples]
        if not is_choice:
            n_before = n_test_reads(path, test_digest=self.test_digest, texts=texts)
            return TestReading(examples=examples, n_reads=max(1, n_before))
        n_reads = count_test_read(path, test_digest=self.test_digest, purpose=purpose, texts=texts)
        return TestReading(examples=examples, n_reads=n_reads)

    def test_for_inspection(self) -> tuple[Example, ...]:
        """The test examples for a look at the data alone, which is not counted.

        Whoever takes them this way must not ask a model about them: that is `read_test`.
        """
        return self._load_test()


class TestReading(msgspec.Struct, frozen=True, kw_only=True):
    """The test examples, and how often they have been asked for."""

    __test__ = False  # not a test case, whatever pytest thinks of the name

    examples: tuple[Example, ...]
    n_reads: int
    """Decisions that had read this test split when this one did first, itself included."""


def _half(example: Example) -> int:
    """Side of the dev split an example falls on, by its group, whatever the other examples are."""
    return hashlib.blake2b((example.group or example.id).encode(), digest_size=1).digest()[0] & 1
