"""Nothing that lies in a model's folder is ever run: no pickle is opened, no module is imported from a path."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCES = sorted((Path(__file__).resolve().parents[1] / "localllm").rglob("*.py"))
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "torch", "runpy"}
CALLS = {"exec", "eval", "compile", "__import__", "spec_from_file_location", "exec_module", "run_path", "load_module"}
ARGUMENTS = {"allow_pickle", "trust_remote_code"}


def dangers(source: str) -> list[str]:
    """What in a module could run somebody else's code."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            found.append(str(node.module))
        elif isinstance(node, ast.Call):
            # re.compile and mx.eval are attributes of modules and run nothing of a file.
            plain = isinstance(node.func, ast.Name)
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            if name in CALLS and (plain or name not in ("compile", "eval")):
                found.append(name)
            found += [argument.arg for argument in node.keywords if argument.arg in ARGUMENTS]
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(SOURCES[0].parent)))
def test_no_module_can_run_what_a_model_brings(path: Path) -> None:
    assert dangers(path.read_text("utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from torch.serialization import load",
        "np.load(path, allow_pickle=True)",
        "AutoModel.from_pretrained(path, trust_remote_code=True)",
        "exec(text)",
        "importlib.util.spec_from_file_location('m', path)",
    ],
)
def test_the_search_finds_what_it_looks_for(source: str) -> None:
    assert dangers(source)
