"""A page on loopback where a person labels one input after the other; each answer is kept at once.

Bound to 127.0.0.1 and to a token in the address, so that neither another machine nor another page in the
browser can read or answer. What the models said is not shown: it would lead the labeller.
"""

import base64
import hashlib
import html
import secrets
import socket
import sys
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec

from jettison.errors import CannotWrite, InvalidInput
from jettison.loop.labels import ToLabel, read_labelled, write_to_label

MOST_BYTES = 65_536
MOST_BUTTONS = 20
"""Of more labels than these one is typed, and the browser completes it."""
SILENCE_S = 30.0
"""After which a connection that says nothing is closed."""
_KEYS = "123456789"
_SHOWN = 60
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a}"
    "blockquote{background:#f3f4f6;padding:1rem;margin:1rem 0;border-radius:.5rem;white-space:pre-wrap}"
    "blockquote{font-size:1.1rem;overflow:auto;overflow-wrap:anywhere;max-height:55vh}"
    "button{margin:.2rem;padding:.5rem .8rem;border:1px solid #888;border-radius:.4rem}"
    "button{background:#fff;color:inherit;font:inherit;overflow-wrap:anywhere}"
    "kbd{color:#666;font:.8em monospace}"
    "button:focus,button:hover{background:#e6f0ff}form{display:inline}"
    "input[name=label],textarea{font:inherit;padding:.5rem;width:100%;box-sizing:border-box}"
    ".said{color:#555;overflow-wrap:anywhere}.bad{color:#a00000}"
)
_SCRIPT = (
    "addEventListener('keydown',e=>{if(e.ctrlKey||e.altKey||e.metaKey||e.repeat)return;"
    "if(/INPUT|TEXTAREA/.test(e.target.tagName))return;"
    "const b=document.querySelector('[data-key=\"'+CSS.escape(e.key)+'\"]');if(b)b.click()})"
)
_SCRIPT_HASH = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
"""The page's one script: a key for each button. The policy lets no other run."""


