"""Every failure that a person can meet.

    LocalLLMError                 message + hint, exit code 1
    ├── UsageError                the command line or a setting is wrong (exit code 2)
    ├── ModelError                about a model file
    │   ├── ModelNotFoundError        no such name or path
    │   ├── InvalidModelError         not a GGUF, truncated, malformed, or without weights
    │   ├── UnsupportedModelError     valid, but this program cannot do that with it
    │   └── NoRoomError               the machine's memory does not hold it
    ├── AdapterError              about an adapter
    │   ├── AdapterNotFoundError      no such name or path
    │   └── AdapterMismatchError      made for another base, or shapes that do not fit
    ├── EngineError               llama.cpp refused or failed
    │   ├── ContextOverflowError      the prompt does not fit the context
    │   ├── TemplateError             no chat template, or one that fails or runs away
    │   ├── GrammarError              a grammar or JSON schema that does not compile
    │   └── EngineCrashedError        the process in which llama.cpp runs has died
    ├── DataError                 a dataset or document that cannot be read; carries path and line
    ├── TrainingError             training failed or diverged
    ├── VerificationError         an adapter does not do in llama.cpp what it did in MLX
    ├── HubError                  the hub, or the way to it
    │   ├── UnreachableError          no network, offline mode, or an answer that does not come
    │   ├── RemoteNotFoundError       no such repository, revision or file
    │   ├── AccessError               gated, private, or a token that is not accepted
    │   ├── TransferError             a download that broke off; what has arrived is kept
    │   └── IntegrityError            what arrived is not what the hub says it is; it is deleted
    ├── StorageError              disk full, no permission, a lock that is held
    └── CancelledError            the person stopped it (exit code 130)

The front ends draw `message` and `hint`; nothing below them prints. Exceptions of other libraries are translated to one
of these where the library is called.
"""

from __future__ import annotations

from pathlib import Path


class LocalLLMError(Exception):
    """A failure with one sentence of what happened and one of what to do next."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class UsageError(LocalLLMError):
    """The command line or a setting is wrong."""

    exit_code = 2


class ModelError(LocalLLMError):
    """Something about a model file."""


class ModelNotFoundError(ModelError):
    """No model has that name and no file that path."""


class InvalidModelError(ModelError):
    """The file is not a GGUF, is truncated or malformed, or holds no weights."""


class UnsupportedModelError(ModelError):
    """The file is valid, but what was asked for cannot be done with it."""


class NoRoomError(ModelError):
    """The model with its context would take more memory than there is; nothing was loaded."""


class AdapterError(LocalLLMError):
    """Something about an adapter."""


class AdapterNotFoundError(AdapterError):
    """No adapter has that name and no file that path."""


class AdapterMismatchError(AdapterError):
    """The adapter was made for another base model, or its tensors do not fit this one."""


class EngineError(LocalLLMError):
    """llama.cpp refused the work or failed in it."""


class ContextOverflowError(EngineError):
    """The prompt needs more tokens than the context has; both counts are kept."""

    def __init__(self, needed: int, available: int, what: str = "The prompt", hint: str = "") -> None:
        over = needed - available
        super().__init__(
            f"{what} needs {needed} tokens but the context holds {available}: {over} too many.",
            hint or "Raise it with --ctx N, shorten the text, or use `localllm summarize` for whole documents.",
        )
        self.needed = needed
        self.available = available


class TemplateError(EngineError):
    """The file has no chat template, or rendering it failed or ran past its bounds."""


class GrammarError(EngineError):
    """A GBNF grammar or JSON schema that llama.cpp cannot compile."""


class EngineCrashedError(EngineError):
    """The process in which llama.cpp runs has died: of a crash in native code, or killed by the system."""


class DataError(LocalLLMError):
    """A dataset or document that cannot be read, with the place where reading stopped."""

    def __init__(self, message: str, hint: str = "", *, path: Path | None = None, line: int | None = None) -> None:
        where = f"{path}, line {line}: " if path and line else f"{path}: " if path else ""
        super().__init__(where + message, hint)
        self.path = path
        self.line = line


class TrainingError(LocalLLMError):
    """Training failed or diverged."""


class VerificationError(LocalLLMError):
    """The adapter does not do in llama.cpp what it did in MLX."""


class HubError(LocalLLMError):
    """Something about the hub, or the way to it."""


class UnreachableError(HubError):
    """There is no network, offline mode is on, or the hub does not answer."""


class RemoteNotFoundError(HubError):
    """The hub has no such repository, revision or file."""


class AccessError(HubError):
    """The repository is gated or private, or the token is not accepted."""


class TransferError(HubError):
    """A download broke off; what has arrived is kept, and the next one goes on from there."""


class IntegrityError(HubError):
    """What arrived is not what the hub says it is; it has been deleted."""


class StorageError(LocalLLMError):
    """The disk is full, a folder is not writable, or somebody else holds a lock."""


class CancelledError(LocalLLMError):
    """The person stopped the work; whatever had been finished is kept."""

    exit_code = 130
