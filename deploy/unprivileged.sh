#!/usr/bin/env bash
# Runs a command as an ordinary user without any privilege: `deploy/unprivileged.sh COMMAND ARG…`.
# An ordinary user runs it as it is. Root gives up its user, its groups and the way back. Where that user could not reach
# the interpreter or this checkout, because they lie beneath a directory that only root may enter (such as /root), they
# are shown to it at the same place in a mount namespace of its own; nothing outside of that namespace changes.
set -euo pipefail

readonly USER_ID=65534
readonly HERE="$(cd "$(dirname "$0")/.." && pwd)"

drop() {
  home="$(mktemp -d "${TMPDIR:-/tmp}/gonogo-XXXXXX")"
  chown "$USER_ID:$USER_ID" "$home"
  trap 'rm -rf "$home"' EXIT
  setpriv --reuid="$USER_ID" --regid="$USER_ID" --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all \
    env -i HOME="$home" TMPDIR="$home" PATH="$PATH" CI="${CI:-}" GONOGO_EXAMPLES="${GONOGO_EXAMPLES:-1}" PYTHONDONTWRITEBYTECODE=1 \
    HYPOTHESIS_STORAGE_DIRECTORY="$home/hypothesis" "$@"
}

# The topmost directory above a path that others may not enter, or nothing.
closed_above() {
  local above="" part
  local -a parts
  IFS=/ read -r -a parts <<<"${1#/}"
  for part in "${parts[@]}"; do
    above="$above/$part"
    if [[ -d "$above" && "$(stat -c %A "$above")" != *[xt] ]]; then
      echo "$above"
      return
    fi
  done
}

show_again() {
  local path="$1" closed hold
  closed="$(closed_above "$path")"
  [[ -z "$closed" ]] && return
  hold="$(mktemp -d)"
  mount --bind "$path" "$hold"
  mount -t tmpfs -o mode=755 tmpfs "$closed"
  mkdir -p "$path"
  mount --move "$hold" "$path"
  rmdir "$hold"
}

if [[ "$(id -u)" != 0 ]]; then
  exec "$@"
fi
interpreter="$("$HERE/.venv/bin/python" -c 'import sys; print(sys.base_prefix)')"
if [[ -n "$(closed_above "$interpreter")$(closed_above "$HERE")" && -z "${GONOGO_SHOWN_AGAIN:-}" ]]; then
  GONOGO_SHOWN_AGAIN=1 exec unshare --mount --propagation private "$0" "$@"
fi
if [[ -n "${GONOGO_SHOWN_AGAIN:-}" ]]; then
  show_again "$interpreter"
  show_again "$HERE"
  cd "$HERE"
fi
drop "$@"
