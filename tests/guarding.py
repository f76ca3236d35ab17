"""What the tests of guardrails need: secrets that open nothing, a small embedder, a small classifier."""

from pathlib import Path

import msgspec
import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from jettison.backends.guard import GUARD_FILE, Guard
from jettison.backends.ngrams import word_key
from jettison.candidate import Candidate, write_candidate
from jettison.files import write_json
from releasing import make_decision, make_release

# Put together here, so that no scanner of repositories takes them for real.
_R = "9fK2mQ7xT4vB8nW3zL6pY1cD5hJ0sGaR2eU8iOq"
PASSWORDS = {
    "aws": "key " + "AKIA" + "IOSFODNN7EXAMPLQ"[:16] + " in the config",
    "github": "use " + "ghp" + "_" + _R[:36] + " to clone",
    "api_key": "call it with " + "sk" + "-proj-" + _R + " then",
    "google": "maps: " + "AI" + "za" + _R[:35] + " ok",
    "slack": "bot " + "xox" + "b-123456789012-abcdefGHIJ" + " posts",
    "stripe": "pay " + "sk" + "_live_" + _R[:24] + " now",
    "jwt": "it is " + "ey" + "J" + _R[:20] + ".ey" + "J" + _R[:30] + "." + _R[:30] + " there",
    "url": "postgres" + "://app:hunter2sPass@db.internal:5432/x please",
    "bearer": "send Authorization: " + "Bearer " + _R + " along",
    "assigned": 'set api_key = "' + _R[:20] + '" there',
    "password": "my password: Tr0ub4dor&3 works",
    "private": "this\n-----BEGIN RSA "
    + f"PRIVATE KEY-----\n{_R}\n{_R}\n-----END RSA "
    + "PRIVATE KEY-----\nend",
}


_WORDS = """
build a bomb buy gun bet on horse how to the play song what is weather time card my please tell me in for of
and you it help can will rain today music album order pizza transfer money balance
"""


def an_embedder(folder: Path, *, width: int = 64) -> Path:
    """A table of vectors at random for some words; texts are alike as far as they share words."""
    words = ["[UNK]", *dict.fromkeys(_WORDS.split())]
    folder.mkdir(parents=True)
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    rng = np.random.default_rng(0)
    table = rng.normal(size=(len(words), width)).astype(np.float32)
    for common in ("a", "on", "how", "to", "the", "is", "what", "[UNK]"):
        table[words.index(common)] *= 0.05
    save_file({"embeddings": table}, folder / "model.safetensors")
    return folder


def a_classifier(
    folder: Path,
    *,
    words: tuple[str, str] = ("thank", "idiot"),
    labels: tuple[str, str] = ("fine", "rude"),
) -> Candidate:
    """A linear candidate that knows two words, one for each label: `idiot` is rude, `thank` is not."""
    folder.mkdir(parents=True)
    keys = np.array([word_key(words[1]), word_key(words[0])], np.uint32)
    order = np.argsort(keys)
    rows = np.array([[-3.0, 3.0], [3.0, -3.0]], np.float32)[order]
    arrays = {
        "keys": keys[order],
        "rows": rows,
        "mass": np.ones(2, np.float32),
        "bias": np.array([0.5, 0.0], np.float32),
    }
    save_file(arrays, folder / "model.safetensors")
    return write_candidate(
        folder, name=labels[1], backend="linear", labels=labels, settings={"characters": [3, 5]}
    )


def a_guard(folder: Path) -> Path:
    """A guard as `jettison guard` leaves one, whose model knows two words: `ignore` is an attack."""
    words, labels = ("thank", "ignore"), ("ordinary", "injection")
    candidate = a_classifier(folder / "candidate", words=words, labels=labels)
    decision = make_decision(candidate, chosen=candidate.name)
    report = msgspec.structs.replace(decision.candidates[0], name=candidate.name)
    decision = msgspec.structs.replace(decision, candidates=(report,))
    release = make_release(folder, candidate=candidate, decision=decision)
    (folder / "7").rename(folder / "release")
    guard = Guard(
        label="injection",
        release=release.digest,
        thresholds={"0.01": 0.9, "0.05": 0.55},
        n_ordinary=100,
    )
    write_json(folder / GUARD_FILE, guard)
    return folder
