"""The gateway under curl, as anyone tries it first."""

import json
import shutil
import subprocess

import pytest

from gateways import config_of, running
from releasing import make_release

CURL = shutil.which("curl")


@pytest.mark.slow
@pytest.mark.skipif(CURL is None, reason="curl is not installed")
def test_curl_asks_streams_and_reads_errors(tmp_path):
    release = str(make_release(tmp_path).path)
    chat = {"model": "fruit", "messages": [{"role": "user", "content": "pear please"}]}
    with running(config_of(tmp_path, release=release)) as gateway:

        def curl(path, body=None, *options):
            data = [] if body is None else ["--json", body if isinstance(body, str) else json.dumps(body)]
            command = [CURL, "-sS", "-m", "20", "-w", "\n%{http_code}", *options, *data]
            done = subprocess.run(
                [*command, gateway.url + path], capture_output=True, text=True, check=True
            )
            text, status = done.stdout.rsplit("\n", 1)
            return int(status), text

        status, text = curl("/v1/chat/completions", chat)
        assert (status, json.loads(text)["choices"][0]["message"]["content"]) == (200, "pear")
        status, text = curl("/v1/chat/completions", {**chat, "stream": True}, "-N")
        assert (status, text.rstrip().endswith("data: [DONE]")) == (200, True)
        status, text = curl("/v1/models")
        assert (status, json.loads(text)["data"][0]["id"]) == (200, "fruit")
        status, text = curl("/v1/chat/completions", "{no json")
        assert (status, json.loads(text)["error"]["code"]) == (400, "invalid_json")
        big = json.dumps({**chat, "messages": [{"role": "user", "content": "x" * 2_000_000}]})
        # curl announces a long body first (`expect: 100-continue`) and waits to be told to send it.
        (tmp_path / "big.json").write_text(big)
        status, _ = curl("/v1/chat/completions", f"@{tmp_path / 'big.json'}", "-H", "expect: 100-continue")
        assert status == 200
        status, text = curl("/v1/nothing", None, "--http1.0")
        assert (status, "error" in json.loads(text)) == (404, True)
        assert curl("/health/ready")[0] == 200
        assert "jettison_" in curl("/metrics")[1]
