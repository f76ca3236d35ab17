"""Request logs become tasks: every shape is read, prompts are recognised, answers are not the truth."""
# ruff: noqa: E501  (a case a line)

import json
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from jettison.cli.main import jettison
from jettison.errors import CannotWrite, InvalidInput
from jettison.task import read_task
from jettison.task.from_logs import task_from_logs
from jettison.task.log_calls import Call, read_calls
from jettison.task.log_files import input_id, read_logged
from jettison.task.log_shapes import Request
from jettison.task.log_templates import common_ends, templates_of

SYSTEM = "You label messages. Today is 2026-11-24."
PREFIX, SUFFIX = "Classify this customer's message into one intent:\n", "\nIntent:"
WORDS = ["parcel", "invoice", "refund", "router", "cable", "tariff", "login", "screen", "battery", "meter"]


def texts(n: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [f"{' '.join(rng.sample(WORDS, 4))} number {i}" for i in range(n)]


def chat(user: str, system: str | None = SYSTEM, **more: Any) -> dict[str, Any]:
    first = [] if system is None else [{"role": "system", "content": system}]
    return {"model": "big", "messages": [*first, {"role": "user", "content": user}], **more}


def said(answer: str, finish: str = "stop") -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", "content": answer}, "finish_reason": finish}]}


def write(path: Path, items: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return path


def pairs(n: int = 60, seed: int = 0) -> list[dict[str, Any]]:
    return [
        {"request": chat(f"{PREFIX}{text}{SUFFIX}"), "response": said("Billing." if i % 3 else "other")}
        for i, text in enumerate(texts(n, seed))
    ]


def attribute(key: str, value: Any) -> dict[str, Any]:
    return {"key": key, "value": {"stringValue": value if isinstance(value, str) else json.dumps(value)}}


def span(user: str, answer: str) -> dict[str, Any]:
    parts = [{"role": "user", "parts": [{"type": "text", "content": user}]}]
    return {
        "name": "chat big",
        "attributes": [
            attribute("gen_ai.request.model", "big"),
            attribute("gen_ai.system_instructions", [{"type": "text", "content": SYSTEM}]),
            attribute("gen_ai.input.messages", parts),
            attribute(
                "gen_ai.output.messages",
                [
                    {
                        "role": "assistant",
                        "parts": [{"type": "text", "content": answer}],
                        "finish_reason": "stop",
                    }
                ],
            ),
        ],
    }


SHAPES: dict[str, Any] = {
    "request and response": {"request": chat("hi"), "response": said("yes")},
    "with bodies": {"request": {"body": chat("hi")}, "response": {"status": 200, "body": said("yes")}},
    "bodies as text": {"request": json.dumps(chat("hi")), "response": json.dumps(said("yes"))},
    "flat": {**chat("hi"), "response": said("yes")},
    "input and output": {"input": chat("hi")["messages"], "output": "yes"},
    "fine-tuning": {"messages": [*chat("hi")["messages"], {"role": "assistant", "content": "yes"}]},
    "parts": {"request": chat([{"type": "text", "text": "hi"}]), "response": {"message": {"content": "yes"}}},  # type: ignore[arg-type]
    "developer": {"input": [{"role": "developer", "content": SYSTEM}, {"role": "user", "content": "hi"}], "output": "yes"},
    "responses": {
        "request": {"instructions": SYSTEM, "input": "hi"},
        "response": {"output": [{"type": "reasoning"}, {"type": "message", "content": [{"type": "output_text", "text": "yes"}]}]},
    },
    "trace": {"resourceSpans": [{"scopeSpans": [{"spans": [span("hi", "yes"), {"name": "GET /"}]}]}]},
    "trace in an event": {
        "resourceSpans": [{"scopeSpans": [{"spans": [{"name": "x", "attributes": [], "events": [span("hi", "yes")]}]}]}]
    },
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_holds_the_same_call(tmp_path: Path, shape: str) -> None:
    found = read_calls([write(tmp_path / "log.jsonl", [SHAPES[shape]])])
    assert found.n_bad == 0, found.bad
    (call,) = found.calls
    assert (call.request.system, call.request.turns, call.request.user) == (SYSTEM, (), "hi")
    assert dict(call.answers) == {"yes": 1}


def test_a_prompt_and_its_completion_have_no_system_message(tmp_path: Path) -> None:
    (call,) = read_calls([write(tmp_path / "log.jsonl", [{"prompt": "hi", "completion": "yes"}])]).calls
    assert (call.request.system, call.request.user) == ("", "hi")


def test_messages_of_a_span_may_be_structured_values(tmp_path: Path) -> None:
    def text(value: str) -> dict[str, Any]:
        return {"stringValue": value}

    def message(role: str, content: str) -> dict[str, Any]:
        part = {
            "kvlistValue": {
                "values": [
                    {"key": "type", "value": text("text")},
                    {"key": "content", "value": text(content)},
                ]
            }
        }
        values = [
            {"key": "role", "value": text(role)},
            {"key": "parts", "value": {"arrayValue": {"values": [part]}}},
        ]
        return {"arrayValue": {"values": [{"kvlistValue": {"values": values}}]}}

    attributes = [
        {"key": "gen_ai.input.messages", "value": message("user", "hi")},
        {"key": "gen_ai.output.messages", "value": message("assistant", "yes")},
        {"key": "gen_ai.request.max_tokens", "value": {"intValue": "12"}},
    ]
    log = {"resourceSpans": [{"scopeSpans": [{"spans": [{"attributes": attributes}]}]}]}
    (call,) = read_calls([write(tmp_path / "log.jsonl", [log])]).calls
    assert (call.request.user, call.request.max_tokens, dict(call.answers)) == ("hi", 12, {"yes": 1})


def test_batches_are_joined_whatever_the_order_of_their_files(tmp_path: Path) -> None:
    asked = [
        {"custom_id": f"r{i}", "method": "POST", "url": "/v1", "body": chat(f"q{i}")} for i in range(5)
    ]
    answered = [
        {
            "id": "x",
            "custom_id": f"r{i}",
            "response": {"status_code": 200, "body": said(f"a{i}")},
            "error": None,
        }
        for i in (3, 1, 0, 9)
    ]
    failed = {"custom_id": "r2", "response": {"status_code": 429, "body": {}}, "error": None}
    files = [write(tmp_path / "in.jsonl", asked), write(tmp_path / "out.jsonl", [*answered, failed])]
    for order in (files, files[::-1]):
        found = read_calls(order)
        assert {call.request.user: next(iter(call.answers)) for call in found.calls} == {
            "q0": "a0", "q1": "a1", "q3": "a3",
        }  # fmt: skip
        assert (found.n_unmatched, found.n_bad) == (3, 1)  # r2 and r4 lack an answer, r9 a request
        assert found.bad == ["out.jsonl:5: the request failed with status 429"]


def test_a_whole_document_is_read_and_so_is_a_list(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    path.write_text(json.dumps(pairs(3), indent=1))
    assert read_calls([path]).n_read == 3
    path.write_text(json.dumps(SHAPES["trace"], indent=2))
    assert read_calls([path]).n_read == 1


BAD: dict[str, tuple[Any, str]] = {
    "no JSON": ("{", r"log\.jsonl:2: no JSON"),
    "number": ("3", r"must be a JSON object, got int"),
    "unknown": ('{"a": 1}', r"must hold a request, got the keys \['a'\]"),
    "no response": (json.dumps({"request": chat("x")}), r"must hold a response"),
    "no messages": ('{"request": {"model": "x"}, "response": "y"}', r"must have messages"),
    "cut off": (json.dumps({"request": chat("x"), "response": said("y", "length")}), r"not finished \(length\)"),
    "tool": (json.dumps({"request": chat("x"), "response": said(None)}), r"no text \(a call of a tool\)"),  # type: ignore[arg-type]
    "image": (json.dumps({"request": chat([{"type": "image_url"}]), "response": "y"}), r"part of type 'image_url'"),  # type: ignore[arg-type]
    "role": ('{"messages": [{"role": "tool", "content": "x"}], "response": "y"}', r"of system, user or assistant, got 'tool'"),
    "no question": ('{"messages": [{"role": "system", "content": "x"}], "response": "y"}', r"end with a message of the user"),
    "failed": (json.dumps({"request": chat("x"), "response": {"error": {"code": 500}}}), r"the request failed"),
    "told why": (json.dumps({"request": chat("x"), "response": {"error": {"message": "busy"}}}), r"the request failed: busy$"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_line_is_passed_over_with_its_number_and_reason(tmp_path: Path, case: str) -> None:
    line, match = BAD[case]
    path = tmp_path / "log.jsonl"
    good = json.dumps(pairs(1)[0])
    path.write_text(f"{good}\n{line}\n\n{good}\n")
    found = read_calls([path])
    assert (found.n_read, found.n_bad) == (2, 1)
    assert re.search(match, found.bad[0])
    assert found.bad[0].startswith("log.jsonl:2: ")


def test_too_many_bad_lines_and_logs_without_calls_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    good = json.dumps(pairs(1)[0])
    path.write_text(f"{good}\n" * 50 + "nonsense\n" * 21)
    with pytest.raises(
        InvalidInput, match=r"at most 10% of the lines .* got 21 of 71: log\.jsonl:51: no JSON"
    ):
        read_calls([path])
    path.write_text("{}\n")
    with pytest.raises(InvalidInput, match=r"must hold requests with their answers, got none in 1 lines"):
        read_calls([path])
    with pytest.raises(InvalidInput, match=r"a log must be a file, got .*none\.jsonl"):
        read_calls([tmp_path / "none.jsonl"])


def test_of_too_many_requests_a_part_is_kept_with_whole_counts(tmp_path: Path) -> None:
    path = write(tmp_path / "log.jsonl", pairs(300) * 2)
    found = read_calls([path], max_calls=100)
    assert len(found.calls) <= 100
    assert {call.n for call in found.calls} == {2}
    assert found.kept_share in (0.5, 0.25, 0.125)
    assert found.n_read < 600 or found.n_read == 600


# Templates


def calls_of(users: Sequence[str], system: str = SYSTEM) -> list[Call]:
    return [
        Call(request=Request(system=system, turns=(), user=user), place=f"x:{i}", n=1)
        for i, user in enumerate(users)
    ]


part = st.text(st.sampled_from("ab {}\n:é1"), max_size=12)


@settings(max_examples=150)
@given(part, part, st.lists(part, min_size=1, max_size=30))
def test_template_and_input_together_are_always_the_message(
    prefix: str, suffix: str, inputs: list[str]
) -> None:
    users = [f"{prefix}{text}{suffix}" for text in inputs]
    found = templates_of(calls_of(users))
    assert sum(len(one.calls) for one in found) == len(users)
    for template in found:
        for call in template.calls:
            inner = template.input_of(call.request.user)
            assert f"{template.prefix}{inner}{template.suffix}" == call.request.user


@settings(max_examples=100)
@given(
    st.text(st.sampled_from("abc \n"), max_size=30),
    st.text(st.sampled_from("abc \n"), max_size=30),
    st.sets(st.from_regex(r"[x-z]{1,9}", fullmatch=True), min_size=5, max_size=20),
)
def test_what_was_put_around_the_inputs_is_found(prefix: str, suffix: str, inputs: set[str]) -> None:
    # "|" sets the inputs off, so that no token runs over the border; inputs of one word differ wholly.
    texts = [f"{prefix}|{text}|{suffix}" for text in sorted(inputs)]
    assert common_ends(texts) == (f"{prefix}|", f"|{suffix}")


def test_prompts_are_told_apart_by_system_message_by_many_words_and_by_few() -> None:
    one = [f"Translate the following text into plain German: {text}" for text in texts(40, 1)]
    two = [f"Summarise what the customer wants in ten words: {text}" for text in texts(30, 2)]
    three = [f"{text}" for text in texts(20, 3)]
    found = templates_of(
        [
            *calls_of([*one, *two], ""),
            *calls_of(three, "Answer 7 times."),
            *calls_of(three[:9], "Answer 9 times."),
        ]
    )
    assert [(t.prefix, t.n_calls) for t in found] == [
        ("Translate the following text into plain German: ", 40),
        ("Summarise what the customer wants in ten words: ", 30),
        ("", 29),
    ]
    assert found[2].n_systems == 2
    short = templates_of(
        calls_of([*(f"Fix: {t}" for t in texts(30, 4)), *(f"Cut it: {t}" for t in texts(30, 5))], "")
    )
    assert sorted(t.prefix for t in short) == [""]  # one or two words are no proof of two templates
    ends = templates_of(calls_of([f"{t}\nSay it again in French, without slang" for t in texts(30, 6)], ""))
    assert [t.suffix for t in ends] == ["\nSay it again in French, without slang"]


def test_free_questions_that_often_begin_alike_are_one_prompt() -> None:
    rng = random.Random(0)
    starts = ["How do I", "I want to", "Can you", "Why is", "Please", "My", "Where can I", "Is there"]
    users = [f"{rng.choice(starts)} {text}?" for text in texts(200, 7)]
    found = templates_of(calls_of(users))
    assert [(one.prefix, one.n_calls) for one in found] == [("", 200)]


# The task


def test_answers_of_a_closed_set_make_a_classifier_without_any_truth(tmp_path: Path) -> None:
    log = write(tmp_path / "log.jsonl", [*pairs(60), *pairs(10)])
    report = task_from_logs([log], tmp_path / "out")
    assert (report.kind, report.labels, report.n_outside) == ("classify", ("Billing", "other"), 0)
    assert (report.n_calls, report.n_examples, report.n_duplicates) == (70, 60, 10)
    task = read_task(tmp_path / "out" / "task.toml")
    assert task.labels == ("Billing", "other")
    assert (task.n_test, len(task.train), len(task.unlabelled)) == (0, 0, 48)
    assert {example.expected for example in task.unlabelled} == {None}
    prompt = task.development.prompt
    assert prompt is not None
    assert (prompt.system, prompt.template) == (SYSTEM, f"{PREFIX}{{input}}{SUFFIX}")
    rendered = {prompt.messages(example.input)[-1].content for example in task.unlabelled}
    assert rendered <= {item["request"]["messages"][1]["content"] for item in pairs(60)}
    outputs = [
        json.loads(line) for line in (tmp_path / "out" / "incumbent_outputs.jsonl").read_text().splitlines()
    ]
    assert len(outputs) == 60
    assert {row["output"] for row in outputs} == {"Billing", "other"}
    assert {row["prompt"] for row in outputs} == {prompt.digest}
    known = read_logged(tmp_path / "out" / "incumbent_outputs.jsonl")
    assert {known.answers[input_id(example.input)] for example in task.unlabelled} == {"Billing.", "other"}
    weights = {example.id: example.weight for example in task.unlabelled}
    assert all(row["n"] == weights.get(row["id"], row["n"]) for row in outputs)
    assert sum(row["n"] for row in outputs) == 70


def test_inputs_to_label_are_kept_apart_and_make_a_test_once_somebody_has_answered(tmp_path: Path) -> None:
    out = tmp_path / "out"
    task_from_logs([write(tmp_path / "log.jsonl", pairs(60))], out)
    to_label = [json.loads(line) for line in (out / "to_label.jsonl").read_text().splitlines()]
    assert len(to_label) == 12
    assert not {row["id"] for row in to_label} & {e.id for e in read_task(out / "task.toml").unlabelled}
    write(
        out / "to_label.jsonl",
        [{**row, "expected": ("other", "Billing")[i % 2]} for i, row in enumerate(to_label)],
    )
    before = (out / "task.toml").read_text()
    text = before.replace("\n[data]\n", '\n[data]\ntest = "to_label.jsonl"\n')
    (out / "task.toml").write_text(text)
    assert read_task(out / "task.toml").n_test == 12
    # What the file itself advises gives a run the dev split that it needs.
    advised = [line.removeprefix("#").strip() for line in before.splitlines() if line.startswith("#     ")]
    assert advised[0] == 'train = "to_label.jsonl"'
    text = before.replace("\n[data]\n", f"\n[data]\n{advised[0]}\n") + "\n" + "\n".join(advised[1:])
    (out / "task.toml").write_text(text)
    task = read_task(out / "task.toml")
    assert (len(task.train), len(task.dev), task.n_test) == (2, 4, 6)


def test_answers_are_the_truth_only_when_its_owner_says_so(tmp_path: Path) -> None:
    items = [
        *pairs(100),
        {"request": chat(f"{PREFIX}strange{SUFFIX}"), "response": said("I cannot say, sorry")},
    ]
    report = task_from_logs([write(tmp_path / "log.jsonl", items)], tmp_path / "out", trust_answers=True)
    task = read_task(tmp_path / "out" / "task.toml")
    assert (task.n_test, len(task.train) + len(task.dev) + task.n_test, len(task.unlabelled)) == (
        20,
        100,
        1,
    )
    assert {example.expected for example in task.train} == {"Billing", "other"}
    assert report.n_outside == 1


def test_objects_make_an_extraction_and_free_text_a_generation(tmp_path: Path) -> None:
    items = [
        {"request": chat(text), "response": said(f'```json\n{{"n": {i}, "what": "{text[:6]}"}}\n```')}
        for i, text in enumerate(texts(30))
    ]
    report = task_from_logs([write(tmp_path / "a.jsonl", items)], tmp_path / "a", trust_answers=True)
    assert report.kind == "extract"
    assert json.loads(read_task(tmp_path / "a" / "task.toml").train[0].expected or "").keys() == {
        "n",
        "what",
    }
    items = [{"request": chat(text), "response": said(f"It is {text}.")} for text in texts(30)]
    report = task_from_logs([write(tmp_path / "b.jsonl", items)], tmp_path / "b", trust_answers=True)
    assert report.kind == "generate"
    assert read_task(tmp_path / "b" / "task.toml").n_test == 6


def test_worked_examples_in_the_turns_become_shots(tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": f"{PREFIX}where is it{SUFFIX}"},
        {"role": "assistant", "content": "other"},
    ]
    items = pairs(60)
    for item in items:
        item["request"]["messages"][1:1] = turns
    task_from_logs([write(tmp_path / "log.jsonl", items)], tmp_path / "out", trust_answers=True)
    prompt = read_task(tmp_path / "out" / "task.toml").development.prompt
    assert prompt is not None
    assert [(shot.input, shot.answer) for shot in prompt.shots] == [("where is it", "other")]
    sent = prompt.messages("x")
    assert [(m.role, m.content) for m in sent[1:3]] == [(t["role"], t["content"]) for t in turns]


def test_personal_data_is_masked_before_anything_is_written_and_counted(tmp_path: Path) -> None:
    items = [
        {
            "request": chat(f"mail user{i}@firm.example the {WORDS[i % 3]} bill"),
            "response": said(f"Sent to user{i}@firm.example"),
        }
        for i in range(12)
    ]
    log = write(tmp_path / "log.jsonl", items)
    report = task_from_logs([log], tmp_path / "out")
    # Masked, the twelve requests are three.
    assert (report.n_examples, report.n_duplicates, report.pii) == (3, 9, {"email": 24})
    written = "".join(path.read_text() for path in (tmp_path / "out").iterdir())
    assert "firm.example" not in written
    assert "Sent to [EMAIL_1]" in written
    report = task_from_logs([log], tmp_path / "kept", keep_pii=True)
    assert (report.n_examples, report.masked) == (12, False)
    assert "user3@firm.example" in (tmp_path / "kept" / "incumbent_outputs.jsonl").read_text()


def test_answers_that_differ_from_time_to_time_and_near_duplicates_are_counted(tmp_path: Path) -> None:
    items = pairs(60)
    again = [{**items[0], "response": said("other")}, {**items[1], "response": said("billing")}]
    report = task_from_logs([write(tmp_path / "log.jsonl", [*items, items[0], *again])], tmp_path / "out")
    assert report.n_inconsistent == 0  # "other" twice; "Billing." and "billing" say the same
    again = [{**items[1], "response": said("other")}]
    report = task_from_logs([write(tmp_path / "log.jsonl", [*items, *again])], tmp_path / "out", force=True)
    assert report.n_inconsistent == 1
    assert report.n_near_duplicates >= 0


def test_braces_of_the_prompt_itself_do_not_become_places(tmp_path: Path) -> None:
    items = [
        {
            "request": chat(f"Fill in {{input}} or {{inputs}} here please: {text}"),
            "response": said(f"so {text}"),
        }
        for text in texts(20)
    ]
    report = task_from_logs([write(tmp_path / "log.jsonl", items)], tmp_path / "out")
    prompt = read_task(tmp_path / "out" / "task.toml").development.prompt
    assert prompt is not None
    assert prompt.template == "{input}"
    assert any("braces" in note for note in report.notes)


def test_files_that_are_there_stay_and_another_template_can_be_taken(tmp_path: Path) -> None:
    other = [{"request": chat(t, "Be a poet."), "response": said(f"o {t}")} for t in texts(10, 3)]
    log = write(tmp_path / "log.jsonl", [*pairs(30), *other])
    assert task_from_logs([log], tmp_path / "out").n_templates == 2
    with pytest.raises(CannotWrite, match=r"task\.toml is there already and stays as it is"):
        task_from_logs([log], tmp_path / "out", template=2)
    report = task_from_logs([log], tmp_path / "out", template=2, force=True)
    assert (report.n_examples, report.templates[1].system) == (10, "Be a poet.")
    with pytest.raises(InvalidInput, match=r"the template must be from 1 to 2, got 3"):
        task_from_logs([log], tmp_path / "out", template=3, force=True)


def test_the_command_takes_several_logs_and_says_what_it_found(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a.jsonl", pairs(30)), write(tmp_path / "b.jsonl", [*pairs(30, 5), "x"])
    done = CliRunner().invoke(
        jettison, ["init", "--logs", str(a), str(b), "--output", str(tmp_path / "out")]
    )
    assert done.exit_code == 0, done.output
    for words in (
        "60 in 61 lines; 1 lines passed over",
        "classify, 2 labels",
        "b.jsonl:31",
        "names are not looked for",
    ):
        assert words in done.output
    done = CliRunner().invoke(
        jettison, ["init", "--logs", str(a), "--output", str(tmp_path / "j"), "--json"]
    )
    assert json.loads(done.output)["kind"] == "classify"
    for arguments, words in (
        (["init", "--logs"], "needs one log or more"),
        (["init", "model"], "Missing argument 'DATA'"),
        (["init", "model", "data", "more"], "unexpected extra argument (more)"),
        (["init", "model", "data", "--trust-answers"], "go with --logs"),
    ):
        done = CliRunner().invoke(jettison, arguments)
        assert done.exit_code != 0
        assert words in done.output
