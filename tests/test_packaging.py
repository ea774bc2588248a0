"""What leaves the checkout: the wheel with the built-in model inside, and the locks that everyone installs from."""

import configparser
import io
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ["requirements.lock", "build.lock"]


def pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def locked(lock: str) -> dict[Requirement, list[str]]:
    """Each requirement of a lock file with its hashes."""
    text = re.sub(r"^\s*#.*$", "", (ROOT / lock).read_text(), flags=re.MULTILINE)
    entries = {}
    for entry in text.replace("\\\n", " ").splitlines():
        if entry.strip():
            requirement, *hashes = re.split(r"\s+--hash=", entry.strip())
            entries[Requirement(requirement)] = hashes
    return entries


# --- the wheel ---


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    built = subprocess.run([*command, "--wheel-dir", folder, ROOT], cwd=folder, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = folder.glob("localllm-*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_holds_every_file_of_the_package(wheel: zipfile.ZipFile):
    tracked = subprocess.run(
        ["git", "ls-files", "localllm"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert set(tracked) - set(wheel.namelist()) == set()


def test_the_wheel_holds_the_built_in_model_and_its_card(wheel: zipfile.ZipFile):
    packaged = {name.removeprefix("localllm/models/") for name in wheel.namelist() if "/models/" in name}
    here = {path.name for path in (ROOT / "models").iterdir() if path.suffix in {".gguf", ".md", ".toml"}}
    assert packaged == here
    assert {Path(name).suffix for name in packaged} >= {".gguf", ".toml"}


def test_the_wheel_holds_nothing_else(wheel: zipfile.ZipFile):
    version = pyproject()["project"]["version"]
    assert {name.partition("/")[0] for name in wheel.namelist()} == {"localllm", f"localllm-{version}.dist-info"}


def test_the_wheel_brings_the_command(wheel: zipfile.ZipFile):
    (name,) = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    entries = configparser.ConfigParser()
    entries.read_file(io.TextIOWrapper(wheel.open(name)))
    assert dict(entries["console_scripts"]) == {"localllm": "localllm.cli.main:main"}


# --- the locks ---


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_pins_and_hashes_everything_and_names_no_address(lock: str):
    assert not re.search(r"://|file:|--(extra-)?index|--find-links", (ROOT / lock).read_text())
    for requirement, hashes in locked(lock).items():
        assert [specifier.operator for specifier in requirement.specifier] == ["=="], requirement
        assert hashes, requirement
        assert all(value.startswith("sha256:") for value in hashes), requirement


def test_the_lock_satisfies_the_project():
    project = pyproject()
    wanted = [*project["project"]["dependencies"], *project["project"]["optional-dependencies"]["dev"]]
    wanted += project["dependency-groups"]["build"]
    pinned = {canonicalize_name(entry.name): entry for entry in locked("requirements.lock")}
    for requirement in map(Requirement, wanted):
        (exact,) = pinned[canonicalize_name(requirement.name)].specifier
        assert requirement.specifier.contains(exact.version), requirement


def test_the_build_tools_are_a_part_of_the_lock():
    assert {*map(str, locked("build.lock"))} <= {*map(str, locked("requirements.lock"))}