class LabelServer:
    """Serves one file of inputs to label, to one person."""

    def __init__(self, path: Path, labels: tuple[str, ...], *, port: int = 0) -> None:
        """Open the file and the port.

        Raises:
            InvalidInput: The file is none that `write_to_label` wrote, or the port is taken.
        """
        self._path, self._labels = path, labels
        self._rows = list(read_labelled(path))
        self._answered: list[str] = []
        self._lock = threading.Lock()
        self._token = secrets.token_urlsafe(16)
        server = self

        class Handler(BaseHTTPRequestHandler):
            timeout = SILENCE_S

            def do_GET(self) -> None:
                server._get(self)

            def do_POST(self) -> None:
                server._post(self)

            def log_message(self, format: str, *args: object) -> None:
                del format, args  # texts of users stay out of logs

        try:
            self._http = _Quiet(("127.0.0.1", port), Handler)
        except OSError as error:
            raise InvalidInput(
                f"a port must be free, got {port}: {error.strerror}. Leave --port out to take a free one."
            ) from error

    @property
    def address(self) -> str:
        """Where to open it, token included."""
        return f"http://127.0.0.1:{self._http.server_address[1]}/{self._token}"

    @property
    def n_left(self) -> int:
        return sum(row.label is None for row in self._rows)

    def serve(self) -> None:
        """Serve until `close`, or until every input has its label; the port is then given up."""
        try:
            self._http.serve_forever(poll_interval=0.1)
        finally:
            self._http.server_close()

    def close(self) -> None:
        """Stop serving, from another thread than that of `serve`: it waits until that has ended."""
        self._http.shutdown()

    def answer(self, example: str, label: str | None) -> bool:
        """Keep one answer, or put an input off; False where nobody asked for it, or so no label.

        Raises:
            CannotWrite: The disk is full; the answer is not taken for kept.
        """
        if label is not None and self._labels and label not in self._labels:
            return False
        with self._lock:
            for i, row in enumerate(self._rows):
                if row.id == example:
                    if label is None:
                        self._rows.append(self._rows.pop(i))
                    else:
                        labelled = msgspec.structs.replace(row, label=label)
                        self._keep([*self._rows[:i], labelled, *self._rows[i + 1 :]])
                        self._answered = [*(one for one in self._answered if one != example), example]
                    return True
        return False

    def take_back(self) -> bool:
        """Ask for the input answered last again; False where none was since the page was opened.

        Raises:
            CannotWrite: The disk is full; the answer stays.
        """
        with self._lock:
            if not self._answered:
                return False
            last = self._answered[-1]
            i = next(i for i, row in enumerate(self._rows) if row.id == last)
            asked = msgspec.structs.replace(self._rows[i], label=None)
            self._keep([asked, *self._rows[:i], *self._rows[i + 1 :]])
            self._answered.pop()
        return True

    def _keep(self, rows: list[ToLabel]) -> None:
        """On disk before in memory: what could not be written is still to be labelled."""
        write_to_label(self._path, rows)
        self._rows = rows

    def _known(self, request: BaseHTTPRequestHandler) -> bool:
        host = (request.headers.get("Host") or "").partition(":")[0]
        token = request.path.strip("/").partition("?")[0].encode()
        return host in ("127.0.0.1", "localhost") and secrets.compare_digest(token, self._token.encode())

    def _get(self, request: BaseHTTPRequestHandler) -> None:
        if not self._known(request):
            _send(request, 404, "nothing here")
            return
        page = self._page()
        _send(request, 200, page)
        if not self.n_left:
            threading.Thread(target=self._http.shutdown, daemon=True).start()

    def _post(self, request: BaseHTTPRequestHandler) -> None:
        length = request.headers.get("Content-Length") or ""
        if not self._known(request) or not (length.isdecimal() and len(length) < 9):
            _send(request, 404, "nothing here")
            return
        if int(length) > MOST_BYTES:
            request.close_connection = True  # what it goes on sending is not read
            _send(request, 413, self._page(f"An answer may have {MOST_BYTES:,} bytes at most."))
            return
        form = urllib.parse.parse_qs(request.rfile.read(int(length)).decode("utf-8", "replace"))
        try:
            kept = self._obey(form)
        except CannotWrite as error:
            _send(request, 507, self._page(f"Nothing was kept: {error}"))
            return
        if not kept:
            _send(request, 400, self._page("That is none of the labels, so nothing was kept."))
            return
        request.send_response(303)
        request.send_header("Location", f"/{self._token}")
        request.send_header("Content-Length", "0")
        request.end_headers()

    def _obey(self, form: dict[str, list[str]]) -> bool:
        if "back" in form:
            return self.take_back()
        example = form.get("id", [""])[0]
        if "skip" in form:
            return self.answer(example, None)
        label = form.get("label", [""])[0].strip()
        return bool(label) and self.answer(example, label)

    def _page(self, fault: str = "") -> str:
        with self._lock:
            rows = {row.id: row for row in self._rows}
            last = rows[self._answered[-1]] if self._answered else None
        row = next((row for row in rows.values() if row.label is None), None)
        if row is None:
            body = "<h1>Done</h1><p>Every input has its label. You may close this page.</p>"
        else:
            hidden = f'<input type="hidden" name="id" value="{_quoted(row.id)}">'
            text = _quoted(row.text) if row.text.strip() else "<em>(an empty text)</em>"
            body = (
                f"<p>{self.n_left} of {len(rows)} left</p>"
                f'<blockquote dir="auto" tabindex="0">{text}</blockquote>'
                f'<form method="post">{hidden}{self._choices()}</form> '
                f'<form method="post">{hidden}{_button("skip", "1", "Later", "0")}</form>'
            )
            if last is not None:
                body += (
                    f'<p class="said">Kept: <q>{_quoted(_short(last.text))}</q> as '
                    f"<b>{_quoted(_short(last.label or ''))}</b> "
                    f'<form method="post">{_button("back", "1", "Take back", "b")}</form></p>'
                )
        said = f'<p class="bad" role="alert">{_quoted(fault)}</p>' if fault else ""
        return (
            '<!doctype html><html lang="en"><meta charset="utf-8"><title>jettison label</title>'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<style>{_STYLE}</style>{said}{body}<script>{_SCRIPT}</script></html>"
        )

    def _choices(self) -> str:
        if not self._labels:
            return '<textarea name="label" rows="3" autofocus required></textarea><button>Keep</button>'
        if len(self._labels) <= MOST_BUTTONS:
            keys = (*_KEYS, *[""] * len(self._labels))
            return "".join(
                _button("label", label, label, key) for label, key in zip(self._labels, keys, strict=False)
            )
        known = "".join(f'<option value="{_quoted(label)}">' for label in self._labels)
        return (
            '<input name="label" list="labels" autocomplete="off" autofocus required '
            f'placeholder="one of {len(self._labels)} labels: type a part of it">'
            f'<datalist id="labels">{known}</datalist><button>Keep</button>'
        )


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: socket.socket | tuple[bytes, socket.socket], client: object) -> None:
        """A connection that breaks off is no news; anything else is told."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client)


def _button(name: str, value: str, shown: str, key: str) -> str:
    hint = f' data-key="{key}"' if key else ""
    mark = f" <kbd>{key}</kbd>" if key else ""
    return f'<button name="{name}" value="{_quoted(value)}"{hint}>{_quoted(shown)}{mark}</button>'


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _quoted(text: str) -> str:
    return html.escape(text, quote=True)


def _send(request: BaseHTTPRequestHandler, status: int, text: str) -> None:
    content = text.encode()
    request.send_response(status)
    request.send_header("Content-Type", "text/html; charset=utf-8")
    request.send_header("Content-Length", str(len(content)))
    request.send_header(
        "Content-Security-Policy",
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{_SCRIPT_HASH}'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    )
    request.send_header("Referrer-Policy", "no-referrer")
    request.send_header("X-Content-Type-Options", "nosniff")
    request.send_header("Cache-Control", "no-store")
    request.end_headers()
    request.wfile.write(content)
