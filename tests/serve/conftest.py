"""Fixtures that several modules share: a release, and a gateway before an upstream with faults."""

import pytest

from gateways import IMPATIENT, Faulty, answers, config_of, running, upstream_of
from releasing import make_release


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    folder = tmp_path_factory.mktemp("release")
    make_release(folder)
    return str(folder / "7")


@pytest.fixture
def upstream():
    with Faulty() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def gateway_and_upstream(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    with Faulty() as upstream:
        big = upstream_of(upstream.url, max_reply_bytes=100_000, **IMPATIENT)
        with running(config_of(folder, upstreams={"big": big})) as gateway:
            yield gateway, upstream


@pytest.fixture
def faulty(gateway_and_upstream):
    gateway, upstream = gateway_and_upstream
    upstream.asked.clear()
    # Each test its own budget and breaker: what one fault spends must not change the next one's outcome.
    ours = gateway.gateway.plan.upstreams["big"]
    ours.breaker.succeeded()
    ours._budget._tokens = 10.0
    yield gateway, upstream
    upstream.behave = answers
