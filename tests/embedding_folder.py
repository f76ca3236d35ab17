"""A small static embedder on disk: a WordPiece tokenizer and one vector a token."""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

WORDS = ("[UNK]", "apple", "pear", "song", "alarm")


def make_static_embedder(folder: Path, width: int = 8) -> Path:
    folder.mkdir(parents=True)
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    table = np.random.default_rng(0).normal(size=(len(WORDS), width)).astype(np.float32)
    save_file({"embeddings": table}, folder / "model.safetensors")
    return folder
