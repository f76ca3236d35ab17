import json
import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from click.testing import CliRunner

from jettison import registry
from jettison.backends.fake import FakeClassifier
from jettison.cli.predict import command as predict
from jettison.cli.verify import command as verify
from jettison.errors import BrokenArtifact, CannotWrite, InvalidInput
from releasing import EXAMPLES, make_release


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return make_release(tmp_path_factory.mktemp("made")).path


def run(*arguments, command=predict, stdin=None):  # type: ignore[no-untyped-def]
    done = CliRunner().invoke(command, [str(a) for a in arguments], input=stdin, standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done


def lines(text):  # type: ignore[no-untyped-def]
    return [json.loads(line) for line in text.splitlines()]


def test_texts_as_arguments_get_one_json_line_each(release):
    done = run(release, "a pear", "an apple")
    first, second = lines(done.stdout)
    assert (first["text"], first["label"], second["label"]) == ("a pear", "pear", "apple")
    said = {"text", "label", "confidence", "in_scope", "flagged", "abstained", "arm", "escalated", "error"}
    assert set(first) == said
    assert first["error"] is None
    assert 0 < first["confidence"] <= 1
    assert done.return_value == 0


def test_the_name_of_a_file_is_not_taken_for_a_text(release, tmp_path):
    path = tmp_path / "a pear.csv"
    path.write_text("text\na pear\n")
    with pytest.raises(InvalidInput, match=r"which is a file\. Answer what is in it by `--input '"):
        run(release, path)
    (first,) = lines(run(release, f"{path}, please").stdout)
    assert first["text"].endswith("please")


def test_json_lines_keep_their_other_fields(release, tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text('{"id": 7, "q": "pear", "label": "gold", "deep": {"a": [1]}}\n\n{"q": "apple"}\n')
    first, second = lines(run(release, "--input", path, "--column", "q").stdout)
    assert (first["id"], first["deep"], first["q"]) == (7, {"a": [1]}, "pear")
    assert (first["input_label"], first["label"]) == ("gold", "pear")
    assert second["label"] == "apple"


def test_plain_lines_are_texts(release, tmp_path):
    path = tmp_path / "in.txt"
    path.write_text("a pear\r\n\nan apple", encoding="utf-8")
    found = lines(run(release, "--input", path).stdout)
    assert [row["text"] for row in found] == ["a pear", "", "an apple"]


@pytest.mark.parametrize("arguments", [(), ("--input", "-")])
def test_stdin_is_read(release, arguments):
    assert [r["label"] for r in lines(run(release, *arguments, stdin="pear\napple\n").stdout)] == [
        "pear",
        "apple",
    ]


def test_json_lines_on_stdin_are_known_by_the_first(release):
    (found,) = lines(run(release, stdin='{"text": "pear", "n": 1}\n').stdout)
    assert (found["text"], found["n"]) == ("pear", 1)


def test_a_plain_text_that_begins_with_a_brace_is_a_text(release):
    (found,) = lines(run(release, stdin="{smile} a pear\n").stdout)
    assert found["text"] == "{smile} a pear"


@pytest.mark.parametrize(
    "first", ['{"text": "a pear", "n": 01}', '{"text": "a pear"', ' { "text": NaN}', "{}"]
)
def test_a_broken_first_object_does_not_make_texts_of_the_rest(release, first):
    with pytest.raises(InvalidInput, match=r"every line of stdin must .* at line 1\."):
        run(release, stdin=f'{first}\n{{"text": "pear"}}\n')


def test_a_json_file_is_a_list_or_an_object_a_line(release, tmp_path):
    path = tmp_path / "in.json"
    for content in ('\n[{"text": "pear",\n"id": 1}, {"text": "apple"}]', '{"text": "pear", "id": 1}\n'):
        path.write_text(content)
        first = lines(run(release, "--input", path).stdout)[0]
        assert (first["text"], first["label"], first["id"]) == ("pear", "pear", 1)
    path.write_text('["pear"]')
    with pytest.raises(InvalidInput, match=r"in\.json must be a JSON list of objects"):
        run(release, "--input", path)
    path.write_text("{\n")
    with pytest.raises(InvalidInput, match=r"every line of .*in\.json must be a JSON object"):
        run(release, "--input", path)


def test_nothing_in_gives_nothing_out(release):
    assert run(release, stdin="").stdout == ""


def test_answers_go_to_a_file_whole(release, tmp_path):
    out = tmp_path / "deep" / "out.jsonl"
    assert run(release, "pear", "--output", out).stdout == ""
    assert lines(out.read_text())[0]["label"] == "pear"
    assert [p.name for p in out.parent.iterdir()] == ["out.jsonl"]


def test_a_bad_line_leaves_no_half_of_an_output(release, tmp_path):
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"text": "pear"}\n{"text": \n')
    with pytest.raises(InvalidInput, match=r"every line of .* must be a JSON object: .* at line 2\."):
        run(release, "--input", source, "--output", out, "--batch-size", 1)
    assert [p.name for p in tmp_path.iterdir()] == ["in.jsonl"]


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("folder", "a folder stands where the file is to go"),
        ("file/answers", "a file stands where a folder is needed"),
        ("x" * 300, "the name is too long"),
    ],
)
def test_an_output_that_cannot_be_written_says_why(release, tmp_path, place, reason):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CannotWrite, match=reason):
        run(release, "pear", "--output", tmp_path / place)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "folder"]


