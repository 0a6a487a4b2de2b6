#!/bin/sh
# Chromium, in the network namespace of the process LINK_PID.
exec nsenter --net="/proc/$LINK_PID/ns/net" -- "${CHROMIUM_BIN:-/usr/bin/chromium}" "$@"
