#!/bin/sh
# Prints the path of a Chromium; on Debian, as root, installs one where there is none. Fails where there is none to be had.
set -eu
for name in "${CHROMIUM:-chromium}" chromium chromium-browser google-chrome "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"; do
    if found="$(command -v "$name")"; then echo "$found"; exit 0; fi
done
if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; } >&2 || exit 1
    command -v chromium
else
    exit 1
fi
