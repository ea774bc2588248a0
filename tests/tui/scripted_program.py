"""The app on a scripted engine as a program: python tests/tui/scripted_program.py PIECES [SECONDS A PIECE].

PIECES is a JSON list. Conversations are kept in LOCALLLM_HOME.
"""

from __future__ import annotations

import json
import sys

from localllm.paths import Home
from localllm.tui.app import run_chat
from tests.tui.support import StreamEngine, opener

if __name__ == "__main__":
    delay = float(sys.argv[2]) if len(sys.argv) > 2 else 0.01
    engine = StreamEngine(pieces=json.loads(sys.argv[1]), delay=delay)
    sys.exit(run_chat(opener(engine, "tickets"), model="Fake", home=Home.locate()))
