"""Every action of the app in one table: its keys, its name in the palette, and what it does.

Bindings, the command palette, the help screen and the footer are made from it. A person's own `keys.toml`, in the
program's home, replaces keys by the same ids:

    "chat.new" = "ctrl+n"
    "app.theme" = "f2,ctrl+b"
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from textual.binding import Binding, BindingType

from localllm.errors import UsageError

KEYS_FILE = "keys.toml"


@dataclass(frozen=True)
class Action:
    """Something that a person can do. `id` is PLACE.NAME; the place's screen or widget has `action_NAME`."""

    id: str
    keys: str
    """Separated by commas; empty where only the palette has it."""
    name: str
    what: str = ""
    footer: str = ""
    """A short name for the footer; empty to leave it out there."""
    palette: bool = True

    @property
    def place(self) -> str:
        return self.id.partition(".")[0]

    @property
    def method(self) -> str:
        return self.id.partition(".")[2]


_TABLE = (
    Action("app.help", "f1", "Help", "keys and commands", "Help"),
    Action("app.theme", "f2", "Theme", "dark, light or high contrast", ""),
    Action("app.finetune", "f6", "Fine-tune", "teach a model from a file of rows"),
    Action("app.batch", "f7", "Batch", "summarize documents"),
    Action("app.models", "f9", "Models", "find, download and delete them"),
    Action("app.quit", "ctrl+q", "Quit", "leave; everything is saved", "Quit"),
    Action("chat.stop", "escape", "Stop", "the reply is kept so far", "Stop"),
    Action("chat.new", "ctrl+n,ctrl+l", "New conversation", "begin another; this one is kept", "New"),
    Action("chat.conversations", "f3", "Conversations", "the list; search all text", "Chats"),
    Action("chat.settings", "f4", "Settings", "sampling, prompt, schema", "Settings"),
    Action("chat.context", "f5", "Context", "how full, and what to leave out"),
    Action("chat.compare", "f8", "Compare", "base and adapter side by side"),
    Action("chat.model", "ctrl+o", "Model", "go on with another model"),
    Action("chat.handbook", "", "Handbook on or off", "look questions up in it before the model is asked"),
    Action("chat.entries", "", "Read the handbook", "the entries that the last reply is from"),
    Action("chat.adapter", "ctrl+t", "Adapter", "switch the adapter on or off", "Adapter"),
    Action("chat.again", "ctrl+r", "Regenerate", "write the reply again; both are kept"),
    Action("chat.go_on", "ctrl+g", "Continue", "with a reply that was cut"),
    Action("chat.edit_last", "", "Edit last message", "change it and branch there"),
    Action("chat.copy", "", "Copy last reply", "to the clipboard, as Markdown"),
    Action("chat.copy_code", "", "Copy code", "a code block of the last reply"),
    Action("chat.messages", "ctrl+up", "Messages", "up into them: copy, edit, branch", ""),
    Action("chat.export", "", "Export conversation", "to a Markdown or JSON file"),
    Action("chat.rename", "", "Rename conversation", "give it another title"),
    Action("chat.pin", "", "Pin or unpin conversation", "keep it at the top of the list"),
    Action("chat.delete", "", "Delete conversation", "it can be brought back for 30 days"),
    Action("chat.undo", "", "Undo delete", "bring the conversation deleted last back"),
    Action("chat.scroll_up", "pageup", "Scroll up", "", palette=False),
    Action("chat.scroll_down", "pagedown", "Scroll down", "", palette=False),
    Action("prompt.send", "enter", "Send", "send the message", palette=False),
    Action("prompt.newline", "ctrl+j,shift+enter,alt+enter", "New line", "in the message", palette=False),
    Action("message.copy", "c", "Copy message", "copy this message", "Copy"),
    Action("message.copy_code", "x", "Copy code of message", "copy a code block of it", "Code"),
    Action("message.edit", "e", "Edit message", "change it and branch there", "Edit"),
    Action("message.again", "r", "Regenerate this reply", "write this reply again", "Again"),
    Action("message.go_on", "g", "Continue this reply", "go on with a cut reply", "Go on"),
    Action("message.previous", "left,h", "Branch before", "show the branch before", "◂"),
    Action("message.next", "right,l", "Branch after", "show the branch after", "▸"),
    Action("message.unfold", "space,enter", "Unfold", "thinking, or a long message", "Unfold"),
    Action("message.links", "o", "Links", "addresses in it, to open or copy"),
    Action("message.up", "up,k", "Message above", "", palette=False),
    Action("message.down", "down,j", "Message below", "", palette=False),
    Action("message.leave", "escape", "Back", "to the input", "Back", palette=False),
    Action("list.rename", "r", "Rename in the list", "give the conversation another title", "Rename"),
    Action("list.pin", "p", "Pin in the list", "keep it at the top, or no longer", "Pin"),
    Action("list.delete", "d,delete", "Delete in the list", "it can be brought back", "Delete"),
    Action("list.undo", "u", "Undo", "bring back what was deleted last", "Undo"),
    Action("list.export", "e", "Export in the list", "to a Markdown or JSON file", "Export"),
    Action("list.leave", "escape", "Back", "to the input", "Back", palette=False),
    Action("finetune.leave", "escape", "Chat", "back to it; a run goes on", "Chat"),
    Action("finetune.start", "ctrl+s", "Start", "train with what the form says", "Start"),
    Action("finetune.check", "f5", "Check", "the data, the settings and the memory", "Check"),
    Action("finetune.pause", "p", "Pause", "stop with everything saved; the memory is free meanwhile", "Pause"),
    Action("finetune.go_on", "g", "Go on", "with a run that is paused", "Go on"),
    Action("finetune.keep_best", "b", "Stop, keep best", "end the run with the best so far", "Stop, keep best"),
    Action("finetune.discard", "d", "Discard", "the run and all its steps", "Discard"),
    Action("finetune.chat", "c", "Chat with it", "the adapter that was made", "Chat with it"),
    Action("finetune.new", "n", "New run", "back to the form", "New run"),
    Action("batch.leave", "escape", "Chat", "back to it; a batch goes on", "Chat"),
    Action("batch.start", "ctrl+s", "Start", "summarize what the form says", "Start"),
    Action("batch.look", "f5", "Look", "at what will be read", "Look"),
    Action("batch.open", "ctrl+r", "Open results", "the summaries that lie in the output", "Open results"),
    Action("batch.stop", "s", "Stop", "summaries that are written stay", "Stop"),
    Action("batch.go_on", "g", "Go on", "where the batch was left", "Go on"),
    Action("batch.new", "n", "New batch", "back to the form", "New batch"),
    Action("models.leave", "escape", "Chat", "back to it; a download goes on", "Chat"),
    Action("models.search", "slash", "Search", "models here, the catalog, and owner/repo on the hub", "Search"),
    Action("models.chat", "c", "Chat with it", "switch the chat to this model", "Chat with it"),
    Action("models.get", "g", "Download", "choose a quantization, and fetch it", "Download"),
    Action("models.stop", "s", "Stop", "the download; what has arrived is kept", "Stop"),
    Action("models.go_on", "r", "Go on", "with the download that was left", "Go on"),
    Action("models.drop", "x", "Dismiss", "speak no more of the download", "Dismiss"),
    Action("models.delete", "d,delete", "Delete", "this model; what would break is said first", "Delete"),
    Action("models.forget", "f", "Forget folder", "look there no longer; nothing is deleted", "Forget"),
    Action("models.add", "a", "Add folder", "look for models there too"),
    Action("models.hash", "h", "Hash", "compute the SHA-256 of its file"),
    Action("models.refresh", "f5", "Refresh", "read the lists again"),
)
ACTIONS: dict[str, Action] = {action.id: action for action in _TABLE}
KEYS: dict[str, str] = {action.id: action.keys for action in _TABLE}
_SCREENS = ("finetune", "batch", "models")
_TOGETHER = ({"app", "chat", "prompt"}, {"app", "message"}, {"app", "list"}, *({"app", place} for place in _SCREENS))
"""Places whose keys are in force at the same time."""


