"""Labels answered on the page that the command serves."""

import http.client
import signal
import socket
import subprocess
import sys
import threading
import urllib.parse
import urllib.request

import msgspec
import pytest

from jettison.candidate import write_candidate
from jettison.cli.main import main
from jettison.errors import InvalidInput
from jettison.loop.label_page import LabelServer
from jettison.loop.labels import (
    choose_labels,
    read_labelled,
    write_to_label,
)
from jettison.task import Example
from label_traffic import LABELS, binary, traffic
from task_writing import write_task


class TestPage:
    @pytest.fixture
    def server(self, tmp_path):
        examples = traffic(6)
        rows = choose_labels(
            [*examples[:-1], Example(id="t5", input="<script>alert(1)</script>", expected="buy")],
            binary(examples, [True] * 6),
            binary(examples, [True] * 6),
            budget=6,
        )
        path = tmp_path / "labels.jsonl"
        write_to_label(path, rows)
        server = LabelServer(path, LABELS)
        thread = threading.Thread(target=server.serve)
        thread.start()
        yield server, path
        server.close()
        thread.join()

    def ask(self, server, method, path, form=None, host=None):
        port = int(server.address.split(":")[2].split("/")[0])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        if host:
            headers["Host"] = host
        body = None if form is None else urllib.parse.urlencode(form)
        connection.request(method, path, body, headers)
        reply = connection.getresponse()
        text = reply.read().decode()
        connection.close()
        return reply.status, text

    def test_it_shows_one_text_after_the_other_and_keeps_each_answer_at_once(self, server):
        server, path = server
        token = "/" + server.address.rsplit("/", 1)[1]
        for left in range(6, 0, -1):
            status, text = self.ask(server, "GET", token)
            assert status == 200
            assert f"{left} of 6 left" in text
            assert "<script>alert" not in text
            assert text.count("<script>") == 1  # the page's own, which its policy names by its hash
            example = text.split('name="id" value="')[1].split('"')[0]
            assert self.ask(server, "POST", token, {"id": example, "label": "sell"})[0] == 303
            assert sum(row.label == "sell" for row in read_labelled(path)) == 7 - left
        assert "Done" in self.ask(server, "GET", token)[1]

    def test_nobody_without_the_token_or_from_another_host_gets_in(self, server):
        server, path = server
        token = "/" + server.address.rsplit("/", 1)[1]
        assert self.ask(server, "GET", "/")[0] == 404
        assert self.ask(server, "GET", token, host="evil.example")[0] == 404
        assert self.ask(server, "POST", "/x", {"id": "t0", "label": "buy"})[0] == 404
        assert self.ask(server, "POST", token, {"id": "t0", "label": "hold"})[0] == 400
        assert all(row.label is None for row in read_labelled(path))

    def test_an_input_put_off_comes_last(self, server):
        server, _ = server
        token = "/" + server.address.rsplit("/", 1)[1]
        first = self.ask(server, "GET", token)[1].split('name="id" value="')[1].split('"')[0]
        assert self.ask(server, "POST", token, {"id": first, "skip": "1"})[0] == 303
        assert f'value="{first}"' not in self.ask(server, "GET", token)[1]

    def test_an_answer_can_be_taken_back(self, server):
        server, path = server
        token = "/" + server.address.rsplit("/", 1)[1]
        first = self.shown(server, token)
        self.ask(server, "POST", token, {"id": first, "label": "sell"})
        assert self.shown(server, token) != first
        assert self.ask(server, "POST", token, {"back": "1"})[0] == 303
        assert self.shown(server, token) == first
        assert all(row.label is None for row in read_labelled(path))
        assert self.ask(server, "POST", token, {"back": "1"})[0] == 400  # nothing is left to take back

    def test_an_answer_that_cannot_be_written_is_asked_again_and_says_why(self, server):
        server, path = server
        token = "/" + server.address.rsplit("/", 1)[1]
        first = self.shown(server, token)
        path.rename(path.with_suffix(".kept"))
        path.mkdir()  # nothing can be written there, as on a full disk
        status, text = self.ask(server, "POST", token, {"id": first, "label": "sell"})
        assert status == 507
        assert "Nothing was kept: " in text
        assert "6 of 6 left" in text
        assert server.n_left == 6
        path.rmdir()
        path.with_suffix(".kept").rename(path)
        assert self.shown(server, token) == first
        assert self.ask(server, "POST", token, {"id": first, "label": "sell"})[0] == 303
        assert sum(row.label == "sell" for row in read_labelled(path)) == 1

    def test_requests_that_are_none_change_nothing_and_leave_no_trace(self, server, capsys):
        server, path = server
        token = "/" + server.address.rsplit("/", 1)[1]
        status, text = self.ask(server, "POST", token, {"id": "t0", "label": "hold"})
        assert status == 400
        assert "none of the labels" in text
        assert "left" in text  # the page again, to answer on
        assert self.ask(server, "POST", token, {"id": "t0"})[0] == 400
        assert self.ask(server, "POST", token, {"id": "t0", "label": "buy" * 30_000})[0] == 413
        assert (
            self.raw(server, f"GET /{token[1:-1]}\xe9 HTTP/1.0\r\nHost: localhost\r\n\r\n")[9:12] == "404"
        )
        digits = "9" * 5000
        asked = f"POST {token} HTTP/1.0\r\nHost: localhost\r\nContent-Length: {digits}\r\n\r\n"
        assert self.raw(server, asked)[9:12] == "404"
        assert all(row.label is None for row in read_labelled(path))
        assert capsys.readouterr() == ("", "")

    def raw(self, server, request):
        port = int(server.address.split(":")[2].split("/")[0])
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(request.encode("latin-1"))
            return connection.recv(4096).decode("latin-1")

    def shown(self, server, token):
        return self.ask(server, "GET", token)[1].split('name="id" value="')[1].split('"')[0]


