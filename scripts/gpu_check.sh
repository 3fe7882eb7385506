#!/usr/bin/env bash
# Checks the full-size generator on a machine with one GPU and no network, in six minutes: correctness, time of every
# switch, memory, a training step of each stage. Writes gpu_check.json and gpu_check.png into the folder given (or $OUT).
#   scripts/gpu_check.sh [--dry] [FOLDER]       --dry: reduced width on the CPU, to see that the check itself works
set -euo pipefail
cd "$(dirname "$0")/.."
options=(); [ "${1:-}" = --dry ] && { options+=(--dry); shift; }
python=.venv/bin/python; [ -x "$python" ] || python=python3
exec env PYTHONPATH="$PWD" HF_HUB_OFFLINE=1 "$python" -m geo4d_ros.bench.speed.gpu_check \
    --out "${1:-${OUT:-outputs/gpu_check}}" "${options[@]}"
