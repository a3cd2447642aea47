#!/bin/sh
# The web app's types and tests, where there is a Node that its tools run on; and the app itself in a Chromium.
# usage: tools/test_web.sh [BUNDLE]: a bundle to use in the browser instead of a tiny one, and how many of its golden
# prompts Parity replays, in SATCHEL_PROMPTS.
set -eu
if ! command -v npm >/dev/null || ! node -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 20 || (a == 20 && b >= 19) ? 0 : 1)'; then
    echo "NOT RUN: tests of the web app, since there is no Node 20.19 or newer"
    exit 0
fi
bundle="${1:+$(realpath "$1")}"
cd "$(dirname "$0")/../sample_apps/web"
if ! [ -e node_modules/.installed ] || [ package-lock.json -nt node_modules/.installed ]; then
    npm ci --no-audit --no-fund
    touch node_modules/.installed
fi
npm test
if chromium="$(../../tools/chromium.sh)"; then
    CHROMIUM="$chromium" SATCHEL_BUNDLE="$bundle" npm run e2e
else
    echo "NOT RUN: the web app in a browser, since there is no Chromium; give its path in CHROMIUM"
fi
