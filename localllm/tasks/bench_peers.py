"""The other programs of `bench batch`: llama.cpp's server and its own benchmark, and llama-cpp-python."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

from localllm.errors import LocalLLMError, UsageError
from localllm.tasks.answer_endpoint import EndpointAnswerer
from localllm.tasks.answerer import CHAT, Question
from localllm.tasks.bench_batch_child import MISSING
from localllm.tasks.bench_import import Absent
from localllm.tasks.bench_work import Work
from localllm.tasks.endpoint_client import Endpoint

START_SECONDS = 120.0
"""For a server to load the model."""
_STOP_SECONDS = 10.0
_ROW = re.compile(r'\{"n_kv_max".*?\}')


@dataclass(frozen=True)
class Answered:
    """All prompts of a work."""

    seconds: float
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True)
class Rates:
    """Tokens a second of batches alone."""

    prefill: float
    decode: float


class _FailedError(Exception):
    """A program that could not be measured, and why."""


@dataclass(frozen=True)
class Peers:
    """Where the other programs are. What cannot be measured is an `Absent` that says why."""

    model: Path
    binaries: Path | None = None
    """Holds llama-server and llama-batched-bench, and the libraries that they need."""
    interpreter: Path | None = None
    """A Python with llama-cpp-python; this one by default."""

    def server(
        self, program: str, work: Work, slots: int, threads: int, fields: Mapping[str, Any]
    ) -> Answered | Absent:
        """llama-server with flash attention and so many slots, each with the work's context.

        `fields` are added to the body of each request. As with ours, some requests wait for a slot.
        """
        command = [
            "-m", str(self.model), "-t", str(threads), "-np", str(slots), "-c", str(work.n_ctx * slots), "-fa", "on",
        ]  # fmt: skip
        try:
            with self._serving(command) as url:
                return _ask(url, work, 2 * slots, fields)
        except _FailedError as error:
            return _absent(program, error)

    def batched_bench(self, program: str, work: Work, slots: int, threads: int) -> Rates | Absent:
        """llama-batched-bench on as many sequences as ours has slots, as long as the work's prompts are on average."""
        prompt = round(sum(work.tokens) / len(work.tokens))
        slots = min(slots, len(work.tokens))
        size = slots * -(-(prompt + work.max_tokens) // 256) * 256
        arguments = [
            "-m", str(self.model), "-t", str(threads), "-fa", "on", "-c", str(size), "-npp", str(prompt),
            "-ntg", str(work.max_tokens), "-npl", str(slots), "--output-format", "jsonl",
        ]  # fmt: skip
        try:
            said = self._output([str(self._binary("llama-batched-bench")), *arguments])
            # What it logs may stand before, on the same line.
            rows = [json.loads(found[0]) for line in said if (found := _ROW.search(line))]
            return Rates(rows[-1]["speed_pp"], rows[-1]["speed_tg"])
        except (ValueError, KeyError, IndexError, TypeError) as error:
            return _absent(program, _FailedError(f"its output is not understood ({error!r})"))
        except _FailedError as error:
            return _absent(program, error)

    def python(self, program: str, work: Work, threads: int) -> Answered | Absent:
        """llama-cpp-python's high-level interface in a process of its own, one prompt after the other."""
        interpreter = str(self.interpreter or sys.executable)
        script = str(Path(__file__).with_name("bench_batch_child.py"))
        with TemporaryDirectory(prefix="localllm-bench-") as folder:
            path = Path(folder) / "job.json"
            job = {
                "model": str(self.model), "prompts": work.prompts, "max_tokens": work.max_tokens, "n_ctx": work.n_ctx,
                "barred": work.barred, "threads": threads,
            }  # fmt: skip
            path.write_text(json.dumps(job), "utf-8")
            try:
                said = [json.loads(line) for line in self._output([interpreter, script, str(path)]) if line[:1] == "{"]
                if MISSING in said[-1]:
                    raise _FailedError(f"{said[-1][MISSING]} is not installed for {interpreter}")
                return Answered(said[-1]["seconds"], said[-1]["prompt_tokens"], said[-1]["output_tokens"])
            except (ValueError, KeyError, IndexError, TypeError) as error:
                return _absent(program, _FailedError(f"its output is not understood ({error!r})"))
            except _FailedError as error:
                return _absent(program, error)

    def _binary(self, name: str) -> Path:
        if self.binaries is None:
            raise _FailedError("no folder with llama.cpp's programs was named")
        path = self.binaries.resolve() / name
        if not path.is_file():
            raise _FailedError(f"{self.binaries} holds no {name}")
        return path

    def _environment(self) -> dict[str, str]:
        """With the libraries beside the programs."""
        if self.binaries is None:
            return dict(os.environ)
        before = os.environ.get("LD_LIBRARY_PATH")
        return os.environ | {"LD_LIBRARY_PATH": os.pathsep.join(filter(None, (str(self.binaries.resolve()), before)))}

    def _output(self, command: list[str]) -> list[str]:
        """The lines that a program writes to both streams. Raises _FailedError with its last words."""
        with TemporaryFile() as out:  # unlike a pipe, a file is never full
            try:
                child = subprocess.Popen(command, env=self._environment(), stdout=out, stderr=subprocess.STDOUT)
            except OSError as error:
                raise UsageError(f"{command[0]} cannot be started: {error.strerror}.", "Check the path.") from error
            try:
                code = child.wait()
            except BaseException:
                child.kill()
                child.wait()
                raise
            lines = _lines(out)
        if code:
            raise _FailedError(lines[-1] if lines else f"it ended with code {code}")
        return lines

    @contextmanager
    def _serving(self, arguments: list[str]) -> Iterator[str]:
        """llama-server's address while it runs. Raises _FailedError where it does not come up."""
        port = _free_port()
        command = [str(self._binary("llama-server")), *arguments, "--host", "127.0.0.1", "--port", str(port)]
        with TemporaryFile() as out:
            try:
                child = subprocess.Popen(command, env=self._environment(), stdout=out, stderr=subprocess.STDOUT)
            except OSError as error:
                raise _FailedError(f"it cannot be started: {error.strerror}") from error
            try:
                url = f"http://127.0.0.1:{port}"
                if not _comes_up(child, url):
                    lines = _lines(out)
                    raise _FailedError(lines[-1] if lines else "it did not come up")
                yield url
            finally:
                child.terminate()
                try:
                    child.wait(_STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()


def _ask(url: str, work: Work, parallel: int, fields: Mapping[str, Any]) -> Answered:
    """Raises _FailedError for the first prompt that is not answered."""
    common = {
        "max_tokens": work.max_tokens,
        "temperature": 0,
        "logit_bias": [[token, False] for token in work.barred],
        **fields,
    }
    questions = [
        Question(CHAT, {"messages": [{"role": "user", "content": prompt}], **common}, str(number))
        for number, prompt in enumerate(work.prompts)
    ]
    answerer = EndpointAnswerer(Endpoint(url, parallel=parallel))
    prompt_tokens = output_tokens = 0
    started = time.perf_counter()
    try:
        for _, reply in answerer.answer(questions):
            if reply.refusal:
                raise _FailedError(reply.refusal.message)
            prompt, output = reply.tokens
            prompt_tokens, output_tokens = prompt_tokens + prompt, output_tokens + output
    except LocalLLMError as error:
        raise _FailedError(error.message) from error
    return Answered(time.perf_counter() - started, prompt_tokens, output_tokens)


def _comes_up(child: subprocess.Popen[bytes], url: str) -> bool:
    end = time.monotonic() + START_SECONDS
    while child.poll() is None and time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return True
        except (OSError, urllib.error.URLError):
            time.sleep(0.05)
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _lines(file: Any) -> list[str]:
    file.seek(0)
    return [line for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]


def _absent(program: str, error: _FailedError) -> Absent:
    return Absent(program, str(error).rstrip("."), "Name the folder with --peer-bin, or the Python with --peer")
