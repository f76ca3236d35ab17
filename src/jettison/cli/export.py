"""`jettison export`: an evaluation, a decision or a task in the format of another tool."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from jettison.decide.export.evaluation import Evaluation
    from jettison.decide.export.every_eval_ever import Relationship

FORMATS = {
    "lm-eval": "a task: folder of YAML and JSONL for `lm-eval run --include_path`",
    "inspect": "a log (.eval) for `inspect view`",
    "model-index": "scores in the front matter of a model card (.md)",
    "eval-results": "a score for the Hub's `.eval_results/*.yaml`",
    "every-eval-ever": "records of Every Eval Ever, below a folder",
    "junit": "gates as test cases, for a build server (.xml)",
}


@click.command("export", short_help="write results as other tools read them")
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--to", "target", type=click.Choice(list(FORMATS)), required=True, help="What to write.")
@click.option(
    "--output", "-o", type=click.Path(path_type=Path), required=True, help="The file or folder to write."
)
@click.option("--candidate", help="Of a run or release; otherwise the one that was chosen.")
@click.option("--task", type=click.Path(path_type=Path), help="task.toml: gives what was asked.")
@click.option("--model", help="What the model is called there, as owner/name.")
@click.option("--name", help="What the task is called there.")
@click.option("--scorer", help="eval-results: the score to tell; otherwise the first.")
@click.option("--dataset", help="Id of the data set on the Hub, as owner/name.")
@click.option("--task-id", help="eval-results: of the benchmark's eval.yaml; otherwise the task's name.")
@click.option("--url", help="Where the evaluation can be read about.")
@click.option("--organization", help="every-eval-ever: who ran the evaluation.")
@click.option(
    "--relationship", type=click.Choice(["first_party", "third_party", "collaborative", "other"]),
    default="other", show_default=True, help="every-eval-ever: of who ran it to who made the model.",
)  # fmt: skip
@click.option(
    "--column", "named", multiple=True, metavar="ROLE=COLUMN",
    help="Name of a prediction file's column: example, input, output, expected, score, ... Repeatable.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
def command(
    source: Path,
    target: str,
    output: Path,
    candidate: str | None,
    task: Path | None,
    model: str | None,
    name: str | None,
    scorer: str | None,
    dataset: str | None,
    task_id: str | None,
    url: str | None,
    organization: str | None,
    relationship: "Relationship",
    named: tuple[str, ...],
    as_json: bool,
) -> int:
    """Write SOURCE as another tool reads it.

    SOURCE is a release, the folder of a run or predictions of any kind that `jettison compare` reads; for
    lm-eval a task file or a run, for junit a run, a release or a decision.json.
    """
    from jettison.errors import InvalidInput
    from jettison.loop.published import decision_of, evaluation_of, task_of

    if target == "lm-eval":
        from jettison.task.lm_eval_export import export_lm_eval

        return _say([export_lm_eval(task_of(source), output)], target, as_json)
    if target == "junit":
        from jettison.decide.render import decision_junit
        from jettison.files import write_atomic

        write_atomic(output, decision_junit(decision_of(source)))
        return _say([output], target, as_json)
    from jettison.cli.compare import columns_of

    evaluation = evaluation_of(
        source, candidate=candidate, task_file=task, model=model, name=name, columns=columns_of(named)
    )
    if target == "eval-results":
        from jettison.decide.export.eval_results import write_eval_results

        if dataset is None:
            raise InvalidInput("--dataset must name the benchmark on the Hub for eval-results, got none.")
        written = write_eval_results(
            output, evaluation, dataset=dataset, task_id=task_id, url=url, scorer=scorer
        )
        return _say([written], target, as_json)
    if target == "every-eval-ever":
        from jettison.decide.export.every_eval_ever import Origin, write_every_eval_ever

        if organization is None:
            raise InvalidInput("--organization must say who ran the evaluation, got none.")
        origin = Origin(organization=organization, relationship=relationship, dataset=dataset, url=url)
        return _say(list(write_every_eval_ever(output, evaluation, origin)), target, as_json)
    return _say([_plain(target, output, evaluation)], target, as_json)


def _plain(target: str, output: Path, evaluation: "Evaluation") -> Path:
    """The formats that ask for nothing else."""
    if target == "inspect":
        from jettison.decide.export.inspect_log import write_inspect_log

        return write_inspect_log(output, evaluation)
    from jettison.decide.export.model_index import write_model_index

    return write_model_index(output, evaluation)


def _say(written: list[Path], target: str, as_json: bool) -> int:
    if as_json:
        click.echo(json.dumps({"format": target, "files": [str(path) for path in written]}))
    else:
        for path in written:
            click.echo(f"{target}  {path}")
    return 0
