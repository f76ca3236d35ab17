"""The loop as a library, on a fake model so that it runs in seconds: swap in your own folder and task."""

import json
import random
import tempfile
from pathlib import Path

from jettison import NotWorse, RunConfig, run
from jettison.candidate import write_candidate

folder = Path(tempfile.mkdtemp())
rng = random.Random(0)
labels = ("billing", "delivery", "refund")
with (folder / "data.jsonl").open("w") as file:
    for split, size in (("train", 300), ("dev", 600), ("test", 1200)):
        for _ in range(size):
            label = rng.choice(labels)
            text = f"a question about {label}, order {split}-{rng.randrange(10**9)}"
            file.write(json.dumps({"text": text, "label": label, "split": split}) + "\n")
(folder / "task.toml").write_text(
    'format = 1\nname = "questions"\nkind = "classify"\n[data]\npath = "data.jsonl"\n'
    '[data.columns]\ninput = "text"\nexpected = "label"\nsplit = "split"\n'
)
(folder / "model").mkdir()
write_candidate(
    folder / "model",
    name="large",
    backend="fake",
    labels=labels,
    settings={"accuracy": 0.97, "latency_s": 0.001},
)

outcome = run(
    RunConfig(
        task=str(folder / "task.toml"),
        incumbent=str(folder / "model"),
        output=str(folder / "run"),
        recipes=[{"name": "linear", "steps": [{"step": "distill_linear"}]}],
        gates=(NotWorse(margin=0.03),),
        cost_s=1.0,
        cost_openings=3,
    )
)
print(outcome.decision.verdict, outcome.decision.headline)
print(outcome.report)
