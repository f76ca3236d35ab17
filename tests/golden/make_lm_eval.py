"""Makes `tests/golden/lm-eval` with lm-eval itself: two models on two tasks, and one with another prompt.

Run it where lm-eval 0.4.13 is installed: `python tests/golden/make_lm_eval.py`. No network, no weights.
"""

import json
import os
import random
import shutil
import tempfile
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": tempfile.mkdtemp()}

import lm_eval
from lm_eval.api.model import LM
from lm_eval.loggers import EvaluationTracker
from lm_eval.tasks import TaskManager

FOLDER = Path(__file__).parent / "lm-eval"
CHOOSE = """\
task: sums_choose
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{prompt}: {{{{question}}}}\\nAnswer:"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""
GENERATE = """\
task: sums_generate
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{prompt}: {{{{question}}}}\\nAnswer:"
doc_to_target: "{{{{choices[answer]}}}}"
generation_kwargs: {{until: ["\\n"], do_sample: false, max_gen_toks: 4}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
filter_list:
  - {{name: whole, filter: [{{function: take_first}}]}}
  - {{name: number, filter: [{{function: regex, regex_pattern: "(-?[0-9]+)"}}, {{function: take_first}}]}}
"""


class Guesser(LM):
    """A model that draws its answers."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._rng = random.Random(seed)

    def loglikelihood(self, requests, disable_tqdm=False):
        return [(-self._rng.random(), False) for _ in requests]

    def generate_until(self, requests, disable_tqdm=False):
        docs = [request.doc for request in requests]
        return [f"It is {self._rng.choice([d['choices'][d['answer']], '7'])}" for d in docs]

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        return [-1.0 for _ in requests]


def write_tasks(folder: Path, prompt: str) -> None:
    """Twelve sums, the fourth of them there twice, in two kinds of task."""
    rows = [
        {
            "id": f"q{i}",
            "question": f"What is {i} plus {i % 5}?",
            "choices": [str(i + i % 5), str(i + 7), str(i + 11)],
            "answer": 0,
            "size": "small" if i < 6 else "large",
        }
        for i in range(12)
    ]
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[3]]))
    for name, text in (("choose", CHOOSE), ("generate", GENERATE)):
        (folder / f"{name}.yaml").write_text(text.format(data=data, prompt=prompt))


def main() -> None:
    """Run lm-eval three times and keep what it wrote."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    for name, seed, prompt in (("large", 1, "Question"), ("lean", 2, "Question"), ("reworded", 2, "Sum")):
        with tempfile.TemporaryDirectory() as folder:
            write_tasks(Path(folder), prompt)
            manager = TaskManager(include_path=folder, include_defaults=False)
            tasks = ["sums_choose"] if name == "reworded" else ["sums_choose", "sums_generate"]
            tracker = EvaluationTracker(output_path=str(Path(folder) / "out"))
            found = lm_eval.simple_evaluate(
                model=Guesser(seed), tasks=tasks, task_manager=manager, log_samples=True, bootstrap_iters=0
            )
            samples = found.pop("samples")
            found["pretty_env_info"] = None  # of the machine, not of the format
            tracker.save_results_aggregated(results=found, samples=samples)
            for task, rows in samples.items():
                tracker.save_results_samples(task_name=task, samples=rows)
            (written,) = (Path(folder) / "out").iterdir()
            shutil.copytree(written, FOLDER / name)
            for path in (FOLDER / name).glob("results_*.json"):
                path.write_text(path.read_text().replace(folder, "/data"))


if __name__ == "__main__":
    main()