def test_many_labels_are_typed_and_few_have_keys(tmp_path):
    examples = traffic(6)
    path = tmp_path / "labels.jsonl"
    rows = choose_labels(examples, binary(examples, [True] * 6), binary(examples, [True] * 6), budget=6)
    write_to_label(path, rows)

    def page(labels):
        server = LabelServer(path, labels)
        server._http.server_close()
        return server._page()

    few = page(LABELS)
    assert 'value="buy" data-key="1"' in few
    assert 'value="sell" data-key="2"' in few
    assert 'name="viewport"' in few
    many = page(tuple(f"intent {i}" for i in range(150)))
    assert '<option value="intent 149">' in many
    assert "<button name=" not in many.split("</form>")[0]
    assert "<textarea" in page(())


def test_a_port_that_is_taken_is_said(tmp_path):
    examples = traffic(6)
    path = tmp_path / "labels.jsonl"
    rows = choose_labels(examples, binary(examples, [True] * 6), binary(examples, [True] * 6), budget=6)
    write_to_label(path, rows)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InvalidInput, match=r"a port must be free, got \d+"):
            LabelServer(path, LABELS, port=taken.getsockname()[1])


def test_json_stands_alone_on_stdout_while_the_page_is_served(tmp_path):
    path = write_task(tmp_path, unlabelled=[{"text": f"please buy {i * 7919}"} for i in range(60)])
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_candidate(tmp_path / name, name=name, backend="fake", labels=LABELS)
    out = tmp_path / "to.jsonl"
    asked = f"label {path} {tmp_path}/a {tmp_path}/b --budget 4 --output {out} --json --serve"
    with subprocess.Popen(
        [sys.executable, "-m", "jettison.cli", *asked.split()],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # Whoever runs the tests in the background may ignore it, and children would too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as served:  # fmt: skip
        try:
            at = next(line for line in served.stderr if line.startswith("label at "))
            with urllib.request.urlopen(at.split()[2], timeout=5) as page:
                assert b"4 of 4 left" in page.read()
            served.send_signal(signal.SIGINT)
            said, rest = served.communicate(timeout=20)
        finally:
            served.kill()
    assert "http://127.0.0.1:" in at
    assert "4 inputs have no label yet" in rest
    assert msgspec.json.decode(said)["n_to_label"] == 4
    assert served.returncode == 0


def test_ctrl_c_before_the_page_is_served_ends_the_command(tmp_path, capsys, monkeypatch):
    path = write_task(tmp_path)
    examples = traffic(6)
    out = tmp_path / "to.jsonl"
    rights = binary(examples, [True] * 6)
    write_to_label(out, choose_labels(examples, rights, rights, budget=6))

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("socketserver.BaseServer.serve_forever", interrupted)

    def command():
        with pytest.raises(SystemExit):
            main(f"label {path} --serve --output {out}".split())

    thread = threading.Thread(target=command, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    assert "6 inputs have no label yet" in capsys.readouterr().out
