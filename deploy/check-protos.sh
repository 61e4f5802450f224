#!/usr/bin/env bash
# Refuse a checkout whose generated code is not what its protos generate.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"$(dirname "$0")/generate-protos.sh" "$1" "$scratch"
if ! diff -r -q -x '*.proto' -x '__init__.py' -x '__pycache__' "$scratch/gonogo/v1" protos/gonogo/v1; then
    echo "the generated code is stale: run make protos" >&2
    exit 1
fi
