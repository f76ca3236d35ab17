"""Every built-in guardrail keeps the promises that `jettison.testing.check_guardrail` checks."""

from pathlib import Path
from typing import Any

import pytest

from guarding import PASSWORDS, a_classifier, a_guard, an_embedder
from jettison import registry
from jettison.serve.guardrails import GuardSettings, Verdict, Where
from jettison.testing import check_guardrail
from releasing import make_release

ORDINARY = ("my card has not arrived, can you help?", "What is 12 + 30? Tell me the time, please.")
CASES: dict[str, tuple[dict[str, Any], tuple[str, ...], tuple[str, ...]]] = {
    "pii": (
        {},
        (
            "write to ada@example.com or bob@example.org, please",
            "IBAN DE89 3704 0044 0532 0130 00, card 4111 1111 1111 1111.",
            "from 192.168.7.12 I call +49 30 1234567",
        ),
        ORDINARY,
    ),
    "secrets": ({}, tuple(PASSWORDS.values()), (*ORDINARY, "the token limit is 4096 tokens", "key: value")),
    "length": ({"most_characters": 60}, ("x" * 61, "word " * 30), ORDINARY),
    "json_schema": (
        {"schema": {"type": "object", "required": ["label"], "properties": {"label": {"type": "string"}}}},
        ("no JSON at all", '{"label": 3}', "[1, 2]", '{"other": "x"}'),
        ('{"label": "yes"}',),
    ),
    "toxicity": (
        {},
        ("Immigrants are filthy parasites who ruin our country.", "I will kill you, you piece of shit."),
        (*ORDINARY, "I'm sorry, but I can't write a text that insults immigrants."),
    ),
    "language": (
        {"allowed": ["en"]},
        ("wie wird das Wetter morgen in der Stadt?", "quel temps fait-il aujourd'hui à Paris ?"),
        ORDINARY,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_guardrail_conforms(name: str) -> None:
    settings, caught, passed = CASES[name]
    check_guardrail(name, settings, caught=caught, passed=passed)


def test_guardrail_denied_topics_conforms(tmp_path: Path) -> None:
    topics = {"weapons": ["build a bomb", "buy a gun"], "gambling": ["bet on a horse"]}
    check_guardrail(
        "denied_topics",
        {"model": str(an_embedder(tmp_path / "model")), "topics": topics, "threshold": 0.8},
        caught=("how to build a bomb", "bet on the horse"),
        passed=("play a song", "what is the weather"),
    )


@pytest.mark.parametrize("name", ["classifier"])
def test_guardrail_classifier_conforms(name: str, tmp_path: Path) -> None:
    settings = {"model": str(a_classifier(tmp_path / "model").path), "labels": ["rude"], "threshold": 0.6}
    check_guardrail(name, settings, caught=("you idiot",), passed=("thank you", "what time is it"))


def test_guardrail_prompt_injection_conforms(tmp_path: Path) -> None:
    check_guardrail(
        "prompt_injection",
        {"model": str(a_guard(tmp_path)), "false_alarm_share": 0.05},
        caught=("ignore it", "now ignore that, ignore this"),
        passed=("thank you", *ORDINARY),
    )


def test_guardrail_out_of_domain_conforms(tmp_path: Path) -> None:
    make_release(tmp_path)
    check_guardrail(
        "out_of_domain",
        {"release": str(tmp_path / "7"), "false_alarm_share": 0.01},
        caught=("please explain how tides follow the phases of the moon",),
        passed=("", "apple secretword 12", "pear secretword 7"),
    )


def test_every_guardrail_is_checked() -> None:
    here = {"denied_topics", "classifier", "out_of_domain", "prompt_injection"}
    elsewhere = {"presidio"}  # heavy: in test_presidio.py, where it is installed
    assert set(registry.names("guardrails")) == here | elsewhere | set(CASES)


class Careless:
    """A guardrail that breaks the promise that its class attribute names."""

    Settings = GuardSettings
    fault = ""

    def __init__(self, settings: GuardSettings) -> None:
        self._settings = settings
        self._n = 0

    def check(self, text: str, *, where: Where) -> Verdict:
        self._n += 1
        action = self._settings.action if "secret word" in text else "pass"
        if self.fault == "crash" and not text:
            raise ValueError("empty")
        if self.fault == "changes" and self._n % 2:
            action = "pass"
        reason = "found it" if action != "pass" else None
        if self.fault == "tells" and reason:
            reason = f"found {text}"
        masked = text.replace("secret word", "[WORD]") if action == "redact" else None
        if self.fault == "leaves" and masked:
            masked = text
        if self.fault == "no text":
            masked = None
        return Verdict(action=action, guardrail="careless", reason=reason, text=masked)

    def _cut(self, text: str, start: int = 0) -> int:
        return text.rfind(" ") + 1  # between `secret` and `word` as well


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("crash", "empty"),
        ("changes", "must get the same verdict"),
        ("tells", "a reason must not repeat what was caught"),
        ("leaves", "a redacted text must pass"),
        ("no text", "text must be given with redact"),
        ("cuts", "must be flag, got pass"),
    ],
)
def test_a_careless_guardrail_is_caught(fault: str, said: str) -> None:
    members = {"fault": fault} | ({"cut": Careless._cut} if fault == "cuts" else {})
    registry.register("guardrails", "careless", type("C", (Careless,), members))
    try:
        with pytest.raises((AssertionError, ValueError), match=said):
            check_guardrail("careless", caught=("a secret word here",), passed=("nothing here",))
    finally:
        registry._added.pop(("guardrails", "careless"))


def test_a_careful_guardrail_passes() -> None:
    registry.register("guardrails", "careful", Careless)
    try:
        check_guardrail("careful", caught=("a secret word here",), passed=("nothing here",))
    finally:
        registry._added.pop(("guardrails", "careful"))
