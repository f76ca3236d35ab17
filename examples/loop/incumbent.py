"""The model a team runs today, behind an OpenAI-compatible address: any folder that jettison opens.

python incumbent.py FOLDER --port-file FILE
"""

import argparse
import json
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from socketserver import ThreadingMixIn

from jettison import Candidate, open_model


class Server(ThreadingMixIn, HTTPServer):
    daemon_threads = True
    request_queue_size = 128


class Answer(BaseHTTPRequestHandler):
    """`/v1/chat/completions`: the label of the last message."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body in one write

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        # jettison asks "Answer with one of these labels: ... Text: ... Label:", users ask the text alone.
        text = body["messages"][-1]["content"].rpartition("Text: ")[2].removesuffix("\nLabel:")
        label = self.server.model.predict([text])[0].label
        said = {
            "id": "chat-1",
            "object": "chat.completion",
            "model": "large",
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": label}, "finish_reason": "stop"}
            ],
            "usage": {
                "prompt_tokens": len(text) // 4 + 30,
                "completion_tokens": 2,
                "total_tokens": len(text) // 4 + 32,
            },
        }
        self.reply(said)

    def do_GET(self) -> None:
        self.reply({"object": "list", "data": [{"id": "large", "object": "model"}]})

    def reply(self, content: object) -> None:
        raw = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port-file", type=Path, required=True)
    given = parser.parse_args()
    server = Server(("127.0.0.1", 0), Answer)
    server.model = open_model(Candidate.at(given.folder))
    partial = given.port_file.with_suffix(".partial")
    partial.write_text(str(server.server_port))
    partial.rename(given.port_file)
    server.serve_forever()
