#!/usr/bin/env bash
# Builds the images gonogo-executor, -executor-live, -executor-commands and gonogo-orchestrator: `deploy/image.sh`.
#   GONOGO_IMAGE_BASE   the base (python:3.11-slim; where no registry answers, a Debian made here by mmdebstrap)
#   GONOGO_IMAGE_TREE   a commit to build; without it the tracked files as they are in the working tree
#   GONOGO_ENGINE       the command that builds and runs; without it docker, or podman
set -euo pipefail
cd "$(dirname "$0")/.."
source deploy/image_engine.sh
find_engine
readonly python=.venv/bin/python images=(executor orchestrator executor-live executor-commands)
readonly made_base=gonogo-base:bookworm-2  # another name with every change of what is in it
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT

sources() {
    local -a wanted=(executor orchestrator protos/gonogo requirements/executor.lock requirements/executor-live.lock
        requirements/orchestrator.lock pyproject.toml deploy/image_root.py Containerfile .containerignore)
    if [ -n "${GONOGO_IMAGE_TREE:-}" ]; then
        git archive "$GONOGO_IMAGE_TREE" -- "${wanted[@]}"
    else
        git ls-files -z -- "${wanted[@]}" | tar --create --null --files-from - --ignore-failed-read
    fi
}

# Outside of the build, so that it needs no network and no index: every wheel's digest is checked here, and again by
# the pip that installs. The base's interpreter decides which wheels fit, not this machine's.
download_wheels() {
    local part=$1 version=$2 machine tag
    machine=$(uname -m)
    local -a fit=(--python-version "$version" --implementation cp --abi "cp${version/./}" --abi abi3 --abi none)
    for tag in 2_34 2_31 2_28 2_27 2_26 2_24 2_17 2_12 2_5; do fit+=(--platform "manylinux_${tag}_$machine"); done
    fit+=(--platform "manylinux2014_$machine" --platform any)
    "$python" -m pip download -qq --disable-pip-version-check --require-hashes --only-binary :all: --no-deps \
        "${fit[@]}" --requirement "$context/requirements/$part.lock" --dest "$context/wheels/$part"
}

has_image() { "${engine[@]}" image inspect "$1" >/dev/null 2>&1; }

choose_base() {
    base=${GONOGO_IMAGE_BASE:-python:3.11-slim}
    if has_image "$base" || timeout 600 "${engine[@]}" pull --quiet "$base" >/dev/null 2>&1; then return; fi
    if [ -n "${GONOGO_IMAGE_BASE:-}" ]; then
        echo "image: there is no base $base: name another with GONOGO_IMAGE_BASE" >&2
        exit 1
    fi
    base=$made_base
    if has_image "$base"; then return; fi
    echo "image: no registry answers; making a base with mmdebstrap"
    ensure mmdebstrap
    as_root mmdebstrap --quiet --variant=minbase --include=python3,ripgrep,bubblewrap,ca-certificates bookworm "$context/base.tar"
    "${engine[@]}" import "$context/base.tar" "$base" >/dev/null
    rm -f "$context/base.tar"
}

base_python() {
    "${engine[@]}" run --rm "${run_options[@]}" --network none --entrypoint python3 "$base" \
        -c 'import sys; print("%d.%d" % sys.version_info[:2])'
}

began=$SECONDS
sources | tar --extract --directory "$context"
choose_base
version=$(base_python)
for part in executor executor-live orchestrator; do download_wheels "$part" "$version"; done
for image in "${images[@]}"; do
    step=$SECONDS extra=
    # Whoever runs commands has given up smallness, and their programs are what live steps start.
    case $image in executor-live | executor-commands) extra=-live ;; esac
    "${engine[@]}" build "${build_options[@]}" --quiet --file "$context/Containerfile" --target "${image%-live}" \
        --build-arg "BASE=$base" --build-arg "EXTRA=$extra" --tag "gonogo-$image" "$context" >/dev/null
    size=$("${engine[@]}" image inspect --format '{{.Size}}' "gonogo-$image")
    echo "image: gonogo-$image, $((size / 1000000)) MB, built in $((SECONDS - step)) s"
done
# What the images of an earlier build were is left without a name; only in a store that holds nothing else.
if [ "${#build_options[@]}" -gt 0 ]; then "${engine[@]}" image prune --force >/dev/null; fi
echo "image: done in $((SECONDS - began)) s, on $base with Python $version"
