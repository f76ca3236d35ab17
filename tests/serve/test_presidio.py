"""Presidio as a guardrail. It is heavy, so it is tested where it is installed: extra `presidio`."""

import socket
import sys
import threading

import pytest

from jettison.errors import InvalidInput, MissingExtra
from jettison.serve.guardrails import StreamGuard, open_guardrail
from jettison.serve.rails import QUICK
from jettison.testing import check_guardrail

presidio = pytest.mark.slow


@pytest.fixture(scope="module")
def installed():
    pytest.importorskip("presidio_analyzer", reason="the extra presidio is not installed")


def test_a_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    with pytest.raises(MissingExtra, match=r"jettison\[presidio\]"):
        open_guardrail("presidio")


def test_it_is_asked_off_the_event_loop():
    assert "presidio" not in QUICK


@presidio
def test_numbers_and_addresses_are_found_and_masked_without_any_network(installed, monkeypatch):
    def refused(*given):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refused)
    guardrail = open_guardrail("presidio", {"action": "redact"})
    text = "Ada, ada@example.com, card 4111 1111 1111 1111, IBAN DE89 3704 0044 0532 0130 00."
    verdict = guardrail.check(text, where="input")
    assert verdict.action == "redact"
    assert verdict.text == "Ada, [EMAIL_ADDRESS], card [CREDIT_CARD], IBAN [IBAN_CODE]."
    assert verdict.reason == "found credit_card 1, email_address 1, iban_code 1"
    assert guardrail.check("Where is my parcel of 3 May?", where="input").action == "pass"


@presidio
def test_what_is_allowed_and_what_is_not_asked_for_passes(installed):
    allowed = open_guardrail("presidio", {"allow": ["help@example.com"]})
    assert allowed.check("write to help@example.com", where="input").action == "pass"
    assert allowed.check("write to ada@example.com", where="input").action == "block"
    cards = open_guardrail("presidio", {"entities": ["CREDIT_CARD"]})
    assert cards.check("write to ada@example.com", where="input").action == "pass"


@presidio
def test_settings_that_do_not_fit_are_named(installed):
    with pytest.raises(InvalidInput, match=r"entities must be some of .*got \['PERSON'\].*nlp_model"):
        open_guardrail("presidio", {"entities": ["PERSON"]})
    with pytest.raises(InvalidInput, match=r"nlp_model must be an installed spaCy pipeline .*'en_none'"):
        open_guardrail("presidio", {"nlp_model": "en_none"})
    with pytest.raises(InvalidInput, match=r"language must be one that spaCy knows, .*'zz'"):
        open_guardrail("presidio", {"language": "zz"})
    with pytest.raises(InvalidInput, match=r"least_score must be in 0-1, got 0.0"):
        open_guardrail("presidio", {"least_score": 0.0})


@presidio
def test_a_stream_is_held_back_and_masked_whole(installed):
    guard = StreamGuard([open_guardrail("presidio", {"action": "redact"})])
    passed = "".join(guard.feed(piece) for piece in ("write to ada@ex", "ample.com ", "today"))
    assert passed + guard.finish() == "write to [EMAIL_ADDRESS] today"


@presidio
def test_it_holds_what_every_guardrail_must_and_answers_several_threads(installed):
    check_guardrail("presidio", {}, caught=["mail ada@example.com"], passed=["hello there"])
    guardrail = open_guardrail("presidio")
    found = []
    threads = [
        threading.Thread(
            target=lambda: found.append(guardrail.check("mail ada@example.com", where="input"))
        )
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [verdict.action for verdict in found] == ["block"] * 8
