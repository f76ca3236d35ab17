"""Tiny real things for tests: a task of learnable intent sentences and BERT checkpoints that fit it.

development = make_tiny_development()              # or make_tiny_task(folder) with a test split
folder = make_tiny_bert(tmp_path / "m", development.labels)          # random weights, 0.1 s
folder = train_tiny_bert(tmp_path / "t", development)                # right on most of dev, ~3 s
candidate = tiny_candidate(folder, development)                      # opened by backend `hf`
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jettison.candidate import Candidate, write_candidate
from jettison.files import value_sha256
from jettison.task import Development, Example, Task

INTENTS = {
    "balance": "balance account money savings amount funds total checking",
    "weather": "weather rain sunny forecast temperature umbrella snow storm",
    "alarm": "alarm wake morning clock ring snooze early timer",
    "music": "music song play album artist playlist volume guitar",
    "recipe": "recipe cook dinner pasta oven ingredients bake soup",
    "flight": "flight plane airport ticket airline boarding travel luggage",
}
"""Label to the words that give it away."""
_FILLERS = """
please could you tell me what is the my for of to now today can i need show a about want help
quickly again just do we have any new
"""
FILLERS = _FILLERS.split()
_STRANGERS = "philosophy tractor galaxy poem kangaroo electron castle violin glacier senate"
STRANGERS = _STRANGERS.split()
"""Words of sentences that are out of scope."""
_STEMS, _ENDINGS = ("zor", "mik", "tal", "bre", "vun"), ("a", "ek", "ion", "ump", "il", "oth")
UNUSED = [f"{stem}{ending}" for stem in _STEMS for ending in _ENDINGS]
"""In the vocabulary of `make_tiny_bert` and in no sentence: what trimming should find."""


def make_tiny_development(
    *,
    n_labels: int = 4,
    out_of_scope: bool = True,
    train: int = 160,
    dev: int = 120,
    unlabelled: int = 120,
    seed: int = 0,
) -> Development:
    """Sentences such as `please show me the forecast today`, with `oos` as the label of the rest."""
    return _make(n_labels, out_of_scope, seed, train=train, dev=dev, unlabelled=unlabelled, test=0)[0]


def make_tiny_task(
    folder: Path,
    *,
    n_labels: int = 4,
    out_of_scope: bool = True,
    train: int = 160,
    dev: int = 120,
    test: int = 120,
    unlabelled: int = 120,
    seed: int = 0,
) -> Task:
    """The same with a test split, whose reads are counted under `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    development, tests = _make(
        n_labels, out_of_scope, seed, train=train, dev=dev, unlabelled=unlabelled, test=test
    )
    return Task(
        development=development,
        required_slices=("all",),
        findings=(),
        folder=folder,
        test_digest=value_sha256(tests),
        n_test=len(tests),
        slice_counts={"all": len(tests)},
        _load_test=lambda: tests,
    )


def make_tiny_bert(
    folder: Path,
    labels: Sequence[str],
    *,
    words: Sequence[str] | None = None,
    layers: int = 4,
    hidden: int = 32,
    heads: int = 4,
    seed: int = 0,
) -> Path:
    """Write a BertForSequenceClassification with random weights and a WordPiece tokenizer.

    Args:
        folder: Where; made if need be.
        labels: In the order of the logits.
        words: Whole-word vocabulary; None is every word a tiny sentence can hold, and `UNUSED`.
        layers, hidden, heads: Shape; `intermediate_size` is twice `hidden`.
        seed: Of the weights.
    """
    import torch
    from transformers import BertConfig, BertForSequenceClassification
    from transformers.utils import logging

    logging.disable_progress_bar()
    vocabulary = write_tiny_tokenizer(folder, words)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=2 * hidden,
        max_position_embeddings=64,
        pad_token_id=0,
        initializer_range=0.1,
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
    )
    BertForSequenceClassification(config).eval().save_pretrained(folder)
    return folder


def train_tiny_bert(
    folder: Path,
    development: Development,
    *,
    layers: int = 4,
    hidden: int = 32,
    epochs: int = 12,
    seed: int = 0,
) -> Path:
    """`make_tiny_bert`, then fit it on train; about 0.9 of dev right."""
    import torch
    from transformers import BertForSequenceClassification

    make_tiny_bert(folder, development.labels, layers=layers, hidden=hidden, seed=seed)
    model = BertForSequenceClassification.from_pretrained(folder).train()
    ids, mask = tiny_encode(folder, [example.input for example in development.train])
    wanted = torch.tensor([development.labels.index(str(e.expected)) for e in development.train])
    torch.manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(ids)).split(32):
            loss = model(ids[rows], attention_mask=mask[rows], labels=wanted[rows]).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval().save_pretrained(folder)
    return folder


def tiny_candidate(folder: Path, development: Development, **settings: object) -> Candidate:
    """Make the checkpoint in a folder a candidate of backend `hf`."""
    return write_candidate(
        folder,
        name=folder.name,
        backend="hf",
        labels=development.labels,
        out_of_scope=development.out_of_scope,
        settings={"max_tokens": 32, "batch_size": 32, "threads": 1, **settings},
        licence="Apache-2.0",
    )


def tiny_encode(folder: Path, texts: Sequence[str]):
    """Padded ids and mask of texts, two int64 tensors of shape (n_texts, n_tokens)."""
    import torch
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding(pad_id=0)
    encoded = tokenizer.encode_batch(list(texts))
    ids = torch.tensor([e.ids for e in encoded])
    mask = torch.tensor([e.attention_mask for e in encoded])
    return ids, mask


def write_tiny_tokenizer(folder: Path, words: Sequence[str] | None = None) -> list[str]:
    """Write `tokenizer.json` and `tokenizer_config.json`; return the vocabulary in id order."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    if words is None:
        words = [*FILLERS, *(w for text in INTENTS.values() for w in text.split()), *STRANGERS, *UNUSED]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    vocabulary = list(dict.fromkeys([*special, *letters, *(f"##{c}" for c in letters), *words]))
    numbers = {token: index for index, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(vocab=numbers, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", numbers["[CLS]"]), ("[SEP]", numbers["[SEP]"])],
    )
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(special)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 64}
    settings |= {f"{name}_token": token for name, token in names.items()}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return vocabulary


def _make(
    n_labels: int, out_of_scope: bool, seed: int, **sizes: int
) -> tuple[Development, tuple[Example, ...]]:
    labels = [*list(INTENTS)[:n_labels], *(["oos"] if out_of_scope else [])]
    rng = np.random.default_rng(seed)
    splits: dict[str, tuple[Example, ...]] = {}
    seen: set[str] = set()
    for split in ("train", "dev", "test", "unlabelled"):
        examples = []
        for number in range(sizes[split]):
            label = labels[number % len(labels)]
            text = _sentence(label, rng)
            while text in seen:
                text = _sentence(label, rng)
            seen.add(text)
            expected = None if split == "unlabelled" else label
            slices = {"length": "short" if len(text.split()) < 6 else "long"}
            examples.append(Example(id=f"{split}-{number}", input=text, expected=expected, slices=slices))
        splits[split] = tuple(examples)
    tests = splits.pop("test")
    development = Development(
        name="tiny",
        kind="classify",
        labels=tuple(labels),
        out_of_scope="oos" if out_of_scope else None,
        **splits,
    )
    return development, tests


def _sentence(label: str, rng: np.random.Generator) -> str:
    """Three to eight words: fillers around one or two that give the label away."""
    telling = INTENTS[label].split() if label in INTENTS else STRANGERS
    weights = 1 / np.arange(1, len(telling) + 1)
    n_telling = int(rng.integers(1, 3))
    words = list(rng.choice(FILLERS, int(rng.integers(2, 7))))
    for word in rng.choice(telling, n_telling, p=weights / weights.sum()):
        words.insert(int(rng.integers(0, len(words) + 1)), str(word))
    return " ".join(str(word) for word in words)


def make_tiny_language(
    folder: Path,
    texts: Sequence[str],
    *,
    kind: str = "llama",
    layers: int = 2,
    hidden: int = 32,
    seed: int = 0,
) -> Path:
    """Write a causal language model with random weights, its byte-level BPE tokenizer and a chat template.

    Args:
        folder: Where; made if need be.
        texts: What the tokenizer is trained on.
        kind: `llama`, `qwen2` or `gpt2`.
        layers: Of the transformer.
        hidden: Width; there are 4 heads, and twice as many feed-forward neurons.
        seed: Of the weights.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import (
        AutoModelForCausalLM,
        GPT2Config,
        LlamaConfig,
        PreTrainedTokenizerFast,
        Qwen2Config,
    )
    from transformers.utils import logging

    logging.disable_progress_bar()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|pad|>", "<|start|>", "<|end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=special[0], bos_token=special[1], eos_token=special[2]
    )
    wrapped.chat_template = (
        "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
    )
    torch.manual_seed(seed)
    shape = {
        "vocab_size": len(wrapped),
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "initializer_range": 0.3,
    }
    if kind == "gpt2":
        config = GPT2Config(n_embd=hidden, n_layer=layers, n_head=4, n_positions=512, **shape)
    else:
        made = {"llama": LlamaConfig, "qwen2": Qwen2Config}[kind]
        config = made(
            hidden_size=hidden,
            intermediate_size=2 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            **shape,
        )
    AutoModelForCausalLM.from_config(config).eval().save_pretrained(folder)
    wrapped.save_pretrained(folder)
    return folder
