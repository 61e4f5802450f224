#!/usr/bin/env bash
# Prepare this machine: system tools where they are missing and may be installed, then the hashed Python environment.
set -euo pipefail
venv=$1
python=${PYTHON:-python3}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"
    elif sudo -n true 2>/dev/null; then sudo -n "$@"
    else return 1
    fi
}

install() {
    echo "setup: installing $*"
    command -v apt-get >/dev/null \
        && as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq update >/dev/null \
        && as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y "$@" >/dev/null
}

missing=()
command -v bwrap >/dev/null || missing+=(bubblewrap)
command -v rg >/dev/null || missing+=(ripgrep)
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "gonogo needs Python 3.11 or newer as '$python': install it, or run: make PYTHON=/path/to/python3 setup" >&2
    exit 1
fi
"$python" -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)

if [ "${#missing[@]}" -gt 0 ] && ! install "${missing[@]}"; then
    echo "setup: please install: ${missing[*]} (Debian: sudo apt-get install ${missing[*]}), then run make again" >&2
    exit 1
fi

# Only the fault tests want it; without it they are skipped by name, and on CI they fail.
if ! command -v strace >/dev/null && ! install strace; then
    echo "setup: for make faults please install: strace (Debian: sudo apt-get install strace)" >&2
    if [ "${CI:-}" = true ]; then exit 1; fi
fi

# Only the test of docs/verify.md wants them: what a person needs who checks a bundle by hand.
by_hand=()
command -v jq >/dev/null || by_hand+=(jq)
command -v openssl >/dev/null || by_hand+=(openssl)
command -v ssh-keygen >/dev/null || by_hand+=(openssh-client)
command -v xxd >/dev/null || by_hand+=(xxd)
if [ "${#by_hand[@]}" -gt 0 ] && ! install "${by_hand[@]}"; then
    echo "setup: for the test of docs/verify.md please install: ${by_hand[*]}" >&2
    if [ "${CI:-}" = true ]; then exit 1; fi
fi

# The tests of databases and tools want them, and are skipped by name without; on CI they are run.
if [ "${CI:-}" = true ]; then "$(dirname "$0")/far-sides.sh" build/far-sides; fi

echo "setup: Python environment in $venv"
"$python" -m venv "$venv"
pip() { "$venv/bin/python" -m pip --quiet --disable-pip-version-check "$@"; }
pip install --require-hashes --only-binary :all: -r requirements/dev.lock
pip install --no-index --no-build-isolation --no-deps -e .
