"""The llama.cpp library itself: started once, quiet, its last complaints kept for error messages."""

from __future__ import annotations

import ctypes
import functools
from collections import deque
from collections.abc import Callable
from types import ModuleType
from typing import Any

_GGML_LOG_WARN = 3  # ggml.h, enum ggml_log_level
_GGML_LOG_CONT = 5
_complaints: deque[str] = deque(maxlen=8)
_listeners: list[Callable[[str], object]] = []
_keep_alive: list[Any] = []  # a collected ctypes callback is a segmentation fault


@functools.cache
def library() -> ModuleType:
    """The llama_cpp module with its back end initialized. Imported on first use: it takes 0.4 s."""
    import llama_cpp

    callback = llama_cpp.llama_log_callback(_on_log)
    _keep_alive.append(callback)
    llama_cpp.llama_log_set(callback, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    return llama_cpp


def _on_log(level: int, text: bytes, _user_data: Any) -> None:
    line = text.decode("utf-8", "replace").strip()
    if line and level >= _GGML_LOG_WARN and level != _GGML_LOG_CONT:
        _complaints.append(line)
        for listener in _listeners:
            listener(line)


def pass_on_complaints(listener: Callable[[str], object]) -> None:
    """Call it with each complaint as well, at once: what is only remembered here is lost when the process dies."""
    _listeners.append(listener)


def forget_complaints() -> None:
    """Call before a native operation whose failure is to be explained."""
    _complaints.clear()


def last_complaint() -> str:
    """What llama.cpp said last that was a warning or worse, without its function name; empty if nothing."""
    if not _complaints:
        return ""
    # The first complaint names the cause; later ones ("failed to load model") only pass it on.
    line = next((c for c in _complaints if "error" in c.lower() or "fail" in c.lower()), _complaints[-1])
    return line.split(": ", 1)[-1].rstrip(".")


def system_info() -> str:
    """The CPU and GPU features llama.cpp was built with and found."""
    info: bytes = library().llama_print_system_info()
    return info.decode()
