#!/usr/bin/env bash
# Makes what run.sh needs, on a machine with a network and Node, into bench/gpu/staging, which git ignores: plans, tokens, sketches of
# fp64 runs, and the wheels that a bare GPU machine with PyTorch lacks. At most 64 MiB; take the repository with that folder along.
#   bash bench/gpu/prepare.sh [--dry] [FOLDER]
# PIP names the Python whose pip fetches the wheels (any version; default python3). --dry: what a run on a CPU needs, without wheels.
set -euo pipefail
cd "$(dirname "$0")/../.."
device=cuda folder=''
for argument in "$@"; do
  case "$argument" in
    --dry) device=cpu ;;
    -*) echo "unknown option $argument; known: --dry" >&2; exit 2 ;;
    *) [ -z "$folder" ] || { echo "one folder, found $folder and $argument" >&2; exit 2; }; folder="$argument" ;;
  esac
done
staging="${folder:-bench/gpu/staging/$device}"
# What it makes replaces what it made before, and nothing else.
if [ -e "$staging" ] && [ ! -d "$staging" ]; then echo "$staging is no folder" >&2; exit 2; fi
if [ -n "$(ls -A "$staging" 2>/dev/null)" ] && [ ! -e "$staging/STAGED" ]; then
  echo "$staging has files that this did not make: give an empty folder, or one that is not there" >&2
  exit 2
fi
# shellcheck source=bench/gpu/python.sh
source bench/gpu/python.sh
rm -rf "$staging"
mkdir -p "$staging"
touch "$staging/STAGED"
node --import tsx bench/gpu/stage.ts "$device" "$staging"
if [ "$device" = cuda ]; then
  pip() { PYTHONPATH='' "${PIP:-python3}" -m pip "$@" --quiet --no-deps; }
  # DeepSpeed has no wheel on the package index; built without its ops it is one for every machine.
  DS_BUILD_OPS=0 pip wheel --wheel-dir "$staging/wheels" "$(grep '^deepspeed==' bench/gpu/packages.txt)"
  grep -v '^deepspeed==' bench/gpu/packages.txt >"$staging/others.txt"
  pip download --only-binary=:all: --python-version 3.12 --implementation cp --abi cp312 --abi abi3 --abi none \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_26_x86_64 \
    --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 --platform any \
    --dest "$staging/wheels" --requirement "$staging/others.txt"
  rm "$staging/others.txt"
fi
commit=$(git rev-parse HEAD 2>/dev/null || echo unknown)
OMP_NUM_THREADS="${OMP_NUM_THREADS:-2}" DS_ACCELERATOR=cpu "$python" -m gpu.stage "$device" "$staging" "$commit"
