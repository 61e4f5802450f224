#!/usr/bin/env bash
# Resolve the lock files: one per install, `dev` first and the others as subsets of it, the generator on its own.
set -euo pipefail
uv=$1
compile() {
    "$uv" pip compile "$@" --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
        --upgrade --quiet --custom-compile-command 'make lock' --no-emit-package gonogo
}
compile pyproject.toml --extra dev -o requirements/dev.lock
for extra in executor orchestrator client; do
    compile pyproject.toml --extra "$extra" -c requirements/dev.lock -o "requirements/$extra.lock"
done
compile pyproject.toml --extra executor --extra live -c requirements/dev.lock -o requirements/executor-live.lock
compile requirements/protoc.in -o requirements/protoc.lock
