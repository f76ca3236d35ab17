"""A reply's head and body go out as one write, and nothing is ever held back for good."""

import asyncio

from jettison.serve.one_write import OneWrite


class Wire:
    def __init__(self):
        self.sent = []
        self.is_closed = False

    def write(self, data):
        assert not self.is_closed
        self.sent.append(data)

    def close(self):
        self.is_closed = True

    def is_closing(self):
        return self.is_closed


def on_loop(work):
    async def go():
        wire = Wire()
        await work(OneWrite(wire, asyncio.get_running_loop()), wire)
        return wire

    return asyncio.run(go())


def test_head_and_body_are_one_write():
    async def work(one, wire):
        one.write(b"head ")
        one.write(b"body")
        assert wire.sent == [b"head body"]
        one.write(b"head of the next ")
        one.write(b"its body")

    assert on_loop(work).sent == [b"head body", b"head of the next its body"]


def test_a_head_whose_body_takes_its_time_goes_out_alone():
    async def work(one, wire):
        one.write(b"head")
        assert wire.sent == []
        await asyncio.sleep(0)
        assert wire.sent == [b"head"]
        one.write(b"event")
        await asyncio.sleep(0)

    assert on_loop(work).sent == [b"head", b"event"]


def test_what_is_held_back_is_sent_before_the_connection_closes():
    async def work(one, wire):
        one.write(b"the end")
        one.close()
        assert one.is_closing()
        await asyncio.sleep(0)

    assert on_loop(work).sent == [b"the end"]
