"""Task files of lm-eval are read as lm-eval renders them, and tasks are written so that it runs them."""
# ruff: noqa: E501  (a case a line)

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from jettison.errors import InvalidInput
from jettison.task import Question, Task, read_task
from jettison.task.lm_eval_export import export_lm_eval
from jettison.task.prompt import Prompt
from task_writing import hash_word, rows, write_jsonl, write_task

HERE = Path(__file__).parent / "lm_eval"
KNOWN = json.loads((HERE / "known.json").read_text(encoding="utf-8"))


def asked(task: Task) -> list[list[list[str]]]:
    """Context and continuation of each request, or the context alone, as lm-eval has its arguments."""
    prompt = task.development.prompt
    assert prompt is not None
    requests = []
    for example in task.read_test(purpose="a test").examples:
        text = example.asked.text if isinstance(example.asked, Question) else example.asked
        context = prompt.text(text, example.choices, task.labels)
        options = example.choices or (task.labels if task.kind == "classify" else ())
        requests.append(
            [[context, prompt.before_answer + prompt.word(one)] for one in options] or [[context]]
        )
    return requests


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for path in HERE.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


@pytest.mark.parametrize("name", ["choose_shots", "choose_letters"])
def test_choices_are_asked_letter_for_letter_as_lm_eval_asks(folder: Path, name: str) -> None:
    task = read_task(folder / f"{name}.yaml")
    assert asked(task) == [request["arguments"] for request in KNOWN[name]]
    examples = task.read_test(purpose="a test").examples
    golds = [example.choices.index(example.expected or "") for example in examples]
    assert golds == [request["gold"] for request in KNOWN[name]]


def test_texts_are_asked_letter_for_letter_as_lm_eval_asks(folder: Path) -> None:
    task = read_task(folder / "generate.yaml")
    assert [one[0][0] for one in asked(task)] == [
        request["arguments"][0][0] for request in KNOWN["generate"]
    ]
    given = KNOWN["generate"][0]["arguments"][0][1]
    prompt = task.development.prompt
    assert prompt is not None
    assert (list(prompt.stop), prompt.max_tokens) == (given["until"], given["max_gen_toks"])
    examples = task.read_test(purpose="a test").examples
    assert [example.expected for example in examples] == [request["gold"] for request in KNOWN["generate"]]
    assert task.scorers == ("regex",)
    assert task.development.scorer_settings["regex"] == {"pattern": r"(?-m:(\w+)$)", "take": "last"}


def test_a_likelihood_of_one_text_becomes_an_answer_that_must_begin_with_it(folder: Path) -> None:
    task = read_task(folder / "last_word.yaml")
    known = KNOWN["last_word"]
    assert [one[0][0] for one in asked(task)] == [request["arguments"][0][0] for request in known]
    examples = task.read_test(purpose="a test").examples
    assert [example.expected for example in examples] == [request["arguments"][0][1] for request in known]
    assert task.scorers == ("begins_with",)
    assert any("perplexity" in finding.message for finding in task.findings)


def test_shots_are_of_train_and_the_metric_says_what_likelihoods_are_set_against(folder: Path) -> None:
    task = read_task(folder / "choose_shots.yaml")
    prompt = task.development.prompt
    assert prompt is not None
    assert (prompt.normalise, prompt.chat, len(prompt.shots)) == ("length", False, 2)
    # The shots are no longer examples, and a tenth of the rest would be dev: here nothing is left over.
    assert {example.id for example in (*task.train, *task.dev)} == {"t3", "t4"}
    assert task.n_test == 3


def test_mutual_information_is_taken_against_nothing_as_lm_eval_does(folder: Path) -> None:
    text = (folder / "choose_letters.yaml").read_text()
    (folder / "mutual.yaml").write_text(f"{text}metric_list: [{{metric: acc_mutual_info}}]\n")
    prompt = read_task(folder / "mutual.yaml").development.prompt
    assert prompt is not None
    assert (prompt.normalise, prompt.alone) == ("unconditional", "")
    assert read_task(folder / "choose_letters.yaml").development.prompt != prompt


