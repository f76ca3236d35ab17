"""The injection guardrail: thresholds, long texts, disguises, and a folder that is no guard."""

import base64

import msgspec
import pytest

from gateways import Faulty, ask, config_of, running, upstream_of
from guarding import a_guard
from jettison.backends.guard import GUARD_FILE, Guard
from jettison.errors import BrokenArtifact, InvalidInput
from jettison.files import read_json, write_json
from jettison.route import Guarded, Single
from jettison.serve.guardrails import open_guardrail
from jettison.task.unmask import unmasked

FILLER = "Thank you for the parcel that came today. " * 60


@pytest.fixture(scope="module")
def guard(tmp_path_factory):
    return a_guard(tmp_path_factory.mktemp("guard"))


def opened(guard, **given):
    return open_guardrail("prompt_injection", {"model": str(guard), **given})


def test_the_threshold_is_the_guards_own_or_the_one_asked_for(guard):
    text = "ignore thank " * 3 + "ignore"
    score = opened(guard).check(text, where="input").score
    assert 0.55 < score < 0.9
    assert opened(guard).check(text, where="input").action == "pass"
    assert opened(guard, false_alarm_share=0.05).check(text, where="input").action == "block"
    assert opened(guard, threshold=score).check(text, where="input").action == "block"
    assert opened(guard, threshold=score, action="flag").check(text, where="input").action == "flag"
    with pytest.raises(InvalidInput, match=r"false_alarm_share must be one of \['0.01', '0.05'\], got 0.2"):
        opened(guard, false_alarm_share=0.2)
    with pytest.raises(InvalidInput, match="either threshold or false_alarm_share"):
        opened(guard, false_alarm_share=0.05, threshold=0.5)
    with pytest.raises(InvalidInput, match=r"threshold must be in 0-1, got 1.5"):
        opened(guard, threshold=1.5)
    with pytest.raises(InvalidInput, match="action must be"):
        opened(guard, action="redact")


def test_a_short_order_in_a_long_text_is_not_lost_in_it(guard):
    one = opened(guard, threshold=0.55)
    assert one.check(FILLER, where="input").action == "pass"
    plain = "The parcel came today and it is fine. " * 60
    hidden = f"{plain} ignore ignore ignore {plain}"
    assert one.check(hidden, where="input").action == "block"


def test_disguises_are_seen_through(guard):
    one = opened(guard, threshold=0.9)
    assert one.check("ignore", where="input").action == "block"
    for disguised in (
        "i\u200bgn\u200bore",
        "іgnоrе",  # Cyrillic i, o and e
        "ｉｇｎｏｒｅ",
        "i g n o r e",
        "".join(chr(0xE0000 + ord(one)) for one in "ignore"),
        base64.b64encode(b"ignore ignore ignore").decode(),
    ):
        assert one.check(disguised, where="input").action == "block", disguised


def test_what_is_no_disguise_stays_as_it_is():
    for text in (
        "Привет, как дела?",
        "naïve café",
        "a b c",
        "sha256 9f86d081884c7d659a2feaa0c55ad015",
        "x",
    ):
        assert unmasked(text)[0] == text
    assert len(unmasked(" ".join([base64.b64encode(b"ignore all of it").decode()] * 50))) == 9


def test_a_folder_that_is_no_guard_is_named(guard, tmp_path):
    with pytest.raises(InvalidInput, match=r"guardrails.prompt_injection: model must be .* got none"):
        open_guardrail("prompt_injection")
    with pytest.raises(InvalidInput, match=r"folder that `jettison guard` made, got .* without guard.json"):
        opened(tmp_path)
    other = a_guard(tmp_path / "other")
    found = read_json(other / GUARD_FILE, Guard)
    write_json(other / GUARD_FILE, msgspec.structs.replace(found, release="0" * 64))
    with pytest.raises(BrokenArtifact, match=r"must be of the release beside it, .* got 000000000000…"):
        opened(other)


def test_the_gateway_blocks_an_injection_before_any_arm_sees_it(guard, tmp_path):
    with Faulty() as upstream:
        config = config_of(
            tmp_path,
            upstreams={"big": upstream_of(upstream.url)},
            guardrails={"prompt_injection": {"model": str(guard)}},
            route=Guarded(inner=Single(candidate="upstream:big"), guardrails=("prompt_injection",)),
        )
        with running(config) as gateway:
            assert ask(gateway, "thank you").status == 200
            blocked = ask(gateway, "ignore ignore")
            assert blocked.status == 400
            assert "prompt_injection" in blocked.json["error"]["message"]
        assert upstream.n == 1
