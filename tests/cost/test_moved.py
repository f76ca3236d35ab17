"""Modelled bytes of a task, by hand."""

import json
import struct
from pathlib import Path

import msgspec
import pytest

from decide.report_example import example_decision
from jettison.candidate import Candidate, write_candidate
from jettison.cost.moved import Traffic, kv_bytes_per_token, moved_bytes
from jettison.decide.report_costs import cost_notes, cost_rows, cost_tables
from jettison.decide.report_latency import report_cost_notes
from jettison.decide.report_types import ReportContent
from jettison.decision import CostSummary


def tensors(path: Path, **sizes: int) -> None:
    """A safetensors file of tensors of so many bytes, all zero."""
    header, at = {}, 0
    for name, size in sizes.items():
        header[name.replace("_DOT_", ".")] = {
            "dtype": "U8",
            "shape": [size],
            "data_offsets": [at, at + size],
        }
        at += size
    told = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(told)) + told + bytes(at))


def made(folder: Path, backend: str, *, config: dict[str, int] | None = None, **sizes: int) -> Candidate:
    folder.mkdir()
    if sizes:
        tensors(folder / "model.safetensors", **sizes)
    if config:
        (folder / "config.json").write_text(json.dumps(config))
    return write_candidate(folder, name="m", backend=backend, labels=("a", "b"))


def test_a_reader_reads_its_weights_once_and_its_table_by_the_row(tmp_path: Path) -> None:
    reader = made(
        tmp_path / "m", "hf", bert_DOT_embeddings_DOT_word_embeddings_DOT_weight=500, layer_DOT_weight=70
    )
    found = moved_bytes(reader, Traffic())
    assert found is not None
    assert (found.weight_bytes, found.kv_bytes, found.factor) == (70.0, None, 2.0)


def test_a_format_whose_tables_are_not_told_is_counted_whole_and_may_be_wrong_by_more(
    tmp_path: Path,
) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m/model.onnx").write_bytes(bytes(900))
    exported = write_candidate(tmp_path / "m", name="m", backend="onnx", labels=("a", "b"))
    found = moved_bytes(exported, Traffic())
    assert found is not None
    assert (found.weight_bytes, found.factor) == (900.0, 3.0)
    assert "counted whole" in found.source


def test_a_writer_passes_once_for_the_prompt_and_once_for_each_token_after_the_first(
    tmp_path: Path,
) -> None:
    """Two layers, one head of keys and values of 8: 2 x 2 x 1 x 8 x 2 bytes = 64 a token.

    4 tokens after a prompt of 10: 3 later passes read 10 + 11 + 12 - and their own - entries:
    3 x 10 + (1 + 2 + 3) = 36; written 10 + 3 = 13; 49 x 64 = 3,136 bytes. Weights 4 x (70 + 30).
    """
    config = {
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "hidden_size": 32,
    }
    writer = made(
        tmp_path / "m",
        "hf_causal",
        config=config,
        model_DOT_embed_tokens_DOT_weight=500,
        layer_DOT_weight=70,
        lm_head_DOT_weight=30,
    )
    assert kv_bytes_per_token(writer) == 64
    found = moved_bytes(writer, Traffic(prompt_tokens=10, completion_tokens=4))
    assert found is not None
    assert (found.weight_bytes, found.kv_bytes) == (400.0, 3136.0)
    assert moved_bytes(writer, Traffic(prompt_tokens=10)) is None  # nobody counted what it wrote
    tied = made(tmp_path / "t", "hf_causal", model_DOT_embed_tokens_DOT_weight=500, layer_DOT_weight=70)
    found = moved_bytes(tied, Traffic(prompt_tokens=10, completion_tokens=1))
    assert found is not None
    assert (found.weight_bytes, found.kv_bytes) == (570.0, None)