def test_batches_do_not_change_the_answers(release):
    stdin = "".join(f"{e.input}\n" for e in EXAMPLES)
    assert run(release, "--batch-size", 7, stdin=stdin).stdout == run(release, stdin=stdin).stdout


def test_a_missing_column_names_the_way_out(release):
    with pytest.raises(InvalidInput, match=r"a text under 'text', got fields \['q'\] at line 1\. Name"):
        run(release, stdin='{"q": "pear"}\n')


def test_a_text_that_is_no_utf8_is_placed(release):
    with pytest.raises(InvalidInput, match=r"every line of stdin must be UTF-8 text: .* at line 2\."):
        run(release, stdin=b"pear\n\xff\xfe\n")


def test_a_missing_input_file_is_named(release):
    with pytest.raises(InvalidInput, match=r"--input must be a readable file, got .*absent: No such file"):
        run(release, "--input", "absent")


def test_texts_twice_are_refused(release):
    with pytest.raises(InvalidInput, match="texts must come as arguments or by --input, got both"):
        run(release, "pear", "--input", "x")


def test_an_input_that_fails_says_so_and_the_rest_is_answered(tmp_path, monkeypatch):
    class Clumsy(FakeClassifier):
        def predict(self, inputs):  # type: ignore[no-untyped-def]
            if "poison" in inputs:
                raise RuntimeError("gave up")
            return super().predict(inputs)

    monkeypatch.setitem(registry._added, ("backends", "fake"), Clumsy)
    made = make_release(tmp_path)
    done = run(made.path, "pear", "poison")
    assert done.return_value == 1
    good, bad = lines(done.stdout)
    assert (good["label"], good["error"]) == ("pear", None)
    assert (bad["label"], bad["confidence"], bad["error"]) == (None, None, "RuntimeError: gave up")
    assert "1 of 2 texts could not be answered" in done.stderr


def test_a_damaged_release_answers_nothing(tmp_path):
    made = make_release(tmp_path)
    (made.path / "candidates/0/weights.safetensors").unlink()
    with pytest.raises(BrokenArtifact, match="must be there, got nothing"):
        run(made.path, "pear")


def test_verify_says_what_a_release_is(release):
    done = run(release, command=verify)
    assert "is whole" in done.stdout
    assert "licence  Apache-2.0" in done.stdout
    told = json.loads(run(release, "--json", command=verify).stdout)
    assert told["task"] == "fruit"
    assert told["differs_here"] == {}
    assert len(told["digest"]) == 64