def test_shots_drawn_at_random_are_the_same_for_all_and_it_is_said(folder: Path) -> None:
    text = (folder / "choose_shots.yaml").read_text().replace("fewshot_config: {sampler: first_n}\n", "")
    (folder / "drawn.yaml").write_text(text)
    task = read_task(folder / "drawn.yaml")
    assert "same_shots" in {finding.rule for finding in task.findings}
    assert read_task(folder / "drawn.yaml").development.prompt == task.development.prompt


def test_included_files_and_validation_as_the_test_split(folder: Path) -> None:
    text = (
        (folder / "choose_letters.yaml").read_text().replace("test_split: test", "validation_split: test")
    )
    (folder / "_base.yaml").write_text(text)
    (folder / "mine.yaml").write_text("include: _base.yaml\ntask: mine\ndescription: Other.\n")
    task = read_task(folder / "mine.yaml")
    assert (task.name, task.n_test, len(task.dev)) == ("mine", 3, 0)
    assert task.development.prompt is not None
    assert task.development.prompt.system == "Other."


def test_a_data_set_folder_is_read_as_dataset_path(folder: Path) -> None:
    (folder / "things").mkdir()
    for split in ("train", "test"):
        (folder / f"{split}.jsonl").rename(folder / "things" / f"{split}.jsonl")
    config = yaml.safe_load((folder / "choose_letters.yaml").read_text())
    del config["dataset_kwargs"]
    (folder / "local.yaml").write_text(yaml.safe_dump({**config, "dataset_path": "things"}))
    assert read_task(folder / "local.yaml").n_test == 3


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": ({"process_docs": "x"}, r"`process_docs` of .* is outside the subset of lm-eval"),
    "misspelt": ({"doc_to_txt": "x"}, r"`doc_to_txt` .* Did you mean 'doc_to_text'\?"),
    "gen_prefix": ({"gen_prefix": "x"}, r"`gen_prefix` of .* is outside the subset"),
    "rolling": ({"output_type": "loglikelihood_rolling"}, r"`output_type` of .* must be one of .* got 'loglikelihood_rolling'"),
    "hub": ({"dataset_path": "allenai/arc"}, r"`dataset_path` of task .* got 'allenai/arc'\. Nothing is downloaded"),
    "no file": ({"dataset_kwargs": {"data_files": {"test": "none.jsonl"}}}, r"`data_files` of task .* got 'none\.jsonl'"),
    "kwargs": ({"dataset_kwargs": {"data_dir": "x"}}, r"must have data_files alone, got 'data_dir'"),
    "no split": ({"test_split": "tests"}, r"a split of task .* must be one of \['test', 'train'\] of data_files, got 'tests'"),
    "nothing tested": ({"test_split": None}, r"`test_split` of .* must name a split"),
    "no choices": ({"doc_to_choice": None}, r"`doc_to_choice` of .* must be there for multiple_choice"),
    "sampling": ({"generation_kwargs": {"do_sample": True}}, r"`generation_kwargs` of .* must be greedy"),
    "top_p": ({"generation_kwargs": {"top_p": 0.9}}, r"unknown field `top_p`"),
    "repeats": ({"repeats": 3}, r"`repeats` of .* must be 1, got 3"),
    "group": ({"group": "all"}, r"must be one task, got a group"),
    "unsafe": ({"unsafe_code": True}, r"`unsafe_code` of .* must be left out"),
    "metric": ({"metric_list": [{"metric": "mcc"}]}, r"`metric_list` of task .* must have a metric that is measured here .* got \['mcc'\]"),
    "shots of test": ({"num_fewshot": 1, "fewshot_split": "test"}, r"`fewshot_split` .* must be another split than the one that decides"),
    "too many shots": ({"num_fewshot": 9, "fewshot_split": "train"}, r"`num_fewshot` .* must be at most 4, got 9"),
    "sampler": ({"fewshot_config": {"sampler": "balanced"}}, r"`fewshot_config` of .* got 'balanced'"),
    "no field": ({"doc_to_text": "{{nothing}}"}, r"`doc_to_text` must render on every document, got UndefinedError: 'nothing' is undefined at test\.jsonl:1"),
    "syntax": ({"doc_to_text": "{{question"}, r"`doc_to_text` must render .* got TemplateSyntaxError"),
    "no escape": ({"doc_to_text": "{{question.__class__.__mro__}}"}, r"`doc_to_text` must render .* got SecurityError"),
    "bomb": ({"doc_to_text": "{{'a' * 10**9}}"}, r"`doc_to_text` must render .* would make too much"),
    "choices of text": ({"doc_to_choice": "{{question}}"}, r"`doc_to_choice` must give a list of two texts or more"),
    "position": ({"doc_to_target": 7}, r"`doc_to_target` must be a position or the text of one of the 3 choices, got 7"),
    "description": ({"description": "{{question}}"}, r"`description` must be the same for every document"),
    "winogrande": ({"doc_to_text": "{{answer}}"}, r"`doc_to_text` must give text, got '1'"),
    "filter": ({"filter_list": [{"name": "x", "filter": [{"function": "majority_vote"}]}], "output_type": "generate_until"}, r"`filter_list` of task .* got 'majority_vote'"),
    "two groups": ({"filter_list": [{"name": "x", "filter": [{"function": "regex", "regex_pattern": "(a)(b)"}]}], "output_type": "generate_until"}, r"at most one group, got 2 groups"),
    "bad pattern": ({"filter_list": [{"name": "x", "filter": [{"function": "regex", "regex_pattern": "("}]}], "output_type": "generate_until"}, r"must have a regular expression, got '\('"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_outside_the_subset_is_refused_by_its_name(folder: Path, case: str) -> None:
    more, match = REFUSED[case]
    config = yaml.safe_load((folder / "choose_letters.yaml").read_text())
    (folder / "bad.yaml").write_text(yaml.safe_dump({**config, **more}))
    with pytest.raises(InvalidInput, match=match) as caught:
        read_task(folder / "bad.yaml")
    assert "\n" not in str(caught.value)


def test_python_in_a_task_file_is_named_and_never_run(folder: Path) -> None:
    text = (
        (folder / "choose_letters.yaml")
        .read_text()
        .replace("doc_to_text: question", "doc_to_text: !function utils.x")
    )
    (folder / "code.yaml").write_text(text)
    with pytest.raises(
        InvalidInput, match=r"`doc_to_text` of .* got a `!function`, which runs Python code"
    ):
        read_task(folder / "code.yaml")
    (folder / "code.yaml").write_text("a: !!python/object/apply:os.system ['true']")
    with pytest.raises(InvalidInput, match=r"must be valid YAML: could not determine a constructor"):
        read_task(folder / "code.yaml")


def test_files_that_are_no_task_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"none\.yaml must be a task file, got nothing there"):
        read_task(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- a")
    with pytest.raises(InvalidInput, match=r"list\.yaml must be a YAML mapping, got list"):
        read_task(tmp_path / "list.yaml")
    (tmp_path / "loop.yaml").write_text("include: loop.yaml")
    with pytest.raises(InvalidInput, match=r"`include` of .* at most 5 deep"):
        read_task(tmp_path / "loop.yaml")


# Export

PROMPT = """[prompt]
system = "Answer {{briefly}}."
template = "Labels: {labels}\\nText: {input}"
answer_prefix = "\\nLabel:"
words = {buy = "purchase"}
shots = 2
"""


def test_an_exported_classifier_asks_the_same_when_it_is_read_back(tmp_path: Path) -> None:
    splits = {
        name: [{**row, "domain": "web"} for row in rows(split=name)] for name in ("train", "dev", "test")
    }
    path = write_task(tmp_path, rest=f'[data.columns]\nslices = ["domain"]\n{PROMPT}', **splits)
    task = read_task(path)
    written = export_lm_eval(task, tmp_path / "out")
    back = read_task(written)
    assert asked(back) == asked(task)
    assert back.kind == "choose"
    examples = {example.id: example for example in task.read_test(purpose="a test").examples}
    for example in back.read_test(purpose="a test").examples:
        same = examples[example.id]
        assert example.expected == {"buy": "purchase"}.get(same.expected or "", same.expected)
        assert example.slices == {"domain": "web"}
    assert {example.id for example in back.train} <= {example.id for example in task.train}


def test_an_exported_generation_keeps_its_references_stops_and_shots(tmp_path: Path) -> None:
    for split in ("train", "dev", "test"):
        made = [{"q": f"{split} {i} {hash_word(split, i)}", "a": ["Rome", f"Roma {i}"]} for i in range(6)]
        write_jsonl(tmp_path / f"{split}.jsonl", made)
    path = tmp_path / "task.toml"
    path.write_text(
        'format = 1\nname = "capital cities"\nkind = "generate"\n'
        '[data]\ntrain = "train.jsonl"\ndev = "dev.jsonl"\ntest = "test.jsonl"\n'
        'columns = {input = "q", expected = "a"}\n'
        '[prompt]\ntemplate = "Q: {input}"\nanswer_prefix = "\\nA:"\nshots = 2\nmax_tokens = 9\nstop = ["\\n"]\n'
    )
    task = read_task(path)
    back = read_task(export_lm_eval(task, tmp_path / "out"))
    assert back.name == "capital_cities"
    assert asked(back) == asked(task)
    assert back.scorers == task.scorers == ("normalized_exact",)
    assert back.development.prompt is not None
    assert (back.development.prompt.stop, back.development.prompt.max_tokens) == (("\n",), 9)
    assert back.dev[0].references == task.dev[0].references


def test_tasks_share_a_folder_for_lm_eval_and_what_else_is_there_stays(tmp_path: Path) -> None:
    out = tmp_path / "tasks"
    out.mkdir()
    (out / "mine.yaml").write_text("task: mine")
    written = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        path = write_task(tmp_path / name)
        path.write_text(path.read_text().replace('name = "', f'name = "{name}-'))
        written.append(export_lm_eval(read_task(path), out))
    assert (out / "mine.yaml").read_text() == "task: mine"
    assert written[0] != written[1]
    for path in written:
        files = yaml.safe_load(path.read_text())["dataset_kwargs"]["data_files"]
        assert {Path(file).name for file in files.values()} == {
            f"{path.stem}.{split}.jsonl" for split in ("train", "dev", "test")
        }
        assert len(read_task(path).train) > 0


def test_an_export_reads_the_test_split_once_and_it_is_counted(tmp_path: Path) -> None:
    task = read_task(write_task(tmp_path))
    export_lm_eval(task, tmp_path / "out")
    export_lm_eval(task, tmp_path / "out")
    ledger = tmp_path / ".jettison" / "test_reads.jsonl"
    assert [json.loads(line)["purpose"] for line in ledger.read_text().splitlines()] == [
        "export to lm-eval"
    ]


def test_a_task_that_lm_eval_cannot_run_is_not_exported(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "in.jsonl", [{"text": "a word"}])
    (tmp_path / "task.toml").write_text(
        'format = 1\nname = "t"\nkind = "generate"\n[data]\nunlabelled = "in.jsonl"\n'
    )
    with pytest.raises(
        InvalidInput, match=r"must choose or generate and have a test split, got a task without test"
    ):
        export_lm_eval(read_task(tmp_path / "task.toml"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_sets_parts_of_a_prompt_off_can_be_said() -> None:
    prompt = Prompt(system="S", after_system="", before_answer="|", between="\n")
    assert prompt.text("q") == "Sq"
    assert Prompt(system="S").text("q") == "S\n\nq"
