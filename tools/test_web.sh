#!/bin/sh
# The web app's types and tests, where there is a Node that its tools run on.
set -eu
if ! command -v npm >/dev/null || ! node -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 20 || (a == 20 && b >= 19) ? 0 : 1)'; then
    echo "NOT RUN: tests of the web app, since there is no Node 20.19 or newer"
    exit 0
fi
cd "$(dirname "$0")/../sample_apps/web"
if ! [ -e node_modules/.installed ] || [ package-lock.json -nt node_modules/.installed ]; then
    npm ci --no-audit --no-fund
    touch node_modules/.installed
fi
npm test
echo "NOT RUN: the web app in a browser: npm run e2e in sample_apps/web, which needs Chromium"
