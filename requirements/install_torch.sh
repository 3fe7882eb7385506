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
# First from wherever pip is told to look, then from PyTorch's own index of CPU builds, at last whatever there is.
install "$pinned+cpu" 2> /dev/null ||
    install --retries 0 --timeout 20 --index-url "${TORCH_CPU_INDEX:-https://download.pytorch.org/whl/cpu}" \
        "$pinned+cpu" 2> /dev/null ||
    install "$pinned"
