"""How `known.json` was made: the requests that lm-eval 0.4.13 builds of the task files beside it.

cd tests/task/lm_eval && python make_known.py    # in an environment with lm-eval
"""

import json
from pathlib import Path

import yaml
from lm_eval.api.task import ConfigurableTask

found = {}
for path in sorted(Path().glob("*.yaml")):
    config = yaml.safe_load(path.read_text())
    task = ConfigurableTask(config=config)
    task.set_fewshot_seed(1234)
    shots = config.get("num_fewshot", 0)
    requests = []
    for doc in task.test_docs():
        context = task.fewshot_context(doc, shots, gen_prefix=None)
        made = task.construct_requests(doc, context)
        made = made if isinstance(made, list) else [made]
        requests.append(
            {"arguments": [list(one.arguments) for one in made], "gold": task.doc_to_target(doc)}
        )
    found[path.stem] = requests
Path("known.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
