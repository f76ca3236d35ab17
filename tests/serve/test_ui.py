"""Pages under `/ui`: who may see them, the process behind them, and a real browser on them."""

import os
import signal
import threading
from pathlib import Path

import pytest

from browser import CHROMIUM, browser
from gateways import ask, config_of, post, request, running, wait_until
from jettison.errors import InvalidInput
from jettison.serve.access import new_key
from jettison.serve.config import KeyConfig, UiConfig, check_serve_config
from jettison.serve.flags import resolve

KEY, DIGEST = new_key()
FORM = {"content-type": "application/x-www-form-urlencoded"}
ON = UiConfig(is_on=True, sha256=DIGEST)


def bearer(key):
    return {"authorization": f"Bearer {key}"}


def test_the_pages_are_off_unless_told_and_need_a_key_of_their_own(tmp_path, release):
    with running(config_of(tmp_path, release=release)) as gateway:
        assert request(gateway.port, "GET", "/ui").status == 404
    with pytest.raises(InvalidInput, match=r"must have a key of their own, got none - at `\$\.ui\.sha256`"):
        check_serve_config(config_of(tmp_path, release=release, ui=UiConfig(is_on=True)), "x")
    with pytest.raises(InvalidInput, match="never the key itself"):
        check_serve_config(config_of(tmp_path, release=release, ui=UiConfig(sha256=KEY)), "x")
    found = resolve(None, Path(release), {"ui_sha256": DIGEST})
    assert found.ui == ON


def test_only_its_own_key_opens_the_pages_and_it_opens_nothing_else(tmp_path, release):
    api_key, api_digest = new_key()
    keys = (KeyConfig(name="team", sha256=api_digest),)
    with running(config_of(tmp_path, release=release, keys=keys, ui=ON)) as gateway:
        for headers in ({}, bearer(api_key), bearer(""), {"cookie": "jettison_ui=x"}):
            told = request(gateway.port, "GET", "/ui/alarms", headers=headers)
            assert told.status == 401
            assert b'name="key"' in told.raw  # a page to give it on, and nothing of what is behind
            assert "default-src 'none'" in told.headers["content-security-policy"]
        told = request(gateway.port, "POST", "/ui/login", b"key=" + api_key.encode(), FORM)
        assert told.status == 401
        assert "set-cookie" not in told.headers
        assert request(gateway.port, "POST", "/ui/login", b"k" * 5000, FORM).status == 413
        assert request(gateway.port, "POST", "/ui", {}).status == 405
        style = request(gateway.port, "GET", "/ui/ui.css")
        assert (style.status, style.headers["content-type"]) == (200, "text/css; charset=utf-8")
        body = {"messages": [{"role": "user", "content": "pear"}]}
        assert post(gateway, "/v1/chat/completions", body, bearer(KEY)).status == 401
        assert gateway.gateway.ui._child.pid is None  # nobody who may look has come: nothing was started


def test_a_key_given_once_opens_a_session_until_it_is_ended(tmp_path, release):
    with running(config_of(tmp_path, release=release, ui=ON)) as gateway:
        told = request(gateway.port, "POST", "/ui/login", b"key=" + KEY.encode(), FORM)
        assert told.status == 303
        cookie = told.headers["set-cookie"]
        assert {"HttpOnly", "SameSite=Strict", "Path=/ui"} <= set(cookie.split("; "))
        assert KEY not in cookie
        ui, mine = gateway.gateway.ui, {b"cookie": cookie.split(";")[0].encode()}
        assert ui._may_see(mine)
        assert (
            request(gateway.port, "POST", "/ui/logout", b"", {"cookie": cookie.split(";")[0]}).status == 303
        )
        assert not ui._may_see(mine)


def test_other_machines_see_nothing_unless_told(tmp_path, release):
    from jettison.serve.api_error import ApiError
    from jettison.serve.ui import Ui

    async def asked(ui, client):
        sent = []

        async def send(message):
            sent.append(message)

        scope = {"path": "/ui", "method": "GET", "client": (client, 1), "headers": [], "query_string": b""}
        try:
            await ui.answer(scope, None, send)
        except ApiError as error:
            return error.status
        return sent[0]["status"]

    import asyncio

    near = Ui(config_of(tmp_path, release=release, ui=ON))
    far = Ui(
        config_of(tmp_path, release=release, ui=UiConfig(is_on=True, sha256=DIGEST, beyond_loopback=True))
    )
    assert [asyncio.run(asked(near, one)) for one in ("127.0.0.1", "::1", "10.0.0.9", "")] == [
        401,
        401,
        404,
        404,
    ]
    assert asyncio.run(asked(far, "10.0.0.9")) == 401


