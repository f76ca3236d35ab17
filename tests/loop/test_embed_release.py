"""An embedder from the task to the gateway: judged by nDCG and recall, released, asked for its vectors."""

import json
import random
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from gateways import ask, client, config_of, post, running
from jettison.backends.embedder import open_embedder
from jettison.backends.released import open_release_model
from jettison.decision import NotWorse, Verdict
from jettison.loop.config import RunConfig
from jettison.loop.run import run
from jettison.release import open_release
from jettison.release.read import read_candidate
from jettison.serve.config import ProofConfig
from tiny import make_tiny_bert, make_tiny_development

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]
SENTENCES = make_tiny_development(train=80, dev=30, unlabelled=0)


def write_search(folder: Path, n: int = 300) -> Path:
    """Sentences to find; a query is one of them with a word left out and the rest in another order."""
    rng = random.Random(0)
    folder.mkdir()
    corpus = {f"p{i}": text for i, text in enumerate(dict.fromkeys(e.input for e in SENTENCES.train))}
    rows = [json.dumps({"id": name, "text": text}) for name, text in corpus.items()]
    (folder / "corpus.jsonl").write_text("\n".join(rows))
    for split, size in (("dev", n), ("test", 2 * n)):
        made = []
        for i in range(size):
            name = rng.choice(sorted(corpus))
            words = corpus[name].split()
            kept = rng.sample(words, max(1, len(words) - 1))
            made.append(json.dumps({"query": f"{' '.join(kept)} {i}", "page": name}))
        (folder / f"{split}.jsonl").write_text("\n".join(made))
    (folder / "task.toml").write_text(
        'format = 1\nname = "help-search"\nkind = "embed"\nscorers = ["ndcg", "recall_at_k"]\n'
        '[data]\ndev = "dev.jsonl"\ntest = "test.jsonl"\ncorpus = "corpus.jsonl"\n'
        'columns = {input = "query", expected = "page"}\n'
    )
    return folder / "task.toml"


def test_an_int8_embedder_is_released_and_the_gateway_gives_its_vectors(tmp_path: Path) -> None:
    outcome = run(
        RunConfig(
            task=str(write_search(tmp_path / "task")),
            incumbent=str(make_tiny_bert(tmp_path / "tiny", SENTENCES.labels, layers=2)),
            output=str(tmp_path / "run"),
            recipes=[{"name": "int8", "steps": [{"step": "quantize_embedder", "precision": "int8"}]}],
            gates=tuple(NotWorse(scorer=name, margin=0.05) for name in ("ndcg", "recall_at_k")),
            usd_per_hour=0.1,
            n_cost_tasks=20,
            cost_s=0.2,
        )
    )
    decision = outcome.decision
    assert decision.verdict is Verdict.SHIP
    assert decision.chosen == "int8"
    incumbent = next(one for one in decision.candidates if one.role == "incumbent")
    assert 0.5 < (incumbent.scores["all"]["ndcg"] or 0.0) < 1.0
    release = open_release(outcome.release)
    candidate = read_candidate(release, release.route.candidate)
    texts = ["please play my song", "forecast"]
    wanted = open_embedder(candidate.path).embed(texts)
    with closing(open_release_model(release)) as model:
        ids = json.loads(model.predict([texts[0]])[0].label)
    config = config_of(tmp_path, release=str(outcome.release), proof=ProofConfig())
    with running(config) as gateway:
        made = client(gateway).embeddings.create(model="help-search", input=texts)
        assert np.array([one.embedding for one in made.data]) == pytest.approx(wanted, abs=1e-5)
        # Every name is the release's where there is no upstream, and a wrong size is said.
        assert post(gateway, "/v1/embeddings", {"model": "gpt-embed", "input": "song"}).status == 200
        refused = post(gateway, "/v1/embeddings", {"model": "help-search", "input": "x", "dimensions": 3})
        assert (refused.status, refused.json["error"]["param"]) == (400, "dimensions")
        found = ask(gateway, texts[0]).json["choices"][0]["message"]["content"]
        assert json.loads(found) == ids
