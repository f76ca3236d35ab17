"""`jettison cost` at the command line, on fake candidates."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from jettison.candidate import write_candidate
from jettison.cli.cost import _distinct_names, command
from jettison.errors import InvalidInput


@pytest.fixture
def two(tmp_path: Path) -> tuple[str, str, str]:
    for name, latency_s in (("large", 0.002), ("lean", 0.0005)):
        (tmp_path / name).mkdir()
        write_candidate(
            tmp_path / name, name=name, backend="fake", labels=("a", "b"), settings={"latency_s": latency_s}
        )
    (tmp_path / "texts.txt").write_text("\n".join("word " * (1 + i % 5) for i in range(30)))
    return str(tmp_path / "large"), str(tmp_path / "lean"), str(tmp_path / "texts.txt")


def test_the_table_names_both_and_says_what_the_figures_rest_on(two: tuple[str, str, str]) -> None:
    large, lean, texts = two
    arguments = [
        large,
        lean,
        "--input",
        texts,
        "--rounds",
        "6",
        "--openings",
        "1",
        "--budget",
        "1",
        "--usd-per-hour",
        "0.1",
    ]
    found = CliRunner().invoke(command, arguments, catch_exceptions=False, standalone_mode=False)
    words = " ".join(found.stdout.split())
    assert "large lean" in words
    assert "CPU time over the first target's" in words
    assert "Price per million tasks $" in words
    assert "Two copies of the first target, measured in the same run, differed by" in words
    assert "incumbent" not in words
    assert "Ratios are against large" in words


def test_json_holds_every_figure_and_null_for_what_was_not_measured(two: tuple[str, str, str]) -> None:
    large, _, texts = two
    arguments = [large, "--input", texts, "--rounds", "6", "--openings", "1", "--budget", "1", "--json"]
    found = CliRunner().invoke(command, arguments, catch_exceptions=False, standalone_mode=False)
    told = json.loads(found.stdout)
    cost = told["candidates"][0]["cost"]
    assert told["n_inputs"] == 30
    assert cost["cpu_s"]["low"] <= cost["cpu_s"]["value"] <= cost["cpu_s"]["high"]
    assert cost["usd_per_1000"] is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ([], r"must come from --input FILE or from --task task.toml, got neither"),
        (["--input", "nowhere.txt"], r"--input must be a readable UTF-8 text file, got nowhere.txt"),
        (["--task", "nowhere.toml"], r"nowhere.toml"),
        (["--openings", "2"], r"--openings must be 1, or 3 or more, got 2"),
    ],
)
def test_bad_arguments_say_the_way_out(two: tuple[str, str, str], change: list[str], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        CliRunner().invoke(command, [two[0], *change], catch_exceptions=False, standalone_mode=False)


def test_a_folder_that_is_no_candidate_is_refused(two: tuple[str, str, str], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    arguments = [str(tmp_path / "empty"), "--input", two[2]]
    with pytest.raises(InvalidInput, match=r"must be a candidate .* or a release .* give --task"):
        CliRunner().invoke(command, arguments, catch_exceptions=False, standalone_mode=False)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"input": 3}', r"must have a text `input` or `text`, got none at line 2"),
        ("[1]", r"must hold one JSON object a line: .* at line 2"),
    ],
)
def test_a_bad_line_is_named(two: tuple[str, str, str], tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "texts.jsonl").write_text(f'{{"text": "fine"}}\n{line}\n')
    arguments = [two[0], "--input", str(tmp_path / "texts.jsonl")]
    with pytest.raises(InvalidInput, match=message):
        CliRunner().invoke(command, arguments, catch_exceptions=False, standalone_mode=False)


def test_two_of_one_name_are_told_apart_by_their_folders() -> None:
    paths = [Path("a/first"), Path("a/second"), Path("a/third")]
    assert _distinct_names(["m", "m", "n"], paths) == ["m (first)", "m (second)", "n"]
    runs = [Path("/x/a/run/release"), Path("/x/b/run/release")]
    assert _distinct_names(["release", "release"], runs) == [
        "release (a/run/release)",
        "release (b/run/release)",
    ]
    same = _distinct_names(["m", "m"], [Path("/x/m"), Path("/x/m")])  # one path given twice
    assert same == ["m (/x/m)", "m (/x/m)"]


def test_with_a_task_costs_are_given_per_correct_answer_and_at_ones_own_rate(
    two: tuple[str, str, str], tmp_path: Path
) -> None:
    rows = [{"text": f"number {i} says {label}", "label": label} for i in range(30) for label in "ab"]
    for split in ("train", "dev", "test"):
        told = [json.dumps({**row, "text": f"{split} {row['text']}"}) + "\n" for row in rows]
        (tmp_path / f"{split}.jsonl").write_text("".join(told))
    data = "".join(f'{split} = "{split}.jsonl"\n' for split in ("train", "dev", "test"))
    (tmp_path / "task.toml").write_text(f'format = 1\nname = "letters"\n[data]\n{data}')
    settings = [
        "--openings",
        "1",
        "--rounds",
        "6",
        "--budget",
        "1",
        "--usd-per-hour",
        "0.36",
        "--rate",
        "0.5",
    ]
    arguments = [two[1], "--task", str(tmp_path / "task.toml"), *settings, "--json"]
    found = CliRunner().invoke(command, arguments, catch_exceptions=False)
    cost = json.loads(found.stdout)["candidates"][0]["cost"]
    # 0.36 $ an hour at one task in two seconds is 0.2 $ a thousand.
    assert cost["own_rate_usd_per_1000"] == pytest.approx(0.2)
    assert cost["n_machines_at_own_rate"] == 1
    assert cost["own_rate_energy_j"] > cost["energy_j"]
    share, cpu = cost["correct_share"], cost["per_correct"]["cpu_s"]
    assert 0 < share["low"] <= share["value"] <= 1
    assert cpu["value"] == pytest.approx(cost["cpu_s"]["value"] / share["value"])
    assert cpu["low"] < cpu["value"] < cpu["high"]
