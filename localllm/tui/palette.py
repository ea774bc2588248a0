"""What the command palette offers: every action that works here and now, with its key."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

from textual.app import App, SystemCommand
from textual.binding import Binding
from textual.dom import DOMNode
from textual.screen import Screen

from localllm.tui.keymap import ACTIONS, Action, spoken


def commands(app: App[None], screen: Screen[object], keys: Mapping[str, str]) -> Iterator[SystemCommand]:
    """The actions of what has the focus, of what it stands in, of the screen, and those that work everywhere.

    `keys` are those in force, by the actions' ids. A dialog has the last word: of what is below it nothing is offered.
    """
    offered: set[str] = set()
    for node in _nodes(screen):
        for binding in _bindings(node):
            if binding.id in ACTIONS:
                found = _command(node, ACTIONS[binding.id], keys)
            elif isinstance(node, Screen) and binding.show and binding.description:
                run = partial(_run, app, binding.action, node)
                found = SystemCommand(binding.description, spoken(binding.key), run)
            else:
                continue
            if found is not None and found.title not in offered:
                offered.add(found.title)
                yield found
    for action in ACTIONS.values():
        if action.place == "app" and (found := _command(app, action, keys)) is not None:
            yield found


def _nodes(screen: Screen[object]) -> Iterator[DOMNode]:
    inside = screen.focused.ancestors_with_self if screen.focused is not None else [screen]
    for node in inside:
        if isinstance(node, App):
            return
        yield node


def _bindings(node: DOMNode) -> list[Binding]:
    """Of a node, each once though it may have several keys."""
    found = {binding.id or binding.action: binding for _, binding in node._bindings}
    return list(found.values())


def _command(node: DOMNode, action: Action, keys: Mapping[str, str]) -> SystemCommand | None:
    run: Callable[[], object] | None = getattr(node, f"action_{action.method}", None)
    # What a screen does not offer now is not in the palette either.
    if not action.palette or run is None or node.check_action(action.method, ()) is False:
        return None
    key = spoken(keys[action.id].split(",")[0])
    return SystemCommand(action.name, f"{action.what} · {key}" if key else action.what, run)


async def _run(app: App[None], action: str, node: DOMNode) -> None:
    await app.run_action(action, node)
