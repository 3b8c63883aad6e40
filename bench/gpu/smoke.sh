#!/usr/bin/env bash
# Runs every plan of bench/gpu/staging on one GPU with real streams and events, against an untouched transformers model, and prints a
# table. First bench/gpu/prepare.sh where there is a network; then, on the GPU machine: bench/gpu/smoke.sh [result.json]
# Needs PyTorch with CUDA, transformers and safetensors there; DeepSpeed and what else is missing come from the wheels.
set -euo pipefail
cd "$(dirname "$0")/../.."
staging=bench/gpu/staging
python="${PYTHON:-python3}"
[ -f "$staging/fpdt.plan.json" ] || { echo "no plans in $staging: run bench/gpu/prepare.sh first" >&2; exit 1; }
command -v nvidia-smi >/dev/null || { echo "no nvidia-smi: this needs a machine with an NVIDIA GPU" >&2; exit 1; }
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
if ! "$python" -c 'import deepspeed, zmq, pydantic' 2>/dev/null; then
  "$python" -m pip install --quiet --no-index --no-deps --target "$site" "$staging"/wheels/*.whl
fi
export PYTHONPATH="$PWD/python:$site${PYTHONPATH:+:$PYTHONPATH}" DS_ACCELERATOR=cuda HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
"$python" bench/gpu/smoke.py "$staging" "${1:-bench/results/gpu-smoke.json}"
