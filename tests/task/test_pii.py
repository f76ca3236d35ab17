"""Personal data is found by form and checksum, and what only looks like it is left alone."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jettison.task.pii import mask


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("write to Ann.Lee+x@mail.example.co.uk.", "write to [EMAIL_1]."),
        # The IBAN of the standard's own example, with and without its spaces.
        ("IBAN DE89 3704 0044 0532 0130 00 please", "IBAN [IBAN_1] please"),
        ("GB82WEST12345698765432", "[IBAN_1]"),
        # Test numbers that card schemes publish.
        ("card 4111 1111 1111 1111, cvc", "card [CARD_1], cvc"),
        ("378282246310005", "[CARD_1]"),
        ("from 192.168.12.34 today", "from [IP_1] today"),
        ("from 2001:db8::ff00:42:8329 today", "from [IP_1] today"),
        ("call +49 30 1234567 now", "call [PHONE_1] now"),
        ("call (555) 123-4567 or 555-123-4568", "call [PHONE_1] or [PHONE_2]"),
        ("call (555) 123-4567, 555-123-4567", "call [PHONE_1], [PHONE_1]"),
        ("a@b.example and c@d.example and a@b.example", "[EMAIL_1] and [EMAIL_2] and [EMAIL_1]"),
    ],
)
def test_what_reaches_a_person_is_masked(text: str, masked: str) -> None:
    assert mask((text,))[0] == (masked,)


@pytest.mark.parametrize(
    "text",
    [
        "DE89 3704 0044 0532 0130 01 has a wrong checksum",
        "4111 1111 1111 1112 has a wrong checksum",
        "0000 0000 0000 0000",
        "order 20240102123456 of 2024-01-02 12:34:56",
        "version 1.2.3.4.5 and 300.1.1.1 and 12:34:56",
        "from 2024-01-02 to 2024-03-04, 1,234,567.89 EUR",
        "ISBN 978-3-16-148410-0",
        "me@home and @handle and 50% off",
        "::",
    ],
)
def test_what_only_looks_like_it_stays(text: str) -> None:
    assert mask((text,)) == ((text,), {})


def test_one_address_keeps_its_mask_in_the_answer_and_kinds_are_counted() -> None:
    masked, counts = mask(("I am a@b.example, +49 30 1234567", "Thanks, A@B.example!"))
    assert masked == ("I am [EMAIL_1], [PHONE_1]", "Thanks, [EMAIL_1]!")
    assert counts == {"email": 2, "phone": 1}


@given(st.text())
def test_masking_twice_changes_nothing_more(text: str) -> None:
    once, _ = mask((text,))
    assert mask(once)[0] == once


@given(st.text(alphabet="ab:0123456789.-@+() ", max_size=4000))
def test_no_text_takes_long(text: str) -> None:
    began = time.process_time()
    mask((text,))
    assert time.process_time() - began < 0.2
