"""The app on a scripted engine as a program: python tests/tui/scripted_program.py REPLY..., each reply JSON."""

from __future__ import annotations

import json
import sys

from localllm.tui.app import run_chat
from tests.tui.support import StreamEngine, opener

if __name__ == "__main__":
    engine = StreamEngine(pieces=json.loads(sys.argv[1]), delay=0.01)
    sys.exit(run_chat(opener(engine, "tickets"), model="Fake"))
