#!/usr/bin/env bash
# Runs the pair from the images that deploy/image.sh built, as deploy/compose.yaml says, and checks the boundary.
set -euo pipefail
cd "$(dirname "$0")/.."
source deploy/image_engine.sh
become_root
find_engine
for part in executor orchestrator executor-live executor-commands; do
    if ! "${engine[@]}" image inspect "gonogo-$part" >/dev/null 2>&1; then
        echo "image-test: there is no image gonogo-$part: run make image" >&2
        exit 1
    fi
done
mkdir -p build
IMAGE_TEST_ENGINE="${engine[*]@Q}" IMAGE_TEST_RUN_OPTIONS="${run_options[*]@Q}" exec .venv/bin/python -m deploy.image_test
