"""Chat templates: the Jinja program inside a model file that writes a conversation out as one text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from localllm.errors import TemplateError, UsageError
from localllm.types import Message

MAX_SECONDS = 2.0
NAMED = {
    "chatml": (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "llama3": (
        "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
        "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
        "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
    ),
    "gemma": (
        "{{ bos_token }}{% for m in messages %}<start_of_turn>"
        "{{ 'model' if m['role'] == 'assistant' else 'user' }}\n{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"
        "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
    ),
    "plain": (
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ m['content'] }}\n\n{% else %}"
        "{{ 'User' if m['role'] == 'user' else 'Assistant' }}: {{ m['content'] }}\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}Assistant:{% endif %}"
    ),
}
"""Templates that can be asked for by name, for files that hold none."""
_USE_NAMED = f"Choose another with --template NAME ({', '.join(NAMED)}), which summarize calls --chat-template."


def named_template(name: str) -> str:
    """Source of one of our own templates. Raises UsageError with the names there are."""
    if name not in NAMED:
        raise UsageError(f"There is no template named {name!r}.", f"There are: {', '.join(NAMED)}.")
    return NAMED[name]


def no_template(path: Path) -> TemplateError:
    """The error for a chat with a file that can only continue text."""
    return TemplateError(
        f"{path.name} holds no chat template, so it can only continue text.",
        f"Use `localllm ask` for that, or choose a template with --template NAME ({', '.join(NAMED)}), which summarize "
        "calls --chat-template.",
    )


class ChatTemplate:
    """A compiled chat template, run in the sandbox with bounds on its time and on what it writes."""

    def __init__(self, source: str, bos_token: str = "", eos_token: str = "") -> None:
        """Raises TemplateError when the template does not compile."""
        import jinja2

        from localllm.engine.sandbox import FILENAME, BoundedEnvironment

        self._values = {"bos_token": bos_token, "eos_token": eos_token, "tools": None}
        try:
            environment = BoundedEnvironment()
            code = environment.compile(source, filename=FILENAME)
            self._template = jinja2.Template.from_code(environment, code, environment.make_globals(None))
        except (jinja2.TemplateError, RecursionError, ValueError, OverflowError) as e:
            raise TemplateError(f"The model's chat template does not compile ({e}).", _USE_NAMED) from e

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = True, tools: str = "") -> str:
        """The conversation as text, control tokens written out; `tools` is a JSON list of functions.

        Raises TemplateError, also for a runaway template.
        """
        import jinja2

        from localllm.engine.sandbox import BoundError

        turns = [{"role": m.role, "content": m.content, **(json.loads(m.extra) if m.extra else {})} for m in messages]
        values = {**self._values, "messages": turns, "add_generation_prompt": add_generation_prompt}
        try:
            return self._run(values | ({"tools": json.loads(tools)} if tools else {}))
        except (BoundError, RecursionError, MemoryError) as e:
            raise TemplateError(f"The chat template was stopped: {e or type(e).__name__}.", _USE_NAMED) from e
        except jinja2.TemplateError as e:
            raise TemplateError(f"The chat template refused this conversation ({e}).", _USE_NAMED) from e
        except Exception as e:  # a template can raise whatever Python raises
            raise TemplateError(f"The chat template failed ({type(e).__name__}: {e}).", _USE_NAMED) from e

    def _run(self, values: dict[str, object]) -> str:
        from localllm.engine.sandbox import MAX_TEXT, BoundError, deadline

        pieces: list[str] = []
        size = 0
        with deadline(MAX_SECONDS):
            for piece in self._template.generate(values):
                pieces.append(piece)
                size += len(piece)
                if size > MAX_TEXT:
                    raise BoundError("it writes more than 16 million characters")
        return "".join(pieces)
