"""`/ui`: live pages for people, behind a key of their own, made by a process of their own.

The gateway checks the key and hands bytes on. It never reads the log for a page, and never draws one:
that is `jettison.monitor.dashboard`, which is nice and is started when somebody looks.
"""

import asyncio
import contextlib
import hashlib
import hmac
import html
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import msgspec

from jettison.serve.api_error import ApiError
from jettison.serve.config import LimitsConfig, ServeConfig
from jettison.serve.http_io import Headers, Receive, Send, read_body, read_headers, send_body
from jettison.serve.tell import tell

PATH = "/ui"
COOKIE = "jettison_ui"
SESSION_S = 12 * 3600.0
MOST_SESSIONS = 64
MOST_AT_ONCE = 8
MOST_BODY = 4096
MOST_PAGE = 16 * 2**20
START_S, PAGE_S = 120.0, 30.0
LOOPBACK = ("127.0.0.1", "::1", "::ffff:127.0.0.1")
OPEN_FILES = {
    f"/ui/{name}": (kind, Path(__file__).with_name("pages").joinpath(name).read_bytes())
    for name, kind in (("ui.css", b"text/css; charset=utf-8"), ("ui.js", b"text/javascript; charset=utf-8"))
}
"""What a page needs before anybody has given a key."""
GUARDED: Headers = [
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; form-action 'self'; "
        b"base-uri 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]
HTML = (b"content-type", b"text/html; charset=utf-8")


class Told(msgspec.Struct):
    """The head of a page."""

    status: int
    type: str
    length: int


class Ui:
    """Keys, sessions and the process behind the pages.

    Args:
        config: In force now; a reload that changes what is shown makes another `Ui`.
        clock: Seconds, monotonic.
    """

    def __init__(self, config: ServeConfig, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.config = config
        self._clock = clock
        self._sessions: dict[str, float] = {}
        self._at_once = 0
        self._child = PageMaker(config)

    def is_same(self, config: ServeConfig) -> bool:
        """Whether another configuration shows the same under the same key."""
        mine, other = self.config, config
        return (mine.ui, mine.release, mine.releases) == (other.ui, other.release, other.releases)

    async def answer(self, scope: Any, receive: Receive, send: Send) -> None:
        """Any request below `/ui`.

        Raises:
            ApiError: There are no pages here, for this client or at all.
        """
        path, method, limits = scope["path"], scope["method"], self.config.limits
        client = (scope.get("client") or ("",))[0]
        if not self.config.ui.is_on or not (self.config.ui.beyond_loopback or client in LOOPBACK):
            raise ApiError(404, "not_found", f"there is nothing at {path[:200]}.", should_retry=False)
        headers = read_headers(scope, limits)
        if method == "POST" and path in ("/ui/login", "/ui/logout"):
            await self._log(path, headers, receive, send, is_secure=scope.get("scheme") == "https")
        elif method not in ("GET", "HEAD"):
            raise ApiError(405, "method_not_allowed", f"{path[:200]} takes GET alone.", should_retry=False)
        elif path in OPEN_FILES:
            kind, body = OPEN_FILES[path]
            await send_body(send, 200, [(b"content-type", kind), *GUARDED], body)
        elif not self._may_see(headers):
            await _send_page(send, 401, login_page(""))
        else:
            await self._show(path, scope.get("query_string", b"")[:2000], send)

    def _may_see(self, headers: dict[bytes, bytes]) -> bool:
        given = headers.get(b"authorization", b"")
        if given[:7].lower() == b"bearer ":
            return self._is_key(given[7:].strip())
        now = self._clock()
        token = _cookie(headers.get(b"cookie", b""))
        until = self._sessions.get(_digest(token)) if token else None
        return until is not None and now < until

    def _is_key(self, given: bytes) -> bool:
        known = self.config.ui.sha256 or ""
        return bool(known) and hmac.compare_digest(hashlib.sha256(given).hexdigest(), known)

    async def _log(
        self, path: str, headers: dict[bytes, bytes], receive: Receive, send: Send, *, is_secure: bool
    ) -> None:
        limits: LimitsConfig = msgspec.structs.replace(self.config.limits, body_bytes=MOST_BODY)
        body = await read_body(receive, headers, limits)
        if path == "/ui/logout":
            self._sessions.pop(_digest(_cookie(headers.get(b"cookie", b""))), None)
            await _redirect(send, f"{COOKIE}=; Path=/ui; Max-Age=0; HttpOnly; SameSite=Strict")
            return
        try:
            fields = parse_qs(body.decode("ascii"), max_num_fields=4)
        except ValueError:
            fields = {}
        if not self._is_key(fields.get("key", [""])[0].strip().encode()):
            await _send_page(send, 401, login_page("This key does not open the pages."))
            return
        token = secrets.token_urlsafe(32)
        now = self._clock()
        self._sessions = {name: until for name, until in self._sessions.items() if until > now}
        while len(self._sessions) >= MOST_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        self._sessions[_digest(token)] = now + SESSION_S
        secure = "; Secure" if is_secure else ""
        await _redirect(
            send, f"{COOKIE}={token}; Path=/ui; Max-Age={SESSION_S:.0f}; HttpOnly; SameSite=Strict{secure}"
        )

    async def _show(self, path: str, query: bytes, send: Send) -> None:
        if self._at_once >= MOST_AT_ONCE:
            raise ApiError(503, "overloaded", "too many pages are being made.", retry_after_s=2.0)
        self._at_once += 1
        try:
            told, body = await self._child.page(path, query.decode("latin-1"))
        except (OSError, TimeoutError, EOFError, msgspec.DecodeError) as error:
            tell("ui_failed", kind=type(error).__name__, error=str(error)[:200])
            await _send_page(send, 503, note_page("The pages are not to be had just now. Look again soon."))
            return
        finally:
            self._at_once -= 1
        kind = (b"content-type", told.type.encode("latin-1"))
        await send_body(send, told.status, [kind, *GUARDED], body)

    async def close(self) -> None:
        """End the process behind the pages."""
        await self._child.close()


class PageMaker:
    """The process that makes pages; started when the first is asked for, and again after it has ended."""

    def __init__(self, config: ServeConfig) -> None:
        self._config = config
        self._process: asyncio.subprocess.Process | None = None
        self._folder: str | None = None
        self._starting = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """Of the process, while there is one."""
        process = self._process
        return None if process is None or process.returncode is not None else process.pid

    async def page(self, path: str, query: str) -> tuple[Told, bytes]:
        """One page.

        Raises:
            OSError: The process cannot be reached.
            TimeoutError: It took too long.
            EOFError: It ended in the middle.
        """
        async with asyncio.timeout(START_S):
            await self._ensure()
        assert self._folder is not None
        async with asyncio.timeout(PAGE_S):
            reader, writer = await asyncio.open_unix_connection(f"{self._folder}/pages")
            try:
                writer.write(msgspec.json.encode({"path": path, "query": query}) + b"\n")
                await writer.drain()
                told = msgspec.json.decode(await reader.readline(), type=Told)
                if not 0 <= told.length <= MOST_PAGE:
                    raise EOFError(f"a page of {told.length} bytes")
                return told, await reader.readexactly(told.length)
            finally:
                writer.close()

    async def _ensure(self) -> None:
        async with self._starting:
            if self.pid is not None:
                return
            await self.close()
            self._folder = tempfile.mkdtemp(prefix="jettison-ui-")  # for this user alone
            config, ui = self._config, self._config.ui
            folders = {"": config.release, **config.releases}
            settings = {
                "socket": f"{self._folder}/pages",
                "state": str(Path(config.state).absolute()),
                "releases": {n: str(Path(f).absolute()) for n, f in folders.items() if f is not None},
                "alerts": None if ui.alerts is None else str(Path(ui.alerts).absolute()),
                "mined": None if ui.mined is None else str(Path(ui.mined).absolute()),
            }
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "jettison.monitor.dashboard",
                msgspec.json.encode(settings).decode(),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env=self._environment(),
            )
            assert self._process.stdout is not None
            if await self._process.stdout.readline() != b"ready\n":
                raise EOFError("the process that makes pages did not start")

    def _environment(self) -> dict[str, str]:
        """Ours without the upstreams' keys, which no page needs."""
        keys = {one.api_key_env for one in self._config.upstreams.values()}
        kept = {name: value for name, value in os.environ.items() if name not in keys}
        return {**kept, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

    async def close(self) -> None:
        """End it; its folder goes with it."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()  # it holds nothing that could be lost
            await process.wait()
        if self._folder is not None:
            await asyncio.to_thread(shutil.rmtree, self._folder, True)
            self._folder = None


def login_page(problem: str) -> bytes:
    """Where the key is given."""
    said = f'<p class="box bad" role="alert">{html.escape(problem)}</p>' if problem else ""
    return _framed(
        f'<form class="login" method="post" action="/ui/login"><h1>jettison</h1>{said}'
        '<label for="key">Key of the pages</label>'
        '<input id="key" name="key" type="password" autocomplete="current-password" required autofocus>'
        "<button>Open</button></form>"
    )


def note_page(words: str) -> bytes:
    """A page that only says something."""
    return _framed(f'<main><p class="box">{html.escape(words)}</p></main>')


def _framed(inner: str) -> bytes:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>jettison</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="stylesheet" href="/ui/ui.css"></head><body>{inner}</body></html>'
    ).encode()


async def _send_page(send: Send, status: int, body: bytes) -> None:
    await send_body(send, status, [HTML, *GUARDED], body)


async def _redirect(send: Send, cookie: str) -> None:
    headers = [(b"location", b"/ui"), (b"set-cookie", cookie.encode()), *GUARDED]
    await send_body(send, 303, headers, b"")


def _cookie(given: bytes) -> str:
    for part in given.decode("latin-1").split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE:
            return value[:200]
    return ""


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
