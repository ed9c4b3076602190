#!/usr/bin/env bash
# Installs Tillwise into an environment of its own, as the images do: the Dockerfile and the tests run
# this very file. To be run in a checkout.
#   install-image.sh gateway|trainer FOLDER [dependencies|package]
# `gateway` has no torch. Without the last argument both steps are done; images do them one by one,
# because dependencies change seldom and are then taken from the build's cache.
set -euo pipefail

usage() {
    echo "usage: install-image.sh gateway|trainer FOLDER [dependencies|package]" >&2
    exit 2
}
[ $# -ge 2 ] && [ $# -le 3 ] || usage
target="$1" folder="$2" step="${3:-all}"
case "$target" in gateway | trainer) ;; *) usage ;; esac
case "$step" in all | dependencies | package) ;; *) usage ;; esac

PYTHON="${PYTHON:-python3}"
UV_VERSION=0.13.9
TORCH=2.13.0
# An index with the torch build you want; a GPU trainer names one with CUDA builds.
TORCH_INDEX="${TORCH_INDEX:-}"

python="$folder/bin/python"
[ -x "$python" ] || "$PYTHON" -m venv "$folder"

# uv reads none of pip's settings; where packages are holds for it too.
setting() {
    "$python" -m pip config get ":env:.$1" 2>/dev/null \
        || "$python" -m pip config get "global.$1" 2>/dev/null || true
}
links="$(setting find-links | xargs | tr ' ' ,)"
index="$(setting index-url)"
if [ -z "${UV_FIND_LINKS:-}" ] && [ -n "$links" ]; then export UV_FIND_LINKS="$links"; fi
if [ -z "${UV_DEFAULT_INDEX:-}" ] && [ -n "$index" ]; then export UV_DEFAULT_INDEX="$index"; fi

uv="$(command -v uv || true)"
if [ -z "$uv" ]; then
    "$PYTHON" -m venv "$folder/.uv"
    "$folder/.uv/bin/python" -m pip install -qq --disable-pip-version-check "uv==$UV_VERSION"
    uv="$folder/.uv/bin/uv"
fi
install() {
    "$uv" pip install --quiet --python "$python" --constraint constraints.txt "$@"
}

if [ "$step" != package ]; then
    if [ "$target" = gateway ]; then
        install -r pyproject.toml --extra serve --extra scale
    else
        # torch first and alone: asked for by something else it brings another build.
        install "torch==$TORCH" \
            ${TORCH_INDEX:+--index "$TORCH_INDEX" --index-strategy unsafe-best-match}
        install --override overrides.txt -r pyproject.toml --extra train --extra serve --extra scale --extra experiments
    fi
fi
if [ "$step" != dependencies ]; then
    install --no-deps --reinstall-package tillwise .
    # Compiled now, loops and bytecode, because an image is not written to when it runs: half of a start.
    (cd "$folder" && env -u PYTHONDONTWRITEBYTECODE bin/python -c 'import contract.pair_features, serving.app')
    # What installs is not what runs: an image has no use for it.
    rm -rf "$folder/.uv"
    "$python" -m pip uninstall -qq -y pip setuptools 2>/dev/null || true
fi
