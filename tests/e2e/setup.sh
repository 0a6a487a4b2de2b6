#!/bin/sh
# Puts in place what the tests need: Chromium, iproute2, nftables and coturn from the system's packages, the clients from
# npm and PyPI at the pinned versions. Does nothing where it is done already. CHROMIUM_BIN and FIREFOX_BIN name other browsers to use
# instead. Firefox and the sound server it needs come from Debian's packages; where there are none (Ubuntu), its stories
# are left out.
set -eu
cd "$(dirname "$0")"

packages=
[ -n "${CHROMIUM_BIN:-}" ] || command -v chromium >/dev/null || packages="$packages chromium"
command -v npm >/dev/null || packages="$packages nodejs npm"
command -v redis-server >/dev/null || packages="$packages redis-server"
command -v ip >/dev/null || packages="$packages iproute2"
command -v nft >/dev/null || packages="$packages nftables"
coturn=
command -v turnutils_uclient >/dev/null || { coturn=yes; packages="$packages coturn"; }
python3 -c 'import ensurepip, venv' 2>/dev/null || packages="$packages python3-venv"
if [ -n "$packages" ]; then
    sudo=$([ "$(id -u)" = 0 ] || echo sudo)
    $sudo apt-get update -q
    # shellcheck disable=SC2086 # a list of names
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $packages
    # Its clients are wanted, and its server when a test starts one: none that runs by itself.
    [ -z "$coturn" ] || $sudo systemctl disable --now coturn 2>/dev/null || $sudo service coturn stop 2>/dev/null || true
fi

packages=
[ -n "${FIREFOX_BIN:-}" ] || command -v firefox-esr >/dev/null || packages="$packages firefox-esr"
command -v pulseaudio >/dev/null || packages="$packages pulseaudio"
if [ -n "$packages" ]; then
    sudo=$([ "$(id -u)" = 0 ] || echo sudo)
    # --no-remove: a desktop's own sound server stays.
    # shellcheck disable=SC2086 # a list of names
    { $sudo apt-get update -q &&
        $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends --no-remove $packages; } ||
        echo "The Firefox stories will be left out: cannot install$packages (FIREFOX_BIN names a Firefox that is here)" >&2
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

# What tests the voice API against its document.
stamp=.venv-schema/.patchbay-installed
if ! cmp -s requirements-schema.txt "$stamp"; then
    python3 -m venv .venv-schema
    .venv-schema/bin/pip install --quiet --disable-pip-version-check -r requirements-schema.txt
    cp requirements-schema.txt "$stamp"
fi

# LiveKit's agents package, 400 MB of wheels that want an older client than the one above: its story is left out where
# they cannot be installed.
stamp=.venv-agents/.patchbay-installed
if ! cmp -s requirements-agents.txt "$stamp"; then
    { python3 -m venv .venv-agents &&
        .venv-agents/bin/pip install --quiet --disable-pip-version-check -r requirements-agents.txt &&
        cp requirements-agents.txt "$stamp"; } ||
        { rm -rf .venv-agents; echo "The story of an agent will be left out: cannot install its package" >&2; }
fi
