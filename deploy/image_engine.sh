# Sourced by the image scripts: finds what builds and runs images here, and installs it where there is nothing.
# Afterwards `engine` is the command and `run_options` what every container needs on this machine. GONOGO_ENGINE names
# another command. Without a docker engine it is podman, with a store of its own below build/, so that nothing of the
# machine's is touched; `vfs` and `chroot` cost space and work without overlay file systems and without privileges.
engine=()
build_options=()
run_options=()
readonly image_store="$PWD/build/image-store"

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"
    elif sudo -n true 2>/dev/null; then sudo -n "$@"
    else return 1
    fi
}

# Installs the Debian packages that bring the programs, or says in one line what to do.
ensure() {
    local -a missing=()
    local program
    for program in "$@"; do command -v "$program" >/dev/null || missing+=("$program"); done
    if [ "${#missing[@]}" -eq 0 ]; then return; fi
    echo "image: installing ${missing[*]}" >&2
    if ! { command -v apt-get >/dev/null \
        && as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq update >/dev/null 2>&1 \
        && as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}" \
            containernetworking-plugins iptables >/dev/null 2>&1; }; then
        echo "image: please install: ${missing[*]} (Debian: sudo apt-get install ${missing[*]} containernetworking-plugins)" >&2
        exit 1
    fi
}

find_engine() {
    if [ -n "${GONOGO_ENGINE:-}" ]; then
        read -r -a engine <<<"$GONOGO_ENGINE"
    elif command -v docker >/dev/null && docker info >/dev/null 2>&1; then
        engine=(docker)
    else
        find_podman
    fi
}

# Starts the script again as root: podman's networks need it, and volumes that belong to the containers' user.
become_root() {
    if [ "$(id -u)" -eq 0 ]; then return; fi
    if ! sudo -n true 2>/dev/null; then
        echo "image: this needs root here: run it with sudo, or install docker and be of its group" >&2
        exit 1
    fi
    exec sudo -n --preserve-env "$0"
}

find_podman() {
    become_root
    ensure podman runc
    mkdir -p "$image_store/networks"
    engine=(podman --root "$image_store/root" --runroot "$image_store/run" --tmpdir "$image_store/tmp"
        --network-config-dir "$image_store/networks" --storage-driver vfs --runtime runc --cgroup-manager cgroupfs)
    # Its records hold absolute paths and a version: what was made elsewhere, or by another podman, is made again.
    if ! "${engine[@]}" info >/dev/null 2>&1; then
        rm -rf "$image_store"
        mkdir -p "$image_store/networks"
    fi
    build_options=(--isolation chroot --layers=false)
    # The defaults ask for more than a machine may give that is itself confined.
    run_options=(--ulimit "nofile=$(ulimit -Hn):$(ulimit -Hn)" --ulimit nproc=1024:1024)
}
