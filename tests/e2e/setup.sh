#!/bin/sh
# Puts in place what the end-to-end tests need: Chromium from the system's packages, the clients from npm and PyPI at
# the pinned versions. Does nothing where it is done already.
set -eu
cd "$(dirname "$0")"

if ! command -v chromium >/dev/null || ! python3 -c 'import ensurepip' 2>/dev/null; then
    sudo=$([ "$(id -u)" = 0 ] || echo sudo)
    $sudo apt-get update -q
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -q --no-install-recommends chromium python3-venv
fi

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
