#!/bin/sh
# Make .venv with the locked dependencies: what `make chat`, `make test` and the others run first.
# Does nothing when nothing has changed. Looks for every prerequisite before anything is downloaded.
#   PYTHON=python3.12   which Python to use       CC=, CXX=   which compilers       CMAKE_ARGS=   options for llama.cpp
set -eu
cd "$(dirname "$0")/.."

version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

# --- is there anything to do? ---

stamp=.venv/.complete # written last: the state below, the version of Python, CMAKE_ARGS, this folder
state=$({ cat build.lock requirements.lock pyproject.toml scripts/setup*; pwd; } | cksum)

up_to_date() {
    [ -f "$stamp" ] && [ "$(sed -n 1p "$stamp")" = "$state" ] || return 1
    [ -z "${PYTHON:-}" ] || [ "$(version_of "$PYTHON")" = "$(sed -n 2p "$stamp")" ] || return 1
    [ -z "${CMAKE_ARGS:-}" ] || [ "$CMAKE_ARGS" = "$(sed -n 3p "$stamp")" ] || return 1
    .venv/bin/python -c '' 2>/dev/null # gone when the Python underneath was removed
}
if up_to_date; then exit 0; fi

# --- what is missing on this machine? ---

system=$(uname -s)
family=other
if [ "$system" = Darwin ]; then
    family=macos
elif [ -r /etc/os-release ]; then
    case " $(. /etc/os-release; echo "${ID:-} ${ID_LIKE:-}") " in
        *" debian "* | *" ubuntu "*) family=debian ;;
        *" fedora "* | *" rhel "*) family=fedora ;;
    esac
fi

problems=0
say() { printf '%s\n' "$*" >&2; }
missing() { # what, then the line for Debian and Ubuntu, for Fedora, for macOS
    [ "$problems" -gt 0 ] || say "localllm cannot be set up yet; nothing was downloaded."
    problems=$((problems + 1))
    say ""
    say "Missing: $1"
    case $family in
        debian) say "  install it with:  $2" ;;
        fedora) say "  install it with:  $3" ;;
        macos) say "  install it with:  $4" ;;
        *)
            say "  Debian, Ubuntu:   $2"
            say "  Fedora:           $3"
            say "  macOS:            $4"
            ;;
    esac
}

suitable() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null; }
python=
for candidate in ${PYTHON:+"$PYTHON"} ${PYTHON:-python3 python3.13 python3.12 python3.14 python3.11}; do
    if suitable "$candidate"; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    if [ -n "${PYTHON:-}" ]; then
        found="PYTHON=$PYTHON is $(version_of "$PYTHON" || echo 'not a Python that runs')"
    else
        found="python3 is $(version_of python3 || echo 'not there')"
    fi
    missing "Python 3.11, 3.12, 3.13 or 3.14 ($found)" \
        "sudo apt-get install python3 python3-venv" "sudo dnf install python3" "brew install python@3.13"
    say "  (where the system's Python is older:  uv python install 3.13  or  pyenv install 3.13, then  PYTHON=/path/to/python3.13 make …)"
elif ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    missing "Python's venv module (for $python, version $(version_of "$python"))" \
        "sudo apt-get install python$(version_of "$python")-venv" "sudo dnf install python3-pip" "brew reinstall python@3.13"
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# A compiler counts when it compiles: one without its library or headers would fail minutes later.
compiles() { printf '#include <%s>\nint main() { return 0; }\n' "$3" | $1 -x "$2" - -o "$work/a.out" >/dev/null 2>&1; }
compiler() { # language, a header of its library, then the names to try
    language=$1 header=$2
    shift 2
    for name in "$@"; do
        if compiles "$name" "$language" "$header"; then
            echo "$name"
            return 0
        fi
    done
    return 1
}
if [ "$system" = Darwin ] && ! xcode-select -p >/dev/null 2>&1; then
    # Without them cc and git are stand-ins that open a window instead of running.
    missing "the C/C++ compiler and git" "" "" "xcode-select --install"
else
    if [ -n "${CC:-}" ]; then set -- "$CC"; else set -- cc gcc clang; fi
    CC=$(compiler c stdio.h "$@") || missing "a C compiler (tried: $*)" \
        "sudo apt-get install build-essential" "sudo dnf install gcc" "xcode-select --install"
    if [ -n "${CXX:-}" ]; then set -- "$CXX"; else set -- c++ g++ clang++; fi
    CXX=$(compiler c++ vector "$@") || missing "a C++ compiler (tried: $*)" \
        "sudo apt-get install build-essential" "sudo dnf install gcc-c++" "xcode-select --install"
    export CC CXX
    git --version >/dev/null 2>&1 || missing "git" \
        "sudo apt-get install git" "sudo dnf install git" "xcode-select --install"
fi

if [ "$problems" -gt 0 ]; then
    say ""
    say "Then run the same command again."
    exit 1
fi
rm -rf "$work"
exec "$python" scripts/setup_venv.py "$state"
