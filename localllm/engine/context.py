"""The scheduler's backend over a llama.cpp context: one stream of keys and values for each slot."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localllm.engine.adapters import AdapterSet
from localllm.engine.backend import Group, Part, Status
from localllm.engine.native import library
from localllm.engine.sampling import Sampler

_STATUS: dict[int, Status] = {0: "done", 1: "full", 2: "aborted"}


class Context:
    """Owns a llama.cpp context. A new one holds nothing."""

    def __init__(self, model: Any, context: Any, adapters: AdapterSet, n_batch: int) -> None:
        self._llama = lib = library()
        self.pointer = context
        self._memory = lib.llama_get_memory(context)
        self._adapters = adapters
        self._attached: Group = ()
        self._batch = _Batch(n_batch)
        self._outputs = Outputs(context, lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model)))
        self.can_trim = not (lib.llama_model_is_recurrent(model) or lib.llama_model_is_hybrid(model))
        # llama.cpp asks after every operation of the graph, a thousand times for a token: too often for a Python
        # function. `strlen` of a buffer is 0, false, until a byte is written into it.
        self._flag = ctypes.create_string_buffer(2)
        self._strlen = ctypes.cast(ctypes.CDLL(None).strlen, lib.ggml_abort_callback)
        lib.llama_set_abort_callback(context, self._strlen, ctypes.addressof(self._flag))

    def decode(self, parts: Sequence[Part]) -> Status:
        """See `Backend`: "failed" is any status of llama.cpp that has no meaning of its own."""
        rows = self._batch.fill(parts)
        self._outputs.forget()
        status = _STATUS.get(self._llama.llama_decode(self.pointer, self._batch.native), "failed")
        if status == "done":
            self._outputs.rows = rows
        return status

    def choose(self, sampler: Sampler, row: int) -> int:
        return sampler.sample(self._outputs, row)

    def length(self, slot: int) -> int:
        return int(self._llama.llama_memory_seq_pos_max(self._memory, slot)) + 1

    def trim(self, slot: int, keep: int) -> bool:
        if keep and self._llama.llama_memory_seq_rm(self._memory, slot, keep, -1):
            return True
        self._llama.llama_memory_seq_rm(self._memory, slot, -1, -1)
        return keep == 0

    def copy(self, source: int, target: int, keep: int) -> None:
        # Between streams llama.cpp copies everything, when it decodes next.
        self._llama.llama_memory_seq_cp(self._memory, source, target, -1, -1)
        self._llama.llama_memory_seq_rm(self._memory, target, keep, -1)

    def attach(self, group: Group) -> None:
        if group != self._attached:
            self._adapters.attach(self.pointer, group)
            self._attached = group

    def use_threads(self, n: int) -> None:
        """From the next batch on."""
        self._llama.llama_set_n_threads(self.pointer, n, n)

    def interrupt(self, on: bool) -> None:
        self._flag[0] = b"1" if on else b"\0"

    def all_logits(self, slot: int, start: int, tokens: Sequence[int]) -> tuple[Status, NDArray[np.float32]]:
        """Logits [n_tokens, n_vocab] of every one of the tokens that follow `start` held ones; valid until the next."""
        status = self.decode([Part(slot, start, tokens, len(tokens))])
        return status, self._outputs.table(len(tokens)) if status == "done" else np.empty((0, 0), np.float32)

    def close(self) -> None:
        self._llama.llama_free(self.pointer)


class Outputs:
    """The logits of the last batch: of the tokens for which they were asked."""

    def __init__(self, context: Any, n_vocab: int) -> None:
        self._llama = library()
        self.context, self.n_vocab = context, n_vocab
        self.rows: dict[int, int] = {}
        """From an index in the batch to the row of its logits."""
        self._table: NDArray[np.float32] | None = None
        self._address = 0
        self._fresh = False

    def forget(self) -> None:
        """The table is that of the last batch no longer."""
        self.rows, self._fresh = {}, False

    def row(self, index: int) -> NDArray[np.float32]:
        """Logits [n_vocab] of the batch's token with that index; they may be changed."""
        row: NDArray[np.float32] = self.table(len(self.rows))[self.rows[index]]
        return row

    def table(self, n_rows: int) -> NDArray[np.float32]:
        """Logits [n_rows, n_vocab] of the whole batch."""
        if self._table is None or not self._fresh:
            # Asking is what makes llama.cpp bring the rows in order.
            source = self._llama.llama_get_logits(self.context)
            address = ctypes.cast(source, ctypes.c_void_p).value or 0
            if self._table is None or address != self._address or len(self._table) != n_rows:
                self._table, self._address = np.ctypeslib.as_array(source, (n_rows, self.n_vocab)), address
            self._fresh = True
        return self._table


class _Batch:
    """A llama_batch whose arrays are NumPy's, so that filling it takes no Python step for each token."""

    def __init__(self, size: int) -> None:
        lib = library()
        self._tokens, self._positions, self._slots = (np.zeros(size, np.int32) for _ in range(3))
        self._one = np.ones(size, np.int32)
        self._logits = np.zeros(size, np.int8)
        # Token i belongs to one sequence: the number at _slots[i].
        addresses = self._slots.ctypes.data + self._slots.itemsize * np.arange(size, dtype=np.uintp)
        self._sequences = addresses.astype(np.uintp)
        types = dict(lib.llama_batch._fields_)
        self.native = lib.llama_batch(
            n_tokens=0,
            token=self._tokens.ctypes.data_as(types["token"]),
            pos=self._positions.ctypes.data_as(types["pos"]),
            n_seq_id=self._one.ctypes.data_as(types["n_seq_id"]),
            seq_id=ctypes.cast(self._sequences.ctypes.data, types["seq_id"]),
            logits=self._logits.ctypes.data_as(types["logits"]),
        )

    def fill(self, parts: Sequence[Part]) -> dict[int, int]:
        """Take the parts in; the row of the logits of each token that has any, by its index."""
        at = 0
        rows: dict[int, int] = {}
        for part in parts:
            end = at + len(part.tokens)
            self._tokens[at:end] = part.tokens
            self._positions[at:end] = np.arange(part.start, part.start + end - at)
            self._slots[at:end] = part.slot
            self._logits[at:end] = 0
            if part.rows:
                self._logits[end - part.rows : end] = 1
                rows.update({index: len(rows) + i for i, index in enumerate(range(end - part.rows, end))})
            at = end
        self.native.n_tokens = at
        return rows
