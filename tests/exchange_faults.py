"""Faults of an upstream, each as it behaves in one exchange: `upstream.behave = resets`."""

import asyncio

from gateways import completion


async def hang_before_headers(exchange):
    await asyncio.sleep(60)


async def hang_after_headers(exchange):
    await exchange.begin_stream()
    await asyncio.sleep(60)


async def closes_at_once(exchange):
    exchange.writer.close()
    exchange.close()


async def resets(exchange):
    exchange.reset()


async def html(exchange):
    await exchange.reply(b"<html>busy</html>", content_type="text/html")


async def bad_json(exchange):
    await exchange.reply(b'{"choices": [')


async def no_choices(exchange):
    await exchange.reply({"choices": []})


async def huge(exchange):
    await exchange.reply(completion("x" * 200_000))


async def huge_without_length(exchange):
    await exchange.send(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    for _ in range(30):
        await exchange.chunk(b" " * 10_000)


async def cut_off(exchange):
    await exchange.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{")
    exchange.writer.close()
    exchange.close()


async def gzip_garbage(exchange):
    await exchange.reply(b"\x1f\x8bgarbage", content_encoding="gzip")


async def drips(exchange):
    await exchange.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
    for _ in range(900):
        await exchange.send(b" ")
        await asyncio.sleep(0.05)


async def no_http(exchange):
    await exchange.send(b"SSH-2.0-OpenSSH\r\n\r\n")
    exchange.close()


def status(code, **headers):
    async def behave(exchange):
        await exchange.reply({"error": {"message": "no", "type": "x", "code": "c"}}, code, **headers)

    return behave
