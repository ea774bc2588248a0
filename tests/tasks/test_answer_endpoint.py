"""A server that misbehaves in every way that servers do: each request gets an answer or a reason, and only once."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from localllm.errors import EngineError, UsageError
from localllm.tasks.answer_endpoint import EndpointAnswerer
from localllm.tasks.answerer import CHAT, EMBEDDINGS, Question, Reply
from localllm.tasks.endpoint_client import ATTEMPTS, Endpoint

KEY = "sk-secret"


class Server(ThreadingHTTPServer):
    """Answers with the prompt; one that names a fault gets it as many times as it says: "busy 2 hello"."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.at_once = self.most = 0
        self.lock = threading.Lock()

    def handle_error(self, *_: Any) -> None:
        """Lost connections are what is tested."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = body["messages"][0]["content"] if self.path == CHAT else body["input"]
        with self.server.lock:
            self.server.bodies.append(body)
            self.server.keys.add(self.headers["Authorization"])
            self.server.seen[prompt] += 1
            self.server.at_once += 1
            self.server.most = max(self.server.most, self.server.at_once)
        try:
            fault, _, rest = prompt.partition(" ")
            times = rest.partition(" ")[0]
            if times.isdecimal() and self.server.seen[prompt] <= int(times):
                getattr(self, fault)()
            else:
                self.say(200, good(self.path, prompt))
        finally:
            with self.server.lock:
                self.server.at_once -= 1

    def say(self, status: int, value: Any, **headers: str) -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def busy(self) -> None:
        self.say(429, {"error": {"message": "slow down"}}, Retry_After="0")

    def later(self) -> None:
        self.say(503, b"<html>", Retry_After=formatdate(time.time() - 5, usegmt=True))

    def broken(self) -> None:
        self.say(500, {"error": {"message": f"boom {self.headers['Authorization']}"}})

    def gone(self) -> None:
        self.connection.shutdown(socket.SHUT_RDWR)

    def half(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b'{"choices": [')
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)

    def strange(self) -> None:
        self.say(200, {"hello": 1})

    def sleep(self) -> None:
        time.sleep(1.5)

    def refused(self) -> None:
        self.say(400, {"error": {"message": "no such field"}})

    def plain(self) -> None:
        self.say(404, {"error": "not here"})

    def moved(self) -> None:
        self.say(307, b"", Location=f"{self.server.url}/elsewhere")

    def key(self) -> None:
        self.say(401, {"error": {"message": "bad key"}})


def good(path: str, prompt: str) -> dict[str, Any]:
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    if path == EMBEDDINGS:
        return {"data": [{"embedding": [1.0]}], "usage": usage}
    return {"choices": [{"message": {"role": "assistant", "content": prompt.upper()}}], "usage": usage}


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def ask(server: Server) -> Callable[..., dict[str, Reply]]:
    def ask(*prompts: str, **options: Any) -> dict[str, Reply]:
        endpoint = Endpoint(server.url, **{"first_wait": 0.001, "timeout": 10.0, "key": KEY, **options})
        questions = [chat(prompt) for prompt in prompts]
        found = [(question.id, reply) for question, reply in EndpointAnswerer(endpoint).answer(questions)]
        assert sorted(prompt for prompt, _ in found) == sorted(prompts)
        return dict(found)

    return ask


def chat(prompt: str, **body: Any) -> Question:
    return Question(CHAT, {"model": "asked", "messages": [{"role": "user", "content": prompt}], **body}, prompt)


def content(reply: Reply) -> str:
    assert reply.refusal is None
    assert reply.body is not None
    return str(reply.body["choices"][0]["message"]["content"])


def test_answers_come_back_with_their_questions(ask: Any, server: Server) -> None:
    prompts = [f"prompt-{i}" for i in range(60)]
    found = ask(*prompts, parallel=4)
    assert {prompt: content(reply) for prompt, reply in found.items()} == {p: p.upper() for p in prompts}
    assert set(server.seen.values()) == {1}
    assert 1 < server.most <= 4
    assert server.keys == {f"Bearer {KEY}"}
    assert {body["model"] for body in server.bodies} == {"asked"}
    assert found["prompt-0"].tokens == (3, 2)


def test_the_model_that_was_chosen_is_asked_for(ask: Any, server: Server) -> None:
    ask("a", model="chosen", key="")
    assert server.bodies[0] == {"model": "chosen", "messages": [{"role": "user", "content": "a"}]}
    assert server.keys == {None}


@pytest.mark.parametrize("fault", ["busy", "later", "broken", "gone", "half", "strange"])
def test_what_passes_is_tried_again(ask: Any, server: Server, fault: str) -> None:
    prompt = f"{fault} 2 x"
    assert content(ask(prompt)[prompt]) == prompt.upper()
    assert server.seen[prompt] == 3


def test_what_lasts_becomes_a_refusal(ask: Any, server: Server) -> None:
    found = ask("busy 99 x", "broken 99 x", "strange 99 x", "fine")
    codes = {prompt: reply.refusal and reply.refusal.code for prompt, reply in found.items()}
    assert codes == {"busy 99 x": "http_429", "broken 99 x": "http_500", "strange 99 x": "bad_answer", "fine": None}
    assert server.seen["busy 99 x"] == ATTEMPTS
    assert found["busy 99 x"].status == 429
    assert found["busy 99 x"].refusal.message == "The server said 429: slow down"


def test_what_a_server_refuses_is_not_sent_again(ask: Any, server: Server) -> None:
    found = ask("refused 9 x", "plain 9 x", "moved 9 x")
    codes = {prompt.partition(" ")[0]: reply.refusal.code for prompt, reply in found.items()}
    assert codes == {"refused": "http_400", "plain": "http_404", "moved": "http_307"}
    assert "not here" in found["plain 9 x"].refusal.message
    assert set(server.seen.values()) == {1}


def test_the_key_appears_in_nothing_that_comes_back(ask: Any) -> None:
    reply = ask("broken 99 x")["broken 99 x"]
    assert "boom" in str(reply.body)
    assert KEY not in repr(reply)
    assert KEY not in repr(Endpoint("http://a", key=KEY))


def test_a_server_that_takes_too_long_is_asked_again(ask: Any, server: Server) -> None:
    assert content(ask("sleep 1 x", timeout=0.3)["sleep 1 x"]) == "SLEEP 1 X"
    assert server.seen["sleep 1 x"] == 2


def test_a_key_that_is_refused_ends_everything(ask: Any, server: Server) -> None:
    with pytest.raises(EngineError, match=r"refuses the key \(401\)") as caught:
        ask(*(f"key 99 {i}" for i in range(50)), parallel=2)
    assert KEY not in str(caught.value)
    assert len(server.seen) < 10


def test_no_server_at_all_ends_everything_soon() -> None:
    with socket.socket() as held:  # bound, but nobody listens
        held.bind(("127.0.0.1", 0))
        answerer = EndpointAnswerer(Endpoint(f"http://127.0.0.1:{held.getsockname()[1]}/v1", first_wait=0.001))
        found = []
        with pytest.raises(EngineError, match="does not answer") as caught:
            found.extend(answerer.answer(chat(str(i)) for i in range(1000)))
    assert "Start the server" in caught.value.hint


def test_stopping_waits_for_nothing(server: Server) -> None:
    cancel = threading.Event()
    answerer = EndpointAnswerer(Endpoint(server.url, parallel=2))
    questions = [chat("a"), *(chat(f"sleep 9 {i}") for i in range(9))]
    found = []
    for question, _ in answerer.answer(questions, cancel):
        found.append(question.id)
        cancel.set()
    assert found == ["a"]
    assert len(server.seen) <= 4


def test_a_stream_is_refused_and_embeddings_are_passed_on(server: Server) -> None:
    answerer = EndpointAnswerer(Endpoint(f"{server.url}/v1/"))
    questions = [chat("a", stream=True), Question(EMBEDDINGS, {"model": "m", "input": "b"}, "e")]
    found = {question.id: reply for question, reply in answerer.answer(questions)}
    assert found["a"].refusal is not None
    assert '"stream"' in found["a"].refusal.message
    assert found["e"].body is not None
    assert found["e"].body["data"] == [{"embedding": [1.0]}]
    # The same one may be asked again.
    assert [content(reply) for _, reply in answerer.answer([chat("broken 1 b")])] == ["BROKEN 1 B"]


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://a", "http://", "http://a/v1?x=1", "http://me:secret@a/v1"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(UsageError):
        Endpoint(url)