def test_verify_holds_a_release_past_its_date(tmp_path):
    made = make_release(tmp_path, proven_until="2020-01-31")
    done = run(made.path, command=verify)
    assert done.return_value == 1
    assert "the proof is past 2020-01-31" in done.stdout


def test_verify_refuses_a_damaged_release(tmp_path):
    made = make_release(tmp_path)
    (made.path / "stray").write_text("x")
    with pytest.raises(BrokenArtifact, match="must hold only its own files, got stray too"):
        run(made.path, command=verify)


BLOCKED = ("torch", "transformers", "scipy", "pyarrow", "rich", "onnx", "openvino", "jinja2")
FRESH = """
import sys, time
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked}:
            raise ImportError(f"{{name}} is blocked")
sys.meta_path.insert(0, Block())
began = time.process_time()
from jettison.cli.main import main
try:
    main(["predict", {release!r}, "a pear"])
except SystemExit as end:
    assert end.code == 0, end.code
print(time.process_time() - began, file=sys.stderr)
assert not set({blocked}) & set(sys.modules), set({blocked}) & set(sys.modules)
"""


def answer_afresh(release):  # type: ignore[no-untyped-def]
    """CPU seconds that a fresh process takes to import, open the release and answer one text."""
    script = FRESH.format(blocked=set(BLOCKED), release=str(release))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert lines(done.stdout)[0]["label"] is not None
    return float(done.stderr.split()[-1])


def test_a_fresh_process_answers_within_a_second_without_any_heavy_library(release):
    assert answer_afresh(release) < 1.0


def test_a_reader_that_goes_away_is_no_error(release):
    texts = "pear\n" * 50_000
    code = "from jettison.cli.main import main; main()"
    done = subprocess.run(
        f"{sys.executable} -c '{code}' predict {release} --batch-size 64 | head -n 1",
        shell=True, input=texts, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert lines(done.stdout)[0]["label"] == "pear"
    assert done.stderr == ""


def test_a_linear_release_answers_afresh_within_a_second():
    assert answer_afresh(Path(__file__).parents[1] / "golden" / "release-1") < 1.0


def test_tables_are_read_by_their_columns_and_not_line_by_line(release, tmp_path):
    path = tmp_path / "in.csv"
    path.write_text('id,q\n7,"a pear, ripe"\n8,apple\n', encoding="utf-8")
    first, second = lines(run(release, "--input", path, "--column", "q").stdout)
    assert (first["id"], first["q"], first["label"], second["label"]) == (
        "7",
        "a pear, ripe",
        "pear",
        "apple",
    )
    table = pyarrow.table({"text": ["pear", None]})
    pyarrow.parquet.write_table(table, tmp_path / "in.parquet")
    with pytest.raises(InvalidInput, match=r"must have a text under 'text', got None at in\.parquet row 1"):
        run(release, "--input", tmp_path / "in.parquet")
    with pytest.raises(
        InvalidInput, match=r"--column must be one of the columns of .*\['id', 'q'\], got 'text'"
    ):
        run(release, "--input", path)


def test_a_byte_order_mark_is_no_part_of_the_first_text(release, tmp_path):
    path = tmp_path / "in.txt"
    path.write_bytes(b"\xef\xbb\xbfa pear\nan apple\n")
    assert [row["text"] for row in lines(run(release, "--input", path).stdout)] == ["a pear", "an apple"]
    path.write_bytes(b'\xef\xbb\xbf{"text": "a pear", "id": 1}\n')
    (only,) = lines(run(release, "--input", path).stdout)
    assert (only["text"], only["id"]) == ("a pear", 1)


def test_the_folder_of_a_run_is_no_release_but_leads_to_it(release, tmp_path):
    (tmp_path / "release").symlink_to(release)
    with pytest.raises(
        InvalidInput, match=r"without release\.json\. The release of this run is .*release\."
    ):
        run(tmp_path, "a pear")
