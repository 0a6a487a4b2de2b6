#!/bin/sh
# Puts in place what the end-to-end tests need: Chromium from the system's packages, the clients from npm and PyPI at
# the pinned versions. Does nothing where it is done already. CHROMIUM_BIN names another Chromium to use instead.
set -eu
cd "$(dirname "$0")"

packages=
[ -n "${CHROMIUM_BIN:-}" ] || command -v chromium >/dev/null || packages="$packages chromium"
command -v npm >/dev/null || packages="$packages nodejs npm"
python3 -c 'import ensurepip, venv' 2>/dev/null || packages="$packages python3-venv"
if [ -n "$packages" ]; then
    sudo=$([ "$(id -u)" = 0 ] || echo sudo)
    $sudo apt-get update -q
    # shellcheck disable=SC2086 # a list of names
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $packages
fi
node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' || { echo "Node 20 or newer is needed" >&2; exit 1; }

stamp=node_modules/.patchbay-installed
if ! cmp -s package-lock.json "$stamp"; then
    npm ci --no-fund --no-audit
    cp package-lock.json "$stamp"
fi

stamp=.venv/.patchbay-installed
if ! cmp -s requirements.txt "$stamp"; then
    python3 -m venv .venv
    .venv/bin/pip install --quiet --disable-pip-version-check -r requirements.txt
    cp requirements.txt "$stamp"
fi
