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

missing=()
command -v bwrap >/dev/null || missing+=(bubblewrap)
command -v rg >/dev/null || missing+=(ripgrep)
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "gonogo needs Python 3.11 or newer as '$python': install it, or run: make PYTHON=/path/to/python3 setup" >&2
    exit 1
fi
"$python" -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)

if [ "${#missing[@]}" -gt 0 ]; then
    echo "setup: installing ${missing[*]}"
    if ! { command -v apt-get >/dev/null \
        && as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq update >/dev/null \
        && as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y "${missing[@]}" >/dev/null; }; then
        echo "setup: please install: ${missing[*]} (Debian: sudo apt-get install ${missing[*]}), then run make again" >&2
        exit 1
    fi
fi

echo "setup: Python environment in $venv"
"$python" -m venv "$venv"
pip() { "$venv/bin/python" -m pip --quiet --disable-pip-version-check "$@"; }
pip install --require-hashes --only-binary :all: -r requirements/dev.lock
pip install --no-index --no-build-isolation --no-deps -e .