def bind(action_id: str, *, show: bool | None = None, priority: bool = False) -> Binding:
    """The binding of an action."""
    action = ACTIONS[action_id]
    shown = bool(action.footer) if show is None else show
    keys = action.keys or f"ctrl+f24+{action.method}"  # a key that nobody has, for the person's own to take its place
    return Binding(keys, action.method, action.footer or action.name, show=shown, priority=priority, id=action_id)


def bindings(place: str, *, priority: bool = False) -> list[BindingType]:
    """The bindings of all actions of a place."""
    return [bind(action.id, priority=priority) for action in _TABLE if action.place == place]


def load_keys(home: Path) -> dict[str, str]:
    """The person's own keys, by id; none without a file.

    Raises UsageError for a file that cannot be read, an id that does not exist, and keys that are taken twice.
    """
    path = home / KEYS_FILE
    if not path.is_file():
        return {}
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise UsageError(f"{path} cannot be read: {error}.", "Correct the file or remove it.") from error
    for name, keys in table.items():
        if name not in ACTIONS:
            near = get_close_matches(name, ACTIONS, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(ACTIONS)}."
            raise UsageError(f"{path} has keys for {name!r}, which is no action.", hint)
        if not isinstance(keys, str):
            raise UsageError(f'The keys of {name} in {path} must be text, as in "ctrl+n,f10".')
    _refuse_clashes(KEYS | table, path)
    return table


def _refuse_clashes(keys: Mapping[str, str], path: Path) -> None:
    for places in _TOGETHER:
        taken: dict[str, str] = {}
        for name, line in keys.items():
            for key in filter(None, (key.strip() for key in line.split(","))):
                if ACTIONS[name].place in places and taken.setdefault(key, name) != name:
                    raise UsageError(f"{path} gives {key} to both {taken[key]} and {name}.", "Choose another for one.")


def spoken(keys: str) -> str:
    """Keys as a person reads them: `Ctrl+N, Ctrl+L`."""
    return ", ".join("+".join(part.capitalize() for part in key.split("+")) for key in keys.split(",") if key)
