"""An output cut anywhere comes to what it comes to as a whole, and little of it is held back."""

import random
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guarding import PASSWORDS
from jettison.serve.guardrails import Chain, GuardSettings, StreamGuard, Verdict, Where, open_guardrail
from jettison.serve.guardrails.opened import Opened
from jettison.task import pii

PIECES = (
    "ada@example.com", "b.c+d@mail.example.org", "DE89 3704 0044 0532 0130 00",
    "GB82 WEST 1234 5698 7654 32", "4111 1111 1111 1111",
    "4111-1111-1111-1111", "+49 (0)30 1234567", "(555) 123-4567", "030 1234567", "1234 5678 9012",
    "192.168.7.12", "fe80::1ff:fe23:4567:890a", "abcd:abcd:abcd:abcd:abcd:abcd:abcd:abcd", "12", "3.14",
    "2024.", "IBAN", "AB12", "Call", "me", "é", "ß.", "x", "A", "_", "电话", "。", "-", "/", "(", ")", "@",
    ".", ":", "+", "\0", "[EMAIL]", "-----BEGIN RSA ", "-----BEGIN CERTIFICATE-----", "PRIVATE KEY-----",
    "-----END RSA PRIVATE KEY-----", "-----BEGIN", "password", "api_key", "Authorization", "Bearer",
    "bearer", "BASIC", "=", "=>", ":=", "\"", "'", "token", "sk-", "Tr0ub4dor&3",
    "xY9zK2mQ7xT4vB8nW3zL6pY1c", "https://u:pa55word@h/x", "eyJabcdefghij.",
    *PASSWORDS.values(),
)  # fmt: skip
GAPS = ("", " ", " ", " ", "  ", "\n", "\t", "\r\n", ", ", ". ", ": ", "\u00a0", "\u2028")
TEXTS = st.lists(st.tuples(st.sampled_from(PIECES), st.sampled_from(GAPS)), max_size=12).map(
    lambda pairs: "".join(word + gap for word, gap in pairs)
)


def streamed(guards: list[Opened], text: str, cuts: list[int], **options: int) -> tuple[str, StreamGuard]:
    stream = StreamGuard(guards, **options)
    edges = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    sent = "".join(stream.feed(text[a:b]) for a, b in pairwise(edges))
    return sent + stream.finish(), stream


@settings(max_examples=400, deadline=None)
@given(text=TEXTS, cuts=st.lists(st.integers(0, 600), max_size=40), every=st.booleans())
@pytest.mark.parametrize("name", ["pii", "secrets"])
def test_any_cut_of_an_output_is_redacted_as_the_whole(name, text, cuts, every):
    guard = open_guardrail(name, {"action": "redact"})
    cuts = list(range(len(text))) if every else cuts
    whole = Chain([guard]).check(text, where="output")
    sent, stream = streamed([guard], text, cuts)
    assert sent == whole.text
    assert stream.action == whole.action


@settings(max_examples=150, deadline=None)
@given(text=TEXTS, cuts=st.lists(st.integers(0, 600), max_size=40))
def test_two_guardrails_in_a_row_redact_as_the_chain_does(text, cuts):
    guards = [open_guardrail(name, {"action": "redact"}) for name in ("secrets", "pii")]
    sent, _ = streamed(guards, text, cuts)
    assert sent == Chain(guards).check(text, where="output").text


@settings(max_examples=150, deadline=None)
@given(text=TEXTS, cuts=st.lists(st.integers(0, 600), max_size=40))
@pytest.mark.parametrize("action", ["block", "escalate"])
def test_nothing_of_a_find_goes_through(action, text, cuts):
    guard = open_guardrail("pii", {"action": action})
    sent, stream = streamed([guard], text, cuts)
    found = pii.find(text)
    assert stream.action == (action if found else "pass")
    assert text.startswith(sent)
    assert len(sent) <= found[0].start if found else sent == text
    assert stream.feed("more") == "" or not found


@settings(max_examples=100, deadline=None)
@given(
    text=st.text(max_size=80), cuts=st.lists(st.integers(0, 99), max_size=20), most=st.integers(1, 60),
    action=st.sampled_from(["redact", "block", "flag"]),
)  # fmt: skip
def test_length_holds_nothing_back(text, cuts, most, action):
    guard = open_guardrail("length", {"action": action, "most_characters": most})
    whole = guard.check(text, where="output")
    sent, stream = streamed([guard], text, cuts)
    assert stream.action == whole.action
    if action == "redact":
        assert sent == text[:most]
    elif action == "flag":
        assert sent == text
    else:
        assert text.startswith(sent)
        assert len(sent) <= most


