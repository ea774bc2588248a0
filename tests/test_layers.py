"""The layers hold as written (import-linter) and as run (what a light command really loads)."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HEAVY = {"gguf", "huggingface_hub", "jinja2", "llama_cpp", "mlx", "mlx_lm", "numpy", "textual", "transformers"}

LOADED_BY = """
import contextlib, io, json, sys
from localllm.cli.main import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main(sys.argv[1:])
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def loaded_by(*arguments: str) -> set[str]:
    """The top-level packages in memory after `localllm ARGUMENTS`."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED_BY, *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_the_contracts_hold():
    checked = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout.partition("Broken contracts")[2]  # after the logo and the list


@pytest.mark.parametrize(
    "arguments", [["--help"], ["ask", "--help"], ["finetune", "--help"], ["--version"]], ids=" ".join
)
def test_help_loads_nothing_heavy(arguments: list[str]):
    assert loaded_by(*arguments) & HEAVY == set()
