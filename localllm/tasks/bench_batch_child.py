"""llama-cpp-python's answers to some prompts, one after the other; any interpreter that has it can run this.

    PYTHON bench_batch_child.py JOB.json

JOB.json: "model", "prompts", "max_tokens", "n_ctx", "threads", and "barred", tokens that an answer must not have.
Writes one JSON line. Only the standard library is imported before it is known whether llama-cpp-python is there.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from typing import Any

MISSING = "missing"


def answer(job: dict[str, Any]) -> dict[str, Any]:
    """Chat completions as the package's users write them."""
    llama_cpp = importlib.import_module("llama_cpp")
    threads = job["threads"]
    model = llama_cpp.Llama(job["model"], n_ctx=job["n_ctx"], n_threads=threads, n_threads_batch=threads, verbose=False)
    barred = dict.fromkeys(job["barred"], -100)
    used: list[dict[str, int]] = []
    started = time.perf_counter()
    for prompt in job["prompts"]:
        reply = model.create_chat_completion(
            [{"role": "user", "content": prompt}], max_tokens=job["max_tokens"], temperature=0, logit_bias=barred
        )
        used.append(reply["usage"])
    return {
        "seconds": time.perf_counter() - started,
        "prompt_tokens": sum(usage["prompt_tokens"] for usage in used),
        "output_tokens": sum(usage["completion_tokens"] for usage in used),
        "version": llama_cpp.__version__,
    }


def main(path: str) -> int:
    """Answer, and say how long it took, or what is not installed."""
    with open(path, encoding="utf-8") as file:
        job = json.load(file)
    try:
        result = answer(job)
    except ImportError as error:
        result = {MISSING: error.name or str(error)}
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [folder for folder in sys.path if os.path.abspath(folder) != here]  # its neighbours are no modules
    raise SystemExit(main(*sys.argv[1:]))
