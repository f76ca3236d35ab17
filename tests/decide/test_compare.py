"""The gate alone on prediction files, and its command."""

import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from jettison.cli.compare import command
from jettison.cli.main import main
from jettison.decide.compare import compare_files
from jettison.decision import NotWorse, Verdict
from jettison.errors import InvalidInput, UnknownName
from jettison.record import write_records
from judged_records import flipped, records_of


def rows_of(rights: list[bool], *, with_expected: bool = True) -> list[dict[str, object]]:
    rows = [
        {"id": i, "output": "a" if right else "b", "expected": "a", "lang": "en" if i % 2 else "de"}
        for i, right in enumerate(rights)
    ]
    return rows if with_expected else [{k: row[k] for k in ("id", "output")} for row in rows]


def write_jsonl(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_csv(path: Path, rows: list[dict[str, object]]) -> Path:
    lines = [",".join(map(str, row.values())) for row in rows]
    path.write_text("\n".join([",".join(rows[0]), *lines]) + "\n")
    return path


INCUMBENT, GOOD = flipped(2000, harmful=6, beneficial=2)
BAD = flipped(2000, harmful=80, beneficial=0)[1]


def test_the_file_format_does_not_change_the_verdict(tmp_path: Path) -> None:
    a = write_jsonl(tmp_path / "a.jsonl", rows_of(INCUMBENT))
    parquet = tmp_path / "b.parquet"
    pq.write_table(pa.Table.from_pylist(rows_of(GOOD)), parquet)
    others = [
        write_jsonl(tmp_path / "b.jsonl", random.Random(0).sample(rows_of(GOOD), 2000)),
        write_csv(tmp_path / "b.csv", rows_of(GOOD)),
        parquet,
    ]
    found = [compare_files(a, b, gate=NotWorse()).results for b in others]
    assert found[0] == found[1] == found[2]
    assert found[0][0].verdict is Verdict.SHIP
    assert found[0][0].flips is not None
    assert (found[0][0].flips.harmful, found[0][0].flips.beneficial) == (6, 2)


def test_right_answers_may_stand_in_one_file_alone(tmp_path: Path) -> None:
    a = write_jsonl(tmp_path / "a.jsonl", rows_of(INCUMBENT))
    b = write_jsonl(tmp_path / "b.jsonl", rows_of(GOOD, with_expected=False))
    found = compare_files(a, b, gate=NotWorse(slices=("all", "lang=*")))
    assert [result.slice for result in found.results] == ["all", "lang=de", "lang=en"]
    assert found.metrics["b"]["all"]["accuracy"] == pytest.approx(1994 / 2000)


def test_records_of_our_own_are_read(tmp_path: Path) -> None:
    paths = []
    for name, rights in (("a", INCUMBENT), ("b", GOOD)):
        paths.append(tmp_path / f"{name}.parquet")
        write_records(paths[-1], records_of(rights, candidate=name))
    assert compare_files(*paths, gate=NotWorse()).verdict is Verdict.SHIP


def test_graded_scores_are_compared(tmp_path: Path) -> None:
    rng = random.Random(0)
    base = [round(rng.uniform(0.4, 0.9), 3) for _ in range(400)]
    a = write_jsonl(tmp_path / "a.jsonl", [{"id": i, "score": s} for i, s in enumerate(base)])
    b = write_csv(tmp_path / "b.csv", [{"id": i, "score": s - 0.001} for i, s in enumerate(base)])
    found = compare_files(a, b, gate=NotWorse())
    assert found.gate.scorer == "score"
    assert found.results[0].difference is not None
    assert found.results[0].difference.value == pytest.approx(-0.001)


def samples(rights: list[bool], prompt: str = "p") -> list[dict[str, object]]:
    return [
        {
            "doc_id": i,
            "doc_hash": f"d{i}",
            "prompt_hash": prompt,
            "filter": "none",
            "target": "a",
            "filtered_resps": ["a" if right else "b"],
            "acc": float(right),
            "metrics": ["acc"],
        }
        for i, right in enumerate(rights)
    ]


def test_lm_eval_samples_are_paired_by_document(tmp_path: Path) -> None:
    a = write_jsonl(tmp_path / "samples_a.jsonl", samples(INCUMBENT))
    b = write_jsonl(tmp_path / "samples_b.jsonl", list(reversed(samples(GOOD))))
    found = compare_files(a, b, gate=NotWorse())
    assert (found.gate.scorer, found.verdict) == ("acc", Verdict.SHIP)


def test_lm_eval_samples_of_other_prompts_are_refused(tmp_path: Path) -> None:
    a = write_jsonl(tmp_path / "samples_a.jsonl", samples(INCUMBENT))
    b = write_jsonl(tmp_path / "samples_b.jsonl", samples(GOOD, prompt="q"))
    with pytest.raises(InvalidInput, match="same prompts, got 2000 that differ at d0/none"):
        compare_files(a, b, gate=NotWorse())


def test_files_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    a = write_jsonl(tmp_path / "a.jsonl", rows_of([True] * 20))
    nameless = write_jsonl(tmp_path / "n.jsonl", [{"text": "x", "output": "a"}])
    with pytest.raises(
        InvalidInput, match=r"n\.jsonl must have a column named one of \['example_id', 'id'\]"
    ):
        compare_files(a, nameless, gate=NotWorse())
    silent = write_jsonl(tmp_path / "s.jsonl", [{"id": 1}])
    with pytest.raises(InvalidInput, match="must have an answer in one of"):
        compare_files(a, silent, gate=NotWorse())
    wordy = write_jsonl(tmp_path / "w.jsonl", [{"id": 1, "score": "good"}])
    with pytest.raises(InvalidInput, match=r"score must be a finite number, got 'good' at w\.jsonl:1"):
        compare_files(a, wordy, gate=NotWorse())
    unjudged = write_jsonl(tmp_path / "u.jsonl", rows_of([True] * 20, with_expected=False))
    with pytest.raises(UnknownName, match="must carry one scorer, got none in common"):
        compare_files(unjudged, unjudged, gate=NotWorse())


@pytest.mark.parametrize(("rights", "code", "verdict"), [(GOOD, 0, "SHIP"), (BAD, 1, "BLOCK")])
def test_the_command_exits_with_the_verdict(
    tmp_path: Path, rights: list[bool], code: int, verdict: str, capsys: pytest.CaptureFixture[str]
) -> None:
    a = write_jsonl(tmp_path / "a.jsonl", rows_of(INCUMBENT))
    b = write_jsonl(tmp_path / "b.jsonl", rows_of(rights))
    with pytest.raises(SystemExit) as exit_info:
        main(["compare", str(a), str(b), "--json", "--junit", str(tmp_path / "j.xml")])
    assert exit_info.value.code == code
    told = json.loads(capsys.readouterr().out)
    assert told["verdict"] == verdict
    assert "testsuite" in (tmp_path / "j.xml").read_text()


def test_the_command_shows_flips_and_metrics(tmp_path: Path) -> None:
    a = write_jsonl(tmp_path / "a.jsonl", rows_of(INCUMBENT))
    b = write_jsonl(tmp_path / "b.jsonl", rows_of(BAD))
    shown = CliRunner().invoke(command, [str(a), str(b), "--slice", "lang=*"], standalone_mode=False)
    assert "must not replace" in shown.output
    assert "78/0/0" in shown.output
    assert "macro_f1" in shown.output


def test_the_command_asks_for_a_task_to_ask_models(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["compare", "bert-a", "bert-b"])
    assert exit_info.value.code == 2
    assert "unless --task is given, got bert-a" in capsys.readouterr().err
