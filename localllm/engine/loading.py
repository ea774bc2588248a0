"""Opening a model file and a context in llama.cpp, with every refusal explained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from localllm.engine.native import forget_complaints, last_complaint, library
from localllm.errors import EngineError, InvalidModelError, LocalLLMError, UsageError
from localllm.weights.gguf import GGUFFile

DEFAULT_CTX = 4096
_F32, _F16 = 0, 1  # ggml_type
_FLASH_AUTO, _FLASH_OFF = -1, 0
_CELLS = 256  # llama.cpp rounds the tokens of each sequence up to a multiple of this


def open_model(file: GGUFFile, *, vocab_only: bool = False) -> Any:
    """llama.cpp's model of a checked file. Raises InvalidModelError with llama.cpp's own complaint."""
    if file.kind == "adapter":
        message = f"{file.path} is an adapter, not a model."
        raise InvalidModelError(message, "Name its base with --model and the adapter with --adapter.")
    lib = library()
    params = lib.llama_model_default_params()
    params.vocab_only = vocab_only
    forget_complaints()
    model = lib.llama_model_load_from_file(str(file.path).encode(), params)
    if not model:
        why = last_complaint()
        raise InvalidModelError(
            f"llama.cpp cannot load {file.path}{f' ({why})' if why else ''}.", "Fetch the file again, or another one."
        )
    return model


def open_contexts(
    model: Any,
    file: GGUFFile,
    n_ctx: int | None,
    slots: Sequence[int],
    n_threads: int,
    n_batch: int,
    *,
    exact: bool = False,
) -> tuple[list[Any], int]:
    """A context for each number of slots, and the tokens that each slot may hold. Takes the model over if it fails.

    Raises UsageError, EngineError.
    """
    lib, contexts, size = library(), [], 0
    try:
        for n_slots in slots:
            context, size = _open_context(model, file, n_ctx, n_slots, n_threads, n_batch, exact=exact)
            contexts.append(context)
    except LocalLLMError:
        for context in contexts:
            lib.llama_free(context)
        lib.llama_model_free(model)
        raise
    return contexts, size


def _open_context(
    model: Any, file: GGUFFile, n_ctx: int | None, n_slots: int, n_threads: int, n_batch: int, *, exact: bool = False
) -> tuple[Any, int]:
    """A context for `n_slots` sequences, and the tokens each may hold, which llama.cpp rounds up but we do not.

    Raises UsageError for a size beyond the model's own, EngineError when there is no room.
    """
    lib = library()
    n_ctx_train = lib.llama_model_n_ctx_train(model)
    if n_ctx is not None and not 0 < n_ctx <= n_ctx_train:
        raise UsageError(
            f"--ctx {n_ctx} is not possible: {file.path.name} was trained on up to {n_ctx_train} tokens.",
            f"Choose 1 to {n_ctx_train}.",
        )
    params = lib.llama_context_default_params()
    size = n_ctx or min(n_ctx_train, DEFAULT_CTX)
    params.n_ctx = size if n_slots == 1 else n_slots * -(-size // _CELLS) * _CELLS
    params.n_batch = params.n_ubatch = n_batch
    params.n_seq_max = n_slots
    # Keys and values of each sequence for themselves: attention then looks at one sequence only, not at all of them.
    params.kv_unified = False
    params.n_threads = params.n_threads_batch = n_threads
    params.type_k = params.type_v = _F32 if exact else _F16
    params.flash_attn_type = _FLASH_OFF if exact else _FLASH_AUTO
    params.no_perf = True
    forget_complaints()
    context = lib.llama_init_from_model(model, params)
    if not context:
        why = last_complaint()
        message = f"There is no room for a context of {params.n_ctx} tokens{f' ({why})' if why else ''}."
        raise EngineError(message, "Choose a smaller --ctx.")
    return context, size
