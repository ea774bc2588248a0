"""Create or update .venv from the locks. Run by scripts/setup.sh, which has checked the prerequisites.

Needs only the standard library. The stamp `.venv/.complete` is written last, so an environment without it is not used;
`.venv/.unfinished` stands while we work, so an environment that an interrupted run left behind is thrown away.
"""

from __future__ import annotations

import fcntl
import os
import platform
import shlex
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / ".complete"
UNFINISHED = VENV / ".unfinished"
LOG = VENV / "setup.log"

LLAMA = "llama-cpp-python"
COMPILE_CORE_MINUTES = 6  # measured on x86-64 with g++ 12
# This machine's own instructions, without the multimodal library. Metal is on by default on macOS.
CMAKE_ARGS = (
    "-DLLAVA_BUILD=OFF",
    "-DGGML_NATIVE=ON",
    f"-DCMAKE_PROJECT_llama_cpp_INCLUDE={ROOT}/scripts/setup_llama_cpp.cmake",
)


class SetupError(Exception):
    """A step failed; the message says which, and what to do."""


def main() -> int:
    state = sys.argv[1]
    if reason := unsupported():
        print(f"localllm cannot be set up here: {reason}. Nothing was downloaded.", file=sys.stderr)
        return 1
    with only_one_at_a_time() as waited:
        if waited and STAMP.is_file() and STAMP.read_text().startswith(state):
            return 0  # the other run has done it
        started = time.monotonic()
        try:
            set_up()
            write_stamp(state)
        except (SetupError, OSError, subprocess.CalledProcessError) as error:
            print(f"\nset-up failed: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("\nset-up interrupted; the same command starts it again", file=sys.stderr)
            return 130
    say(f"ready in {minutes(time.monotonic() - started)}")
    return 0


def unsupported() -> str:
    """Why the locked packages have no build for this system; empty where they have one. MLX is the choosiest."""
    system, machine = platform.system(), platform.machine()  # of this Python: under Rosetta it is not the machine's own
    if system == "Darwin" and machine == "arm64":
        macos = platform.mac_ver()[0]
        return "" if int(macos.partition(".")[0]) >= 14 else f"MLX needs macOS 14 or newer; this is {macos}"
    if system == "Linux" and machine in {"x86_64", "aarch64"}:
        name, version = platform.libc_ver()
        if name == "glibc" and tuple(map(int, version.split(".")[:2])) >= (2, 35):
            return ""
        found = f"{name} {version}" if name == "glibc" else "another C library"
        return f"MLX needs glibc 2.35 or newer (Debian 12, Ubuntu 22.04, Fedora 36); this is {found}"
    return f"MLX has builds for Linux on x86-64 and arm64 and for macOS on arm64; this Python is for {system} {machine}"


def set_up() -> None:
    usable = PYTHON.exists() and run("-m", "pip", "--version").returncode == 0
    if not usable or UNFINISHED.exists() or moved() or wants_another_python():
        say(f"creating .venv with Python {sys.version.split()[0]}")
        venv.create(VENV, clear=True, symlinks=True, with_pip=True)
    UNFINISHED.touch()
    STAMP.unlink(missing_ok=True)
    LOG.unlink(missing_ok=True)

    say("installing the build tools")
    pip("install", "--require-hashes", "--only-binary=:all:", "-r", "build.lock")
    install_llama_cpp()
    say("installing the other packages")
    pip("install", "--require-hashes", "--only-binary=:all:", f"--no-binary={LLAMA}", "-r", "requirements.lock")
    pip("install", "--no-deps", "--no-build-isolation", "--editable", ".")
    # Python 3.11 puts it into every new environment; what is not in the lock goes.
    pip("uninstall", "--yes", "setuptools")
    try_it()


def install_llama_cpp(*, fresh: bool = False) -> None:
    """Compile it once; pip keeps the wheel. With the user's own CMAKE_ARGS, or when `fresh`, not from pip's store."""
    wanted = VENV / "llama.lock"
    wanted.write_text(lock_entry(LLAMA))
    own = ("--no-cache-dir", "--force-reinstall") if fresh or os.environ.get("CMAKE_ARGS") else ()
    options = ("--require-hashes", "--no-deps", "--no-build-isolation", f"--no-binary={LLAMA}")
    pip("install", *options, *own, "-r", str(wanted), compiles=True)


def try_it() -> None:
    """Load the native libraries once. A stored wheel made for another processor dies here, and is compiled again."""
    code = "import llama_cpp, mlx.core; llama_cpp.llama_backend_init(); llama_cpp.llama_print_system_info()"
    tried = run("-c", code)
    if tried.returncode < 0:
        say("the stored llama.cpp was compiled for another processor")
        install_llama_cpp(fresh=True)
        tried = run("-c", code)
    if tried.returncode:
        raise SetupError(f"the installed libraries do not load:\n{tried.stderr.strip()[-2000:]}")


def pip(*arguments: str, compiles: bool = False) -> None:
    """Run the environment's pip, its output in the log; say so when it starts to compile."""
    command = [PYTHON, "-I", "-m", "pip", *arguments]
    with (
        LOG.open("a") as log,
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=pip_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process,
    ):
        try:
            for line in process.stdout or ():
                log.write(line)
                log.flush()
                if compiles:
                    narrate_compiling(line)
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        tail = "".join(LOG.read_text().splitlines(keepends=True)[-25:])
        raise SetupError(
            f"pip said\n\n{tail}\nThe whole log is {LOG.relative_to(ROOT)}. "
            "If it could not find or fetch a package, look at the network; the same command tries again."
        )


def narrate_compiling(line: str) -> None:
    if "Building wheel for llama" in line:
        if line.rstrip().endswith("started"):
            cores = os.cpu_count() or 1
            estimate = max(1, round(COMPILE_CORE_MINUTES / cores))
            say(f"compiling llama.cpp for this machine, once: about {estimate} min on {cores} idle cores")
        elif line.rstrip().endswith("still running..."):
            say("  still compiling …")


def pip_environment() -> dict[str, str]:
    return os.environ | {
        "CMAKE_ARGS": f"{shlex.join(CMAKE_ARGS)} {os.environ.get('CMAKE_ARGS', '')}",  # the user's come last, and win
        "PATH": f"{PYTHON.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",  # the locked cmake and ninja
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
    }


def lock_entry(name: str) -> str:
    """The lines of requirements.lock about one package: its version and its hashes."""
    lines = (ROOT / "requirements.lock").read_text().splitlines(keepends=True)
    first = next(i for i, line in enumerate(lines) if line.startswith(f"{name}=="))
    last = next(i for i in range(first, len(lines)) if not lines[i].rstrip().endswith("\\"))
    return "".join(lines[first : last + 1])


def moved() -> bool:
    """Whether this folder was moved or copied since: the programs in the environment name its old place."""
    return STAMP.is_file() and STAMP.read_text().splitlines()[3:] != [str(ROOT)]


def wants_another_python() -> bool:
    """Whether the user named a Python (PYTHON=…) of another version than the environment's."""
    differs = f"import sys; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})"
    return bool(os.environ.get("PYTHON")) and PYTHON.exists() and run("-c", differs).returncode != 0


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The environment's Python, quietly."""
    return subprocess.run([PYTHON, *arguments], cwd=ROOT, capture_output=True, text=True)


def write_stamp(state: str) -> None:
    version = run("-c", "import sys; print('%d.%d' % sys.version_info[:2])").stdout.strip()
    beside = STAMP.with_suffix(".new")
    beside.write_text(f"{state}\n{version}\n{os.environ.get('CMAKE_ARGS', '')}\n{ROOT}\n")
    beside.replace(STAMP)
    UNFINISHED.unlink()


@contextmanager
def only_one_at_a_time() -> Iterator[bool]:
    """Hold the folder; yields whether another set-up had to be waited for."""
    waited = False
    with (ROOT / "requirements.lock").open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waited = True
            say("waiting for another set-up in this folder")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield waited


def minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


def say(line: str) -> None:
    print(f"set-up: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
