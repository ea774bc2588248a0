"""Entry point: parse, run the command, turn every failure into one sentence and an exit code.

Exit codes: 0 done, 1 failed, 2 usage, 3 some items of a batch failed, 130 interrupted.
"""

from __future__ import annotations

import argparse
import keyword
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

from localllm.errors import LocalLLMError

COMMANDS = {
    "chat": "chat in the terminal (what plain `localllm` does)",
    "chats": "conversations of the terminal app: list, search, export, import",
    "ask": "one answer on standard output",
    "data": "check a dataset, and show which of its tokens are learned",
    "finetune": "teach a model from a small file",
    "evaluate": "what an adapter changed: better or not, and what it forgot",
    "fit": "how much memory chatting with a model, or teaching it, takes",
    "verify": "prove that an adapter does in llama.cpp what it did in MLX",
    "import": "make an adapter from elsewhere one of ours",
    "export": "take an adapter elsewhere: gguf, peft, mlx, merged or ollama",
    "summarize": "summarize whole documents, in batch",
    "batch": "answer a file of requests, in OpenAI's batch format",
    "pull": "fetch a model from the hub, in a size that fits",
    "list": "models and adapters on this machine",
    "show": "everything about one model or adapter",
    "rm": "remove a model or an adapter",
    "prune": "remove what interrupted work has left behind",
    "du": "how much of the disk models and adapters take",
    "bench": "how fast things are on this machine, beside other programs",
    "doctor": "what this machine has and what it lacks",
    "help": "the handbook: look a topic or a question up",
}
EPILOG = """examples:
  localllm                                         chat with the built-in model
  localllm ask "Who are you?"                      one answer
  localllm pull qwen3-0.6b                         fetch a larger one; then: localllm chat qwen3-0.6b
  localllm finetune tickets.jsonl --name tickets   teach it; then: localllm ask --adapter tickets "..."
  localllm summarize notes/ --out summaries.jsonl  every .txt and .md file below notes/

`localllm COMMAND --help` has each command's options; `localllm help QUESTION` looks a question up."""


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """The parser for one command, with the others known by name and one line; None declares all of them."""
    parser = argparse.ArgumentParser(
        prog="localllm",
        description="Chat with a 4-bit model on this machine, teach it from a small file, summarize documents.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name, line in COMMANDS.items():
        sub = commands.add_parser(
            name,
            help=line,
            description=f"{line[0].upper()}{line[1:]}.",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        if command in (name, None):
            _module(name).add(sub)
            sub.add_argument("--debug", action="store_true", help="show the full traceback of an error")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    try:
        code = _run(arguments)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return _fail("Interrupted.", 130)
    except BrokenPipeError:
        # The reader (`| head`) has had enough; keep Python from complaining about it on exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (LocalLLMError, OSError, MemoryError) as e:
        if debug:
            raise
        return _explain(e)


def _run(arguments: list[str]) -> int:
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help", "--version")):
        arguments.insert(0, "chat")
    args = build_parser(arguments[0] if arguments[0] in COMMANDS else "").parse_args(arguments)
    if args.version:
        import localllm

        print(f"localllm {localllm.__version__}")
        return 0
    code: int = _module(args.command).run(args)
    return code


def _module(command: str) -> ModuleType:
    """The command's file, which has an underscore more where Python keeps the name for itself."""
    return import_module(f"localllm.cli.commands.{command}{'_' * keyword.iskeyword(command)}")


def _explain(error: LocalLLMError | OSError | MemoryError) -> int:
    if isinstance(error, LocalLLMError):
        return _fail(str(error), error.exit_code)
    if isinstance(error, MemoryError):
        return _fail("There is not enough memory. Choose a smaller model or --ctx.", 1)
    what = f"{error.filename or 'The system'}: {error.strerror or error}"
    return _fail(f"{what}. Check the path, permissions and free space.", 1)


def _fail(message: str, code: int) -> int:
    from localllm.sanitize import sanitize_line

    print(f"localllm: {sanitize_line(message)}", file=sys.stderr)
    return code
