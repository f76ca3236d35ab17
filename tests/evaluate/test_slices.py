import random
import time
from dataclasses import replace

import msgspec
import pytest

from jettison.errors import NotEnoughData
from jettison.evaluate import Slicer
from jettison.task import Development, Example


def development(train, dev=()):  # type: ignore[no-untyped-def]
    return Development(
        name="t", kind="classify", labels=("a", "b"), out_of_scope=None,
        train=tuple(train), dev=tuple(dev), unlabelled=(),
    )  # fmt: skip


def made(n: int, text: str, label: str, start: int = 0) -> list[Example]:
    return [Example(id=f"{label}{start + i}", input=text.format(i), expected=label) for i in range(n)]


TRAIN = made(90, "what is the balance of account {}", "a") + made(10, "play song {}", "b")


def test_length_is_by_terciles_of_train():
    # Lengths 1..9: the terciles are at 3.67 and 6.33.
    train = [Example(id=str(i), input="x" * i, expected="a") for i in range(1, 10)]
    found = Slicer.fit(development(train)).apply(train)
    assert [e.slices["length"] for e in found] == ["short"] * 3 + ["medium"] * 3 + ["long"] * 3


def test_a_class_with_under_half_the_average_is_rare():
    slicer = Slicer.fit(development(TRAIN))
    found = slicer.apply([Example(id="1", input="x", expected=e) for e in ("a", "b", "unheard of", None)])
    assert [e.slices.get("class_frequency") for e in found] == ["common", "rare", "rare", None]


def test_balanced_classes_are_all_common():
    train = made(30, "one {}", "a") + made(29, "two {}", "b")
    found = Slicer.fit(development(train)).apply(train)
    assert {e.slices["class_frequency"] for e in found} == {"common"}


def test_an_input_unlike_train_has_low_density():
    dev = made(20, "what is the balance of account 7{}", "a", start=100)
    slicer = Slicer.fit(development(TRAIN, dev))
    near, far = slicer.apply(
        [Example(id="1", input="what is the balance of account 5"), Example(id="2", input="zebra quux")]
    )
    assert (near.slices["density"], far.slices["density"]) == ("high", "low")


def test_about_a_fifth_of_dev_has_low_density():
    rng = random.Random(0)
    words = ("what is the balance of my account", "play a song for tractor", "kangaroo glacier senate")
    pool = " ".join(words).split()
    dev = [Example(id=f"d{i}", input=" ".join(rng.sample(pool, 6)), expected="a") for i in range(200)]
    found = Slicer.fit(development(TRAIN, dev)).apply(dev)
    assert sum(e.slices["density"] == "low" for e in found) == pytest.approx(40, abs=2)


def test_own_slices_are_kept_and_the_given_examples_not_changed():
    example = Example(id="1", input="play", expected="b", slices={"domain": "x", "length": "mine"})
    (found,) = Slicer.fit(development(TRAIN)).apply([example])
    assert found.slices["domain"] == "x"
    assert found.slices["length"] == "mine"
    assert example.slices == {"domain": "x", "length": "mine"}


def test_slices_do_not_depend_on_the_company_they_come_in():
    slicer = Slicer.fit(development(TRAIN))
    together = slicer.apply(TRAIN)
    assert together[3] == slicer.apply([TRAIN[3]])[0]
    assert together == Slicer.fit(development(TRAIN)).apply(TRAIN)


@pytest.mark.parametrize("text", ["", "x", "é", "日本", "\x00", "👩‍👩‍👧", "a" * 20_000])
def test_any_text_gets_its_slices(text):
    (found,) = Slicer.fit(development(TRAIN)).apply([Example(id="1", input=text, expected="a")])
    assert set(found.slices) == {"length", "class_frequency", "density"}


def test_no_examples_at_all_are_refused():
    with pytest.raises(NotEnoughData, match="slices need examples"):
        Slicer.fit(development([]))


def test_unlabelled_texts_stand_in_for_train_and_dev_for_its_labels():
    traffic = [msgspec.structs.replace(example, expected=None) for example in TRAIN]
    dev = made(18, "what is the balance of account {}", "a", 200) + made(2, "play song {}", "b", 200)
    slicer = Slicer.fit(replace(development([], dev), unlabelled=tuple(traffic)))
    found = slicer.apply(dev)
    assert [e.slices["class_frequency"] for e in found] == ["common"] * 18 + ["rare"] * 2
    assert [e.slices["length"] for e in found] == [
        e.slices["length"] for e in Slicer.fit(development(TRAIN, dev)).apply(dev)
    ]
    alone = Slicer.fit(development([], dev)).apply(dev)
    assert {e.slices["density"] for e in alone} == {"low", "high"}


def test_five_thousand_examples_take_under_two_seconds():
    train = [
        Example(id=str(i), input=f"tell me about topic {i * 7919} of {i}", expected="a")
        for i in range(5000)
    ]
    slicer = Slicer.fit(development(train[:4000]))
    began = time.process_time()
    slicer.apply(train)
    assert time.process_time() - began < 2.0