def test_words_before_the_last_two_have_been_sent():
    stream = StreamGuard([open_guardrail("secrets"), open_guardrail("pii", {"action": "redact"})])
    text, sent = "we will look into it and call you back tomorrow, and then on every day of the week", ""
    for n, letter in enumerate(text, 1):
        sent += stream.feed(letter)
        assert len(text[len(sent) : n].split()) <= 2


def test_a_guardrail_without_cut_holds_the_whole_output_back():
    stream = StreamGuard([open_guardrail("json_schema", {"action": "block"})])
    assert stream.feed('{"a": ') + stream.feed("1}") == ""
    assert stream.finish() == '{"a": 1}'


def test_a_guardrail_that_flags_lets_the_output_by_and_speaks_at_its_end():
    stream = StreamGuard([open_guardrail("json_schema", {"action": "flag"})])
    assert stream.feed("no ") + stream.feed("JSON") == "no JSON"
    assert stream.action == "pass"
    assert stream.finish() == ""
    assert stream.action == "flag"


def test_a_guardrail_of_inputs_alone_does_not_touch_an_output():
    stream = StreamGuard([open_guardrail("pii", {"where": ["input"]})])
    assert stream.feed("ada@example.com ") == "ada@example.com "


@pytest.mark.parametrize(
    ("on_error", "action", "sent"), [("closed", "block", ""), ("open", "pass", "1" * 200)]
)
def test_an_output_that_gives_no_place_to_cut_is_a_failure(on_error, action, sent):
    guard = open_guardrail("pii", {"on_error": on_error})
    stream = StreamGuard([guard], most_held_chars=100)
    assert "".join(stream.feed("1") for _ in range(200)) + stream.finish() == sent
    assert stream.action == action
    assert stream.verdicts[0].reason == "could not check: no place to cut in 100 characters"


@pytest.mark.parametrize(
    ("on_error", "action", "sent"), [("closed", "block", ""), ("open", "pass", "[1, 2, 3]")]
)
def test_an_output_too_long_to_hold_is_a_failure(on_error, action, sent):
    stream = StreamGuard([open_guardrail("json_schema", {"on_error": on_error})], most_held_chars=4)
    assert "".join(stream.feed(letter) for letter in "[1, 2, 3]") + stream.finish() == sent
    assert stream.action == action


class Crashes:
    """A plugin whose cut or check raises."""

    Settings = GuardSettings

    def __init__(self, settings: GuardSettings) -> None:
        del settings

    def check(self, text: str, *, where: Where) -> Verdict:
        raise RuntimeError(text)

    def cut(self, text: str, start: int = 0) -> int:
        if "cut" in text:
            raise RuntimeError(text)
        return len(text)


@pytest.mark.parametrize("text", ["here", "cut here"])
@pytest.mark.parametrize(("on_error", "action"), [("closed", "block"), ("open", "pass")])
def test_a_crash_in_a_stream_fails_open_or_closed(text, on_error, action):
    settings = GuardSettings(on_error=on_error)
    stream = StreamGuard([Opened("crashes", Crashes(settings), settings)])
    sent = stream.feed(text) + stream.finish()
    assert (stream.action, sent) == (action, text if action == "pass" else "")
    assert stream.verdicts[0].reason == "could not check: RuntimeError"


def test_a_long_stream_in_tiny_pieces_takes_linear_time():
    """In CPU-seconds, against twice as long a text: quadratic work would take four times as long."""
    rng = random.Random(0)
    words = [
        rng.choice(["card", "when", "12", "DE89", "me@x.org", "the", "key:", "value"]) for _ in range(6000)
    ]

    def cpu_s(text: str) -> float:
        stream = StreamGuard([open_guardrail("pii", {"action": "redact"}), open_guardrail("secrets")])
        started = time.process_time()
        for start in range(0, len(text), 4):
            stream.feed(text[start : start + 4])
        stream.finish()
        return time.process_time() - started

    half, whole = " ".join(words[:3000]), " ".join(words)
    assert min(cpu_s(whole) for _ in range(3)) < 3 * min(cpu_s(half) for _ in range(3))
