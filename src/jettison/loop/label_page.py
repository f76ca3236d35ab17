"""A page on loopback where a person labels one input after the other; each answer is kept at once.

Bound to 127.0.0.1 and to a token in the address, so that neither another machine nor another page in the
browser can read or answer. What the models said is not shown: it would lead the labeller.
"""

import html
import secrets
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec

from jettison.loop.labels import ToLabel, read_labelled, write_to_label

MOST_BYTES = 65_536
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a}"
    "blockquote{background:#f3f4f6;padding:1rem;border-radius:.5rem;white-space:pre-wrap;font-size:1.1rem}"
    "button{margin:.2rem;padding:.5rem .8rem;border:1px solid #888;border-radius:.4rem}"
    "button{background:#fff;font:inherit}"
    "button:focus,button:hover{background:#e6f0ff}input{font:inherit;padding:.5rem;width:60%}"
)


class LabelServer:
    """Serves one file of inputs to label."""

    def __init__(self, path: Path, labels: tuple[str, ...], *, port: int = 0) -> None:
        self._path, self._labels = path, labels
        self._rows = list(read_labelled(path))
        self._lock = threading.Lock()
        self._token = secrets.token_urlsafe(16)
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server._get(self)

            def do_POST(self) -> None:
                server._post(self)

            def log_message(self, format: str, *args: object) -> None:
                del format, args  # texts of users stay out of logs

        self._http = ThreadingHTTPServer(("127.0.0.1", port), Handler)

    @property
    def address(self) -> str:
        """Where to open it, token included."""
        return f"http://127.0.0.1:{self._http.server_address[1]}/{self._token}"

    @property
    def n_left(self) -> int:
        return sum(row.label is None for row in self._rows)

    def serve(self) -> None:
        """Serve until `close`, or until every input has its label."""
        self._http.serve_forever(poll_interval=0.1)

    def close(self) -> None:
        """Stop serving."""
        self._http.shutdown()
        self._http.server_close()

    def answer(self, example: str, label: str | None) -> bool:
        """Keep one answer, or put an input off; False where nobody asked for it, or so no label."""
        if label is not None and self._labels and label not in self._labels:
            return False
        with self._lock:
            for i, row in enumerate(self._rows):
                if row.id == example:
                    if label is None:
                        self._rows.append(self._rows.pop(i))
                    else:
                        self._rows[i] = msgspec.structs.replace(row, label=label)
                        write_to_label(self._path, self._rows)
                    return True
        return False

    def _known(self, request: BaseHTTPRequestHandler) -> bool:
        host = (request.headers.get("Host") or "").partition(":")[0]
        token = request.path.strip("/").partition("?")[0]
        return host in ("127.0.0.1", "localhost") and secrets.compare_digest(token, self._token)

    def _get(self, request: BaseHTTPRequestHandler) -> None:
        if not self._known(request):
            _send(request, 404, "nothing here")
            return
        row = next((row for row in self._rows if row.label is None), None)
        _send(request, 200, self._page(row))
        if row is None:
            threading.Thread(target=self._http.shutdown, daemon=True).start()

    def _post(self, request: BaseHTTPRequestHandler) -> None:
        length = request.headers.get("Content-Length") or ""
        if not self._known(request) or not length.isdecimal() or int(length) > MOST_BYTES:
            _send(request, 404, "nothing here")
            return
        form = urllib.parse.parse_qs(request.rfile.read(int(length)).decode("utf-8", "replace"))
        label = form.get("label", [""])[0]
        kept = self.answer(form.get("id", [""])[0], None if "skip" in form else label or None)
        request.send_response(303 if kept else 400)
        request.send_header("Location", f"/{self._token}")
        request.send_header("Content-Length", "0")
        request.end_headers()

    def _page(self, row: ToLabel | None) -> str:
        if row is None:
            body = "<h1>Done</h1><p>Every input has its label. You may close this page.</p>"
        else:
            hidden = f'<input type="hidden" name="id" value="{_quoted(row.id)}">'
            choices = "".join(
                f'<button name="label" value="{_quoted(label)}">{_quoted(label)}</button>'
                for label in self._labels
            )
            field = '<input name="label" autofocus required> <button>Keep</button>'
            body = (
                f"<p>{self.n_left} of {len(self._rows)} left</p>"
                f"<blockquote>{_quoted(row.text)}</blockquote>"
                f'<form method="post">{hidden}{choices or field}</form>'
                f'<form method="post">{hidden}<button name="skip" value="1">Later</button></form>'
            )
        return (
            '<!doctype html><html lang="en"><meta charset="utf-8"><title>jettison label</title>'
            f"<style>{_STYLE}</style>{body}</html>"
        )


def _quoted(text: str) -> str:
    return html.escape(text, quote=True)


def _send(request: BaseHTTPRequestHandler, status: int, text: str) -> None:
    content = text.encode()
    request.send_response(status)
    request.send_header("Content-Type", "text/html; charset=utf-8")
    request.send_header("Content-Length", str(len(content)))
    request.send_header(
        "Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'"
    )
    request.send_header("Cache-Control", "no-store")
    request.end_headers()
    request.wfile.write(content)
