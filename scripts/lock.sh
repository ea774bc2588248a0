#!/bin/sh
# Resolve pyproject.toml again: exact versions and hashes for Linux and macOS and every Python that we support.
#   scripts/lock.sh [--upgrade]        without --upgrade a version only moves where pyproject.toml asks for it
# requirements.lock is everything; build.lock is the part of it that has to be installed before llama.cpp can be compiled.
set -eu
cd "$(dirname "$0")/.."

UV=${UV:-uv}
command -v "$UV" >/dev/null 2>&1 || {
    echo "lock: uv is missing; install it with: pipx install uv    (or name it: UV=/path/to/uv make lock)" >&2
    exit 1
}

resolve() {
    output=$1
    shift
    # No index address and no path may reach the file: whoever installs decides where packages come from.
    "$UV" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
        --no-emit-find-links --custom-compile-command "make lock" --output-file "$output" "$@" >/dev/null
}

resolve requirements.lock pyproject.toml --extra dev --group pyproject.toml:build "$@"
resolve build.lock --group pyproject.toml:build --constraint requirements.lock "$@"

if grep -nE '://|file:|--(extra-)?index|--find-links' requirements.lock build.lock; then
    echo "lock: an address is in the lock (above)" >&2
    exit 1
fi
