#!/usr/bin/env bash
# usage: install_torch.sh PYTHON: torch as pinned; the CPU build (a tenth of the size) where there is no CUDA.
set -euo pipefail
python=$1
pinned=$(grep -v '^#' "$(dirname "$0")/torch.txt")
install() { "$python" -m pip install -qq --no-warn-script-location "$@"; }
if command -v nvidia-smi > /dev/null && nvidia-smi > /dev/null 2>&1; then
    install "$pinned"
    exit
fi
# From wherever pip is told to look. Elsewhere the plain pin may bring gigabytes of CUDA: name an index of CPU builds
# with TORCH_CPU_INDEX to avoid that.
if [ -n "${TORCH_CPU_INDEX:-}" ]; then
    install --index-url "$TORCH_CPU_INDEX" "$pinned+cpu"
else
    install "$pinned+cpu" 2> /dev/null || install "$pinned"
fi
