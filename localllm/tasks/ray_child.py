"""The child of ray_nodes.py: `python -m localllm.tasks.ray_child` does one round of work through Ray Data.

It reads what to do from its input and writes results to its output, a line of JSON each, as they come. It is a process
of its own because Ray keeps threads and a connection that cannot be had anew once a machine was lost; with the process
ends all that it began on the cluster.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NoReturn

from localllm import children
from localllm.errors import LocalLLMError

_CONNECT_SECONDS = 20.0
_TICK = 1.0  # seconds between signs of life
_PATIENCE = 30.0
"""Seconds without a result after which a round that has lost a machine is over, however fast the others were."""
_PLACES_SECONDS, _PLACE_SECONDS = 60.0, 2.0
"""How long to wait for a place on each machine, and how long for an answer to asking once."""
_CLAIM = 0.1
"""Processors that a worker claims: so few that it has a place on a machine that does something else besides."""
_LONGEST_REASON = 300

Worker = Callable[[Sequence[str]], list[str]]


class Spread:
    """What Ray Data starts on each machine. Nothing is raised here: what Ray raises is Ray's own failure."""

    def __init__(self, function: str, arguments: dict[str, Any]) -> None:
        self._error: list[str] | None = None
        module, _, name = function.partition(":")
        try:
            self._worker: Worker = getattr(import_module(module), name)(**arguments)
        except Exception as error:
            self._error = _told(error)

    def __call__(self, batch: Any) -> Any:
        """A table of items to one of results."""
        numbers, results = batch["number"].to_pylist(), [""] * batch.num_rows
        if self._error is None:
            try:
                results = self._worker(batch["item"].to_pylist())
            except Exception as error:
                self._error = _told(error)
        errors = [json.dumps(self._error) if self._error else ""] * len(numbers)
        return import_module("pyarrow").table({"number": numbers, "result": results, "error": errors})


class Child:
    """One round."""

    def __init__(self, out: int) -> None:
        self._out = out
        self._ray: Any = import_module("ray")
        self._data: Any = import_module("ray.data")
        self._found: queue.SimpleQueue[list[dict[str, Any]] | BaseException | None] = queue.SimpleQueue()

    def run(self, order: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        late = threading.Timer(_CONNECT_SECONDS, self._no_answer)  # Ray itself waits for minutes
        late.start()
        try:
            self._ray.init(address=order["address"], log_to_driver=False, logging_level=logging.CRITICAL)
        except (ConnectionError, RuntimeError, ValueError) as error:
            return self._say({"no_cluster": _reason(error)})
        finally:
            late.cancel()
        context = self._data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        machines = self._alive()
        results = self._begin(order, rows)
        threading.Thread(target=self._collect, args=(results,), daemon=True).start()
        self._pass_on(len(rows), machines)

    def _no_answer(self) -> NoReturn:
        self._say({"no_cluster": f"no answer within {_CONNECT_SECONDS:g} s"})
        os._exit(1)

    def _begin(self, order: dict[str, Any], rows: list[dict[str, Any]]) -> Any:
        """Ray Data's plan for the rows; it begins when its results are asked for."""
        pieces = -(-len(rows) // order["piece"])
        workers, places = self._places(pieces)
        return self._data.from_items(rows, override_num_blocks=pieces).map_batches(
            Spread,
            fn_constructor_args=(order["function"], order["arguments"]),
            batch_size=None,
            batch_format="pyarrow",
            compute=self._data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=2),
            num_cpus=_CLAIM,
            scheduling_strategy=places,
            max_restarts=0,  # another worker on a machine that has one would take twice the memory
        )

    def _places(self, most: int) -> tuple[int, Any]:
        """How many machines have a place for a worker, at most so many, and Ray's word for these places."""
        groups = import_module("ray.util.placement_group")
        strategies = import_module("ray.util.scheduling_strategies")
        end = time.monotonic() + _PLACES_SECONDS
        while time.monotonic() < end:
            self._say({})
            workers = max(1, min(len(self._alive()), most))
            group = groups.placement_group([{"CPU": _CLAIM}] * workers, strategy="STRICT_SPREAD")
            if group.wait(_PLACE_SECONDS):
                return workers, strategies.PlacementGroupSchedulingStrategy(group)
            groups.remove_placement_group(group)  # and look again how many machines there are
        self._fail("it has no free processor on each of its machines")

    def _collect(self, results: Any) -> None:
        try:
            for table in results.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                self._found.put(table.to_pylist())
        except BaseException as error:
            self._found.put(error)
        else:
            self._found.put(None)

    def _pass_on(self, missing: int, machines: set[str]) -> None:
        last, longest = time.monotonic(), 0.0
        while missing:
            try:
                found = self._found.get(timeout=_TICK)
            except queue.Empty:
                self._say({})
                if time.monotonic() - last > max(_PATIENCE, 3 * longest) and not machines <= self._alive():
                    self._fail("a machine was lost, and nothing comes any more")
                continue
            if found is None:
                self._fail("it ended without all results")
            if isinstance(found, BaseException):
                self._fail(_reason(found))
            for row in found:
                error = json.loads(row["error"]) if row["error"] else None
                self._say({"number": row["number"], "result": row["result"], "error": error})
            missing -= len(found)
            longest, last = max(longest, time.monotonic() - last), time.monotonic()

    def _alive(self) -> set[str]:
        """Machines that have processors to work with."""
        found = self._ray.nodes()
        return {node["NodeID"] for node in found if node["Alive"] and node["Resources"].get("CPU", 0) > 0}

    def _fail(self, reason: str) -> NoReturn:
        """At once: what is left of the round may never end."""
        self._say({"failed": reason})
        os._exit(1)

    def _say(self, message: dict[str, Any]) -> None:
        say(self._out, message)


def say(out: int, message: dict[str, Any]) -> None:
    """Write a line for the parent."""
    rest = memoryview(json.dumps(message).encode() + b"\n")
    while rest:
        rest = rest[os.write(out, rest) :]


def _told(error: Exception) -> list[str]:
    """What went wrong on a machine, and a hint."""
    if isinstance(error, LocalLLMError):
        return [f"{socket.gethostname()}: {error.message}", error.hint]
    return [f"{socket.gethostname()}: {type(error).__name__}: {_reason(error)}.", "Please report this."]


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:_LONGEST_REASON].rstrip(".")


def main() -> None:
    """Do what the input says, up to an empty line; end when it ends."""
    out = os.dup(1)
    os.dup2(2, 1)  # what Ray prints is no message
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    lines = iter(sys.stdin.readline, "\n")
    order = json.loads(next(lines))
    rows = [json.loads(line) for line in lines]
    children.end_with_parent(1)
    # Ray sends objects by the name of their class, which on the other machines is not that of this program.
    this = import_module("localllm.tasks.ray_child")
    try:
        this.Child(out).run(order, rows)
    except Exception as error:  # of Ray's, or in loading it
        this.say(out, {"failed": f"{type(error).__name__}: {_reason(error)}"})
    os._exit(0)  # without waiting for Ray's threads


if __name__ == "__main__":
    main()
