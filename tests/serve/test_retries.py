"""What is asked of an upstream again, how often, and when it is left alone."""

from exchange_faults import resets, status
from gateways import Faulty, answers, ask, config_of, request, running, upstream_of, wait_until


def test_a_fault_that_passes_is_not_seen(faulty):
    gateway, upstream = faulty

    async def second_time(exchange):
        await (resets if exchange.number == 1 else answers)(exchange)

    upstream.behave = second_time
    assert ask(gateway, "x").json["choices"][0]["message"]["content"] == "big answer"
    assert upstream.n == 2


def test_retry_after_of_the_upstream_reaches_the_client(faulty):
    gateway, upstream = faulty
    upstream.behave = status(429, retry_after="7")
    found = ask(gateway, "x")
    assert (found.headers["retry-after"], found.headers["retry-after-ms"]) == ("7", "7000")


def test_the_breaker_opens_is_said_and_closes_again(tmp_path):
    with Faulty() as upstream:
        upstream.behave = status(500)
        config = upstream_of(upstream.url, breaker_failures=3, breaker_s=0.3, max_retries=0)
        with running(config_of(tmp_path, upstreams={"big": config})) as gateway:
            codes = [ask(gateway, "x").json["error"]["code"] for _ in range(6)]
            assert codes == ["upstream_error"] * 3 + ["upstream_open"] * 3
            assert upstream.n == 3
            found = ask(gateway, "x")
            assert (found.status, int(found.headers["retry-after"])) == (503, 1)
            assert request(gateway.port, "GET", "/health/ready").json["upstreams"] == {"big": "open"}
            assert (
                b'jettison_upstream_open{upstream="big"} 1.0'
                in request(gateway.port, "GET", "/metrics").raw
            )
            upstream.behave = answers
            wait_until(lambda: ask(gateway, "x").status == 200)
            assert request(gateway.port, "GET", "/health/ready").json["upstreams"]["big"] in (
                "closed",
                "open",
            )
            assert ask(gateway, "x").status == 200


def test_flapping_never_costs_more_retries_than_the_budget(tmp_path):
    with Faulty() as upstream:

        async def flaps(exchange):
            await (status(503) if exchange.number % 2 else answers)(exchange)

        upstream.behave = flaps
        config = upstream_of(upstream.url, retry_share=0.1, max_retries=3, breaker_failures=1000)
        with running(config_of(tmp_path, upstreams={"big": config})) as gateway:
            n = 60
            for _ in range(n):
                ask(gateway, "x")
            # 10 are always allowed, and a tenth of the requests.
            assert upstream.n - n <= 10 + 0.1 * n
