#!/usr/bin/env bash
# Correctness and speed on one GPU (H100, H200 or alike), in at most 8 minutes, without a network:
#   bash benchmarks/gpu.sh [--device cuda:0] [--out table.md]
# and, to see that it runs, anywhere:
#   bash benchmarks/gpu.sh --device cpu --size tiny
set -euo pipefail
cd "$(dirname "$0")/.."
python="${PYTHON:-.venv/bin/python}"
[ -x "$(command -v "$python")" ] || python=python3
export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
exec timeout --signal=INT 480 "$python" -m benchmarks.gpu "$@"
