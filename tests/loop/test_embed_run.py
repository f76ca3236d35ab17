"""Tasks that rank by an embedder, from the task file to the release."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from jettison.backends.open import open_model
from jettison.candidate import Candidate
from jettison.compress.incumbent import take_in
from jettison.errors import BrokenArtifact, InvalidInput, UnknownName
from jettison.evaluate.run import evaluate
from jettison.evaluate.score_rank import NdcgScorer, RecallScorer
from jettison.model import Output
from jettison.record import mean_score
from jettison.task import Example, Question, Task, read_task

WORDS = [f"word{i}" for i in range(60)]


def write_table(folder: Path) -> Path:
    """A static embedder in which each word has a direction of its own."""
    folder.mkdir(parents=True)
    tokenizer = Tokenizer(WordLevel({w: i for i, w in enumerate(["[UNK]", *WORDS])}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    table = np.random.default_rng(0).normal(size=(len(WORDS) + 1, 48)).astype(np.float32)
    save_file({"embeddings": table}, folder / "model.safetensors")
    return folder


def write_search(folder: Path, n: int = 60, head: str = 'corpus = "corpus.jsonl"') -> Path:
    """Passages of eight words; a query holds three words of the one that answers it."""
    rng = random.Random(0)
    folder.mkdir(parents=True, exist_ok=True)
    passages = {f"p{i}": rng.sample(WORDS, 8) for i in range(30)}
    rows = [
        json.dumps({"_id": k, "title": words[0], "text": " ".join(words[1:])})
        for k, words in passages.items()
    ]
    (folder / "corpus.jsonl").write_text("\n".join(rows))
    for split in ("train", "dev", "test"):
        made = []
        for i in range(n):
            name = rng.choice(sorted(passages))
            query = " ".join([*rng.sample(passages[name], 3), f"{split}{i}"])
            made.append(json.dumps({"text": query, "label": name}))
        (folder / f"{split}.jsonl").write_text("\n".join(made))
    files = "\n".join(f'{s} = "{s}.jsonl"' for s in ("train", "dev", "test"))
    (folder / "task.toml").write_text(
        'format = 1\nname = "s"\nkind = "embed"\nscorers = ["ndcg", "recall_at_k"]\n'
        f"[data]\n{files}\n{head}\n"
    )
    return folder / "task.toml"


def taken_in(task: Task, source: Path | str, cache: Path) -> Candidate:
    return take_in(str(source), labels=(), out_of_scope=None, cache=cache, seed=0, data=task.development)


def test_a_table_searches_the_corpus_and_each_query_is_scored(tmp_path: Path) -> None:
    task = read_task(write_search(tmp_path / "task"))
    assert (len(task.development.corpus), task.scorers) == (30, ("ndcg", "recall_at_k"))
    candidate = taken_in(task, write_table(tmp_path / "table"), tmp_path / "cache")
    records = evaluate(candidate, task.dev, split="dev", scorers=task.scoring)
    assert (mean_score(records, "ndcg") or 0) > 0.6
    assert (mean_score(records, "recall_at_k") or 0) > 0.8
    assert all(set(r.scores) == {"ndcg", "recall_at_k"} for r in records)
    # What comes first is the passage nearest by cosine, whatever else is asked at the same time.
    model = open_model(candidate)
    one, both = model.predict([task.dev[0].input]), model.predict([task.dev[1].input, task.dev[0].input])
    assert one[0].label == both[1].label
    model.close()


def test_choices_are_ordered_and_a_text_alone_is_an_error(tmp_path: Path) -> None:
    task = read_task(write_search(tmp_path / "task"))
    made = taken_in(task, write_table(tmp_path / "table"), tmp_path / "cache")
    settings = {**made.settings, "kind": "rank"}
    ranker = open_model(
        Candidate(**{**{f: getattr(made, f) for f in made.__struct_fields__}, "settings": settings})
    )
    asked = Question(text="word1 word2", choices=("word9 word8", "word1 word2 word3", "word2 word7"))
    order, lost = ranker.predict([asked, "word1"])
    assert order.label == "[1,2,0]" or json.loads(order.label) == [1, 2, 0]
    assert order.logits is not None
    assert order.logits.shape == (3,)
    assert lost.error == "the query has no choices to rank"


def test_known_scores_of_ids() -> None:
    example = Example(id="e", input="q", expected="a", references=("b",))

    def score(answer: object, scorer: NdcgScorer | RecallScorer) -> float | None:
        return scorer.score(example, Output(label=json.dumps(answer), confidence=0.5)).value

    # Gains at places 1 and 3 of two that are right: (1 + 1 / log2 4) / (1 + 1 / log2 3).
    assert score(["a", "c", "b"], NdcgScorer()) == pytest.approx(1.5 / (1 + 1 / np.log2(3)))
    assert score(["c", "a", "b"], RecallScorer(k=2)) == 0.5
    assert score(["a", "a", "b"], RecallScorer(k=2)) == 1.0
    assert score({"a": 1}, NdcgScorer()) == 0.0


def test_bad_tasks_and_incumbents_are_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"data\.corpus must name the file of passages"):
        read_task(write_search(tmp_path / "none", head=""))
    path = write_search(tmp_path / "unknown")
    lines = (path.parent / "dev.jsonl").read_text()
    (path.parent / "dev.jsonl").write_text(lines.replace('"p1"', '"page1"'))
    with pytest.raises(UnknownName, match="ids of passages of the corpus, got 'page1'"):
        read_task(path)
    path = write_search(tmp_path / "twice")
    corpus = path.parent / "corpus.jsonl"
    corpus.write_text(corpus.read_text().replace('"p1"', '"p2"'))
    with pytest.raises(InvalidInput, match="ids of a corpus must be all different, got 'p2' again"):
        read_task(path)
    task = read_task(write_search(tmp_path / "task"))
    with pytest.raises(InvalidInput, match="must be an embedder"):
        taken_in(task, "https://example.com/v1", tmp_path / "cache")
    made = taken_in(task, write_table(tmp_path / "table"), tmp_path / "cache")
    (made.path / "corpus.json").unlink()
    with pytest.raises(BrokenArtifact, match=r"corpus\.json and corpus.safetensors"):
        open_model(made)
