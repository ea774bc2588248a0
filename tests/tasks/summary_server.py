"""A server of OpenAI's API to which every character is a token, and which never takes more than its context."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.tasks.test_answer_endpoint import KEY

FRAME = len("<user><assistant>")


class SummaryServer(ThreadingHTTPServer):
    """Answers with what `answer` makes of a prompt. `kind` is whose ways it has: llama-server's, vLLM's or nobody's."""

    daemon_threads = True

    def __init__(self, answer: Callable[[str], str], kind: str = "llama", n_ctx: int = 600) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer, self.kind, self.n_ctx = answer, kind, n_ctx
        self.models = ["chars"]
        self.asked: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.delay = 0.0
        self.cuts = 0
        """Characters of a prompt that it reads; 0 for all."""
        self.says_usage = True
        self.refuses = "\0"
        """What makes a prompt one that it refuses."""
        self.dead = False

    def handle_error(self, *_: Any) -> None:
        """Lost connections are what is tested."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def serving(answer: Callable[[str], str], kind: str = "llama", n_ctx: int = 600) -> Iterator[SummaryServer]:
    server = SummaryServer(answer, kind, n_ctx)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


class Handler(BaseHTTPRequestHandler):
    server: SummaryServer

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        entries: list[dict[str, Any]] = [{"id": name} for name in self.server.models]
        if self.path == "/v1/models":
            for entry in entries:
                if self.server.kind == "vllm":
                    entry["max_model_len"] = self.server.n_ctx
            return self.say(200, {"data": entries})
        if self.path == "/props" and self.server.kind == "llama":
            return self.say(200, {"default_generation_settings": {"n_ctx": self.server.n_ctx}})
        self.say(404, {"error": {"message": "not here"}})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.server.dead:
            return self.connection.shutdown(socket.SHUT_RDWR)
        if self.headers["Authorization"] not in (None, f"Bearer {KEY}"):
            return self.say(401, {"error": {"message": "bad key"}})
        if self.path == "/v1/chat/completions":
            return self.complete(body)
        text = body.get({"llama": "content", "vllm": "prompt"}.get(self.server.kind, ""))
        if self.path == "/tokenize" and self.server.kind != "plain":
            tokens = [ord(c) for c in text or ""]
            return self.say(200, {"tokens": tokens, "count": len(tokens)})
        self.say(404, {"error": {"message": "not here"}})

    def complete(self, body: dict[str, Any]) -> None:
        prompt = body["messages"][0]["content"]
        self.server.asked.append(prompt)
        self.server.bodies.append(body)
        needed = FRAME + len(prompt)
        if needed + body["max_tokens"] > self.server.n_ctx and not self.server.cuts:
            return self.say(400, {"error": {"message": f"{needed} tokens do not fit"}})
        if self.server.refuses in prompt or ("response_format" in body and self.server.refuses == "schema"):
            return self.say(400, {"error": {"message": "no, not that"}})
        time.sleep(self.server.delay)
        text = self.server.answer(f"<user>{prompt}<assistant>")[: body["max_tokens"]]
        read = min(needed, self.server.cuts or needed)
        usage = {"prompt_tokens": read, "completion_tokens": len(text)} if self.server.says_usage else None
        reason = "length" if len(text) == body["max_tokens"] else "stop"
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": reason}
        self.say(200, {"choices": [choice], "usage": usage})

    def say(self, status: int, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
