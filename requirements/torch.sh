#!/bin/sh
# Installs the torch release named in $1: its CPU build on a Linux machine without an NVIDIA GPU, where
# pip finds one, else what the package index offers. $PIP is the pip to use.
set -eu

if [ "$(uname -s)" = Linux ] && ! nvidia-smi >/dev/null 2>&1; then
  $PIP install --quiet "$1+cpu" 2>/dev/null && exit 0
  cat <<EOF
locum: pip finds no CPU build of $1 here, so it takes the default one: several GB, with CUDA.
locum: for the small one, stop now (Ctrl-C) and tell pip where PyTorch's CPU wheels are, then run again:
locum:   PIP_EXTRA_INDEX_URL=<PyTorch's CPU index> make setup      or   PIP_FIND_LINKS=<folder with the wheel> make setup
EOF
fi
exec $PIP install --quiet "$1"