@pytest.mark.slow
def test_a_process_of_its_own_makes_the_pages_and_may_die(tmp_path, release):
    with running(config_of(tmp_path, release=release, ui=ON)) as gateway:
        for text in ("pear 1", "apple 2", "pear 3"):
            assert ask(gateway, text).status == 200
        gateway.gateway.log.flush()
        told = request(gateway.port, "GET", "/ui", headers=bearer(KEY))
        assert told.status == 200
        wait_until(
            lambda: b"3 records read" in request(gateway.port, "GET", "/ui", headers=bearer(KEY)).raw
        )
        assert request(gateway.port, "GET", "/ui/../../etc/passwd", headers=bearer(KEY)).status == 404
        assert b"as good" in request(gateway.port, "GET", "/ui/releases", headers=bearer(KEY)).raw
        pid = gateway.gateway.ui._child.pid
        assert os.getpriority(os.PRIO_PROCESS, pid) >= 10
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: gateway.gateway.ui._child.pid is None)
        assert ask(gateway, "pear 4").status == 200  # serving does not know of it
        assert request(gateway.port, "GET", "/ui/drift", headers=bearer(KEY)).status == 200
        last = gateway.gateway.ui._child.pid
        assert last not in (None, pid)
    assert not Path(f"/proc/{last}").exists()  # it ends with the gateway


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here (Debian package `chromium`)")
def test_a_browser_opens_every_page_and_they_change_by_themselves(tmp_path, release):
    hostile = "<script>window.hacked=1</script><img src=x onerror=window.hacked=1> pear"
    with running(config_of(tmp_path, release=release, ui=ON)) as gateway:
        stop = threading.Event()

        def traffic():
            number = 0
            while not stop.wait(0.03):
                assert ask(gateway, f"pear {number}", user=f"u{number}").status == 200
                number += 1

        users = threading.Thread(target=traffic, daemon=True)
        users.start()
        mined = tmp_path / "state" / "mined"
        mined.mkdir(parents=True)
        mode = (
            '{"name": "m", "title": "t", "n": 9, "share": 0.1, "n_bad": 3, "n_doubtful": 1, '
            f'"reasons": {{"wrong": 3}}, "trend": "new", "examples": ["{hostile}"]}}'
        )
        (mined / "failures.json").write_text(
            '{"n_searched": 90, "n_bad": 3, "n_doubtful": 1, "first": 1, "last": 2, "n_outside": 0, '
            f'"modes": [{mode}]}}'
        )
        try:
            with browser(tmp_path / "profile") as page:
                page.go(f"{gateway.url}/ui")
                page.run(f"document.querySelector('#key').value = {KEY!r}; document.forms[0].submit()")
                page.wait_for("document.querySelector('h1').textContent === 'Overview'")
                page.said.clear()  # the login page is a 401, which the browser remarks on
                page.wait_for("document.querySelectorAll('svg.plot').length >= 4", 60)
                count = "Number(document.querySelector('.value').textContent.replaceAll(',', ''))"
                before = page.run(count)
                page.run("window.same = true")
                page.wait_for(f"{count} > {before} && window.same")  # anew without a new page
                for width in (1280, 390):
                    page.size(width, 900)
                    for name in ("", "/experiments", "/drift", "/failures", "/releases", "/alarms"):
                        page.go(f"{gateway.url}/ui{name}")
                        page.wait_for("document.querySelector('#live h1') !== null")
                        wide = page.run("document.documentElement.scrollWidth - window.innerWidth")
                        assert wide <= 0, (name, width, wide)  # nothing runs out of the window
                        folder = os.environ.get("JETTISON_SCREENSHOTS")
                        if folder:
                            page.picture(Path(folder) / f"ui{name.replace('/', '-')}-{width}.png")
                page.go(f"{gateway.url}/ui/failures")
                assert hostile in page.run("document.querySelector('.texts li').textContent")
                assert page.run("window.hacked") is None
                # Not one violation of the policy, not one fault of the script.
                assert [said for said in page.said if "favicon" not in said] == []
                page.run("document.querySelector('.out').submit()")
                page.wait_for("document.querySelector('#key') !== null")
        finally:
            stop.set()
            users.join(10)
