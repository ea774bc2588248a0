"""The slash commands of the chat screen: most are its actions by another name."""

from __future__ import annotations

from functools import partial

from localllm.tui.screens.chat_settings import ChatSettingsActions
from localllm.tui.widgets.transcript import Transcript


class ChatCommands(ChatSettingsActions):
    """`run_command` finds the action of a name, or `command_NAME`."""

    def run_command(self, name: str, argument: str) -> None:
        """A slash command."""
        simple = {
            "new": self.action_new, "clear": self.action_new, "retry": self.action_again, "delete": self.action_delete,
            "continue": self.action_go_on, "context": self.action_context, "settings": self.action_settings,
            "undo": self.action_undo,
        }  # fmt: skip
        if name in simple:
            simple[name]()
        else:
            getattr(self, f"command_{name}")(argument)

    def command_adapter(self, name: str) -> None:
        assert self.state is not None
        if not name:
            names = ", ".join(self.state.adapters)
            if names:
                self._hint(
                    f"Adapters on this machine: {names}.", "/adapter NAME switches to one, /adapter off to none."
                )
            else:
                self._choose_adapter("", self.host.use_adapter)
        else:
            self._work("switching …", partial(self.host.use_adapter, None if name == "off" else name))

    def command_model(self, name: str) -> None:
        if name:
            self.use_model(name)
        else:
            self.action_model()

    def command_compare(self, name: str) -> None:
        if name:
            self._work("opening …", partial(self.host.compare, None if name == "off" else name))
        else:
            self.action_compare()

    def command_system(self, text: str) -> None:
        if text:
            self._work("setting …", partial(self.host.set_system, None if text == "off" else text))
        else:
            system = self.state.system if self.state else None
            what = f"The system prompt is: {system}" if system else "There is no system prompt."
            self._hint(what, "/system TEXT sets one, /system off removes it; F4 has a library of them.")

    def command_handbook(self, what: str) -> None:
        if what in ("on", "off"):
            self._work("", partial(self.host.use_handbook, what == "on"))
        else:
            self.read_handbook(what)

    def read_handbook(self, about: str) -> None:
        """Show entries in full: on a topic, or those that the last reply that was looked up is from."""
        from localllm.handbook.entries import by_id
        from localllm.handbook.index import answers, handbook
        from localllm.tui.screens.entries import EntriesScreen, entries_in

        if about:
            hits = handbook().search(about)
            found = [by_id()[about]] if about in by_id() else [hit.entry for hit in hits] if answers(hits) else []
        else:
            sources = [turn.source for turn in self.query_one(Transcript).branch]
            found = next((named for source in reversed(sources) if (named := entries_in(source))), [])
        if found:
            self.app.push_screen(EntriesScreen(found))
        else:
            said = f"The handbook has nothing on {about!r}." if about else "No reply here is from the handbook."
            self._hint(said, "/handbook WORDS shows what it has; /handbook on or off looks questions up, or not.")

    def command_title(self, title: str) -> None:
        if title and (number := self._number()) is not None:
            self._rename(number, title)
        else:
            self.action_rename()

    def command_export(self, path: str) -> None:
        number = self._number()
        if path and number is not None:
            self.export(number, path)
        else:
            self.action_export()
