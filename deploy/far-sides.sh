#!/usr/bin/env bash
# What the long tests speak to besides what they start themselves: an official MCP server from npm, and PostgreSQL.
set -euo pipefail
folder=$1
server=@modelcontextprotocol/server-everything
version=2026.8.31

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"
    elif sudo -n true 2>/dev/null; then sudo -n "$@"
    else return 1
    fi
}

missing=()
[ -x /usr/lib/postgresql/15/bin/postgres ] || missing+=(postgresql-15)
command -v npm >/dev/null || missing+=(npm)
if [ "${#missing[@]}" -gt 0 ]; then
    echo "far-sides: installing ${missing[*]}"
    # The tests start servers of their own: Debian need not make and start one for everybody.
    settings=/etc/postgresql-common/createcluster.conf
    if [ ! -e "$settings" ]; then
        as_root mkdir -p "$(dirname "$settings")"
        echo "create_main_cluster = false" | as_root tee "$settings" >/dev/null
    fi
    if ! { as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq update >/dev/null \
        && as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null; }; then
        echo "far-sides: please install: ${missing[*]} (Debian: sudo apt-get install ${missing[*]})" >&2
        exit 1
    fi
fi

installed=$folder/node_modules/$server/package.json
if [ -f "$installed" ] && grep -q "\"version\": \"$version\"" "$installed"; then exit 0; fi
echo "far-sides: $server $version in $folder"
mkdir -p "$folder"
# npm brings authorities of its own; what this machine trusts counts, too.
authorities=/etc/ssl/certs/ca-certificates.crt
if [ -z "${NODE_EXTRA_CA_CERTS:-}" ] && [ -r "$authorities" ]; then export NODE_EXTRA_CA_CERTS=$authorities; fi
if ! npm install --prefix "$folder" --no-audit --no-fund --ignore-scripts --loglevel=error --fetch-retries=1 \
    --fetch-timeout=60000 --save-exact "$server@$version" >/dev/null; then
    echo "far-sides: npm could not install $server: its tests are skipped by name" >&2
    rm -rf "$folder/node_modules"
fi
