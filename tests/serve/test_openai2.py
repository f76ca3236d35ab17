"""The 2.x line of openai's client, from an environment of its own: it cannot be installed beside 3.x.

python -m venv openai2 && openai2/bin/pip install 'openai>=2,<3'
JETTISON_OPENAI2=openai2/bin/python pytest -m slow tests/serve/test_openai2.py
"""

import json
import os
import subprocess

import pytest

from gateways import config_of, running
from releasing import make_release

PYTHON = os.environ.get("JETTISON_OPENAI2")
CLIENT = """
import json, sys, openai
client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key="none", max_retries=0, timeout=20)
asked = {"model": "fruit", "messages": [{"role": "user", "content": "pear please"}]}
chats = client.chat.completions
whole = chats.create(**asked, logprobs=True, top_logprobs=2, n=2)
with chats.stream(**asked) as stream:
    final = stream.get_final_completion()
found = {
    "version": openai.__version__,
    "models": [model.id for model in client.models.list()],
    "whole": [choice.message.content for choice in whole.choices],
    "logprob": whole.choices[0].logprobs.content[0].logprob,
    "pieces": [c.choices[0].delta.content or "" for c in chats.create(**asked, stream=True) if c.choices],
    "final": final.choices[0].message.content,
    "text": client.completions.create(model="fruit", prompt="pear").choices[0].text,
}
try:
    chats.create(model="fruit", messages=[])
except openai.BadRequestError as error:
    found["error"] = [error.code, error.request_id]
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON, reason="JETTISON_OPENAI2 names no Python with openai 2.x")
def test_the_older_client_reads_every_answer(tmp_path):
    make_release(tmp_path)
    with running(config_of(tmp_path, release=str(tmp_path / "7"))) as gateway:
        done = subprocess.run(
            [PYTHON, "-c", CLIENT, gateway.url], capture_output=True, text=True, timeout=60
        )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["version"].startswith("2.")
    assert found["models"] == ["fruit"]
    assert found["whole"] == ["pear", "pear"]
    assert found["logprob"] < 0
    assert "".join(found["pieces"]) == found["final"] == found["text"] == "pear"
    assert found["error"][0] == "invalid_request"
    assert found["error"][1].startswith("req_")
