"""Sampling settings -> a llama.cpp sampler.

The order is llama.cpp's own (common/sampling.cpp): logit bias, penalties, top-k, top-p, min-p, temperature, draw. A
grammar is checked on the chosen token first and applied to the whole vocabulary only when that token breaks it.
"""

from __future__ import annotations

import ctypes
import json
import math
from typing import TYPE_CHECKING, Any

from localllm.engine.native import forget_complaints, last_complaint, library
from localllm.engine.vocab import Vocab
from localllm.errors import GrammarError, UsageError
from localllm.types import Sampling

if TYPE_CHECKING:
    from localllm.engine.context import Outputs


def validate(sampling: Sampling) -> None:
    """Raises UsageError for a value that has no meaning."""
    checks = (
        (sampling.temperature >= 0, "temperature must be 0 or more"),
        (sampling.top_k >= 0, "top-k must be 0 (off) or more"),
        (0 < sampling.top_p <= 1, "top-p must be above 0 and at most 1"),
        (0 <= sampling.min_p < 1, "min-p must be 0 or more and below 1"),
        (sampling.repeat_penalty > 0, "repeat-penalty must be above 0"),
        (sampling.max_tokens is None or sampling.max_tokens > 0, "max-tokens must be 1 or more"),
        (not (sampling.grammar and sampling.json_schema), "a grammar and a JSON schema cannot be used together"),
        (all(math.isfinite(v) for v in (sampling.temperature, sampling.repeat_penalty)), "settings must be finite"),
    )
    for fine, complaint in checks:
        if not fine:
            raise UsageError(f"{complaint[0].upper()}{complaint[1:]}.", "Correct the option.")


class Sampler:
    """Chooses tokens for one request; holds native memory until closed."""

    def __init__(self, sampling: Sampling, vocab: Vocab) -> None:
        """Raises UsageError for a meaningless setting, GrammarError for a grammar that does not compile."""
        validate(sampling)
        self._llama = library()
        self._vocab = vocab
        self._grammar = self._make_grammar(sampling)
        self._chain = self._make_chain(sampling)
        self._bias = _summed(sampling.logit_bias)
        self.greedy = sampling.temperature == 0 and self._grammar is None and not _penalizes(sampling)
        """Whether the choice depends on nothing but the logits: the largest one, after the bias."""

    def sample(self, outputs: Outputs, index: int) -> int:
        """Choose from the logits of the batch's token with that index, and remember the choice."""
        if self.greedy:
            # What the chain does, without its table of the whole vocabulary.
            row = outputs.row(index)
            for token, bias in self._bias:
                row[token] += bias
            return int(row.argmax())
        if self._grammar is None:
            return int(self._llama.llama_sampler_sample(self._chain, outputs.context, index))
        token = self._sample_with_grammar(outputs, index)
        self._llama.llama_sampler_accept(self._grammar, token)
        self._llama.llama_sampler_accept(self._chain, token)
        return token

    def close(self) -> None:
        """Free the native samplers; safe to call twice."""
        for sampler in (self._chain, self._grammar):
            if sampler is not None:
                self._llama.llama_sampler_free(sampler)
        self._chain = self._grammar = None

    def _make_chain(self, s: Sampling) -> Any:
        lib, n_vocab = self._llama, self._vocab.size
        chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        if s.logit_bias:
            entries = [lib.llama_logit_bias(token, bias) for token, bias in s.logit_bias]
            array = (lib.llama_logit_bias * len(entries))(*entries)
            lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_logit_bias(n_vocab, len(entries), array))
        if _penalizes(s):
            penalties = (s.penalty_last_n, s.repeat_penalty, s.frequency_penalty, s.presence_penalty)
            lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_penalties(n_vocab, *penalties))
        if s.temperature == 0:
            lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_greedy())
            return chain
        if s.top_k:
            lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_top_k(s.top_k))
        if s.top_p < 1:
            lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_top_p(s.top_p, 1))
        if s.min_p:
            lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_min_p(s.min_p, 1))
        lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_temp(s.temperature))
        lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_dist(s.seed & 0xFFFFFFFF))
        return chain

    def _make_grammar(self, s: Sampling) -> Any:
        text = s.grammar
        if s.json_schema is not None:
            text = _schema_grammar(s.json_schema)
        if text is None:
            return None
        forget_complaints()
        grammar = self._llama.llama_sampler_init_grammar(self._vocab.pointer, text.encode(), b"root")
        if not grammar:
            why = last_complaint()
            message = f"The grammar does not compile{f' ({why})' if why else ''}."
            raise GrammarError(message, "It must be GBNF and define `root`.")
        return grammar

    def _sample_with_grammar(self, outputs: Outputs, index: int) -> int:
        lib = self._llama
        candidates = self._candidates(outputs, index)
        lib.llama_sampler_apply(self._chain, ctypes.byref(candidates))
        token = int(candidates.data[candidates.selected].id)
        single = (lib.llama_token_data * 1)(lib.llama_token_data(token, 1.0, 0.0))
        lib.llama_sampler_apply(self._grammar, ctypes.byref(lib.llama_token_data_array(single, 1, -1, False)))
        if single[0].logit != -math.inf:
            return token
        candidates = self._candidates(outputs, index)
        lib.llama_sampler_apply(self._grammar, ctypes.byref(candidates))
        lib.llama_sampler_apply(self._chain, ctypes.byref(candidates))
        return int(candidates.data[candidates.selected].id)

    def _candidates(self, outputs: Outputs, index: int) -> Any:
        """All tokens with their logits, as llama.cpp's array, which keeps its data alive."""
        import numpy as np

        layout = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
        table = np.zeros(self._vocab.size, layout)
        table["id"] = np.arange(self._vocab.size)
        table["logit"] = outputs.row(index)
        data = table.ctypes.data_as(ctypes.POINTER(self._llama.llama_token_data))
        array = self._llama.llama_token_data_array(data, self._vocab.size, -1, False)
        array.keep_alive = table
        return array


def _penalizes(s: Sampling) -> bool:
    return s.repeat_penalty != 1 or bool(s.presence_penalty or s.frequency_penalty)


def _summed(bias: tuple[tuple[int, float], ...]) -> list[tuple[int, float]]:
    """The bias of each token once."""
    totals: dict[int, float] = {}
    for token, value in bias:
        totals[token] = totals.get(token, 0.0) + value
    return list(totals.items())


_IN_STRINGS, _ALLOWED = r'[^"\\]', r'[^"\\\x7F\x00-\x1F]'
"""What llama-cpp-python's grammars let stand in a string, and what JSON does (RFC 8259, section 7)."""


def _schema_grammar(schema: str) -> str:
    try:
        json.loads(schema)
    except ValueError as e:
        raise GrammarError(f"The JSON schema is not valid JSON ({e}).", "Correct the schema file.") from e
    from llama_cpp.llama_grammar import json_schema_to_gbnf

    try:
        return str(json_schema_to_gbnf(schema)).replace(_IN_STRINGS, _ALLOWED)
    except Exception as e:  # the converter raises whatever it stumbles over
        raise GrammarError(f"The JSON schema cannot be used ({e}).", "Use a simpler schema.") from e