def test_a_cascade_moves_its_fallback_as_often_as_that_is_asked(tmp_path: Path) -> None:
    made(tmp_path / "lean", "linear")
    made(tmp_path / "big", "hf", layer_DOT_weight=1000)
    route = {"type": "cascade", "lean": {"candidate": "lean"}, "fallback": {"candidate": "big"}}
    whole = write_candidate(
        tmp_path, name="c", backend="cascade", labels=("a", "b"), settings={"route": route}
    )
    found = moved_bytes(whole, Traffic(escalated_share=0.25))
    assert found is not None
    assert found.weight_bytes == pytest.approx(250.0)
    assert found.source.startswith(
        "linear for every input (rows of a table: left out), hf for 25 % of those measured (every weight"
    )
    assert moved_bytes(whole, Traffic()) is None


def test_a_cascade_within_a_cascade_is_told_in_a_row_each_model_as_often_as_it_was_asked(
    tmp_path: Path,
) -> None:
    """100 of 400 inputs passed on once, 40 of them twice: the big model's 1,000 bytes are read by 10 %."""
    (tmp_path / "rest").mkdir()
    for folder in (tmp_path, tmp_path / "rest"):
        made(folder / "lean", "linear" if folder == tmp_path else "static")
    made(tmp_path / "rest/big", "hf", layer_DOT_weight=1000)
    for folder, behind in ((tmp_path / "rest", "big"), (tmp_path, "rest")):
        route = {"type": "cascade", "lean": {"candidate": "lean"}, "fallback": {"candidate": behind}}
        whole = write_candidate(
            folder, name="c", backend="cascade", labels=("a", "b"), settings={"route": route}
        )
    found = moved_bytes(whole, Traffic(escalated_share=0.25, escalated_twice_share=0.1))
    assert found is not None
    assert found.weight_bytes == pytest.approx(100.0)
    assert found.source.startswith(
        "linear for every input (rows of a table: left out), static for 25 % of those measured "
        "(rows of a table: left out), hf for 10 % of those measured (every weight"
    )
    bound = moved_bytes(whole, Traffic(escalated_share=0.25))
    assert bound is not None
    assert bound.weight_bytes == pytest.approx(250.0)
    assert "hf for at most 25 % of those measured" in bound.source


def test_rows_of_a_table_and_broken_files_are_not_modelled_or_counted_whole(tmp_path: Path) -> None:
    assert moved_bytes(made(tmp_path / "s", "static", table=10), Traffic()) is None
    (tmp_path / "b").mkdir()
    (tmp_path / "b/model.safetensors").write_bytes(b"\xff" * 40)
    broken = write_candidate(tmp_path / "b", name="b", backend="hf", labels=("a", "b"))
    found = moved_bytes(broken, Traffic())
    assert found is not None
    assert (found.weight_bytes, found.factor) == (40.0, 3.0)


def test_modelled_bytes_stand_among_the_estimates_with_their_factor(tmp_path: Path) -> None:
    moved = moved_bytes(made(tmp_path / "m", "hf", layer_DOT_weight=7_000_000), Traffic())
    costs = [CostSummary(moved=moved, bytes=1), CostSummary(bytes=2)]
    tables = cost_tables(cost_rows(costs))
    (row,) = [row for row in tables.estimated if "moved" in row.name]
    assert row.figures == ["≈ 7 MB", "not measured"]
    assert not any("moved" in row.name for row in tables.measured)
    assert any(note.startswith("Bytes moved (modelled, ×/÷ 2)") for note in cost_notes(costs, ["m", "n"]))


def test_where_two_are_modelled_otherwise_each_note_says_whose_it_is(tmp_path: Path) -> None:
    told = moved_bytes(made(tmp_path / "m", "hf", layer_DOT_weight=70), Traffic())
    (tmp_path / "x").mkdir()
    (tmp_path / "x/model.onnx").write_bytes(bytes(900))
    whole = moved_bytes(
        write_candidate(tmp_path / "x", name="x", backend="onnx", labels=("a", "b")), Traffic()
    )
    decision = example_decision()
    moved = {decision.candidates[0].name: told, decision.candidates[1].name: whole}
    content = ReportContent(
        decision=msgspec.structs.replace(
            decision,
            candidates=tuple(
                msgspec.structs.replace(c, cost=msgspec.structs.replace(c.cost, moved=moved.get(c.name)))
                for c in decision.candidates
            ),
        )
    )
    notes = [note for note in report_cost_notes(content) if "bytes moved" in note]
    assert [note.split(":")[0] for note in notes] == list(moved)
