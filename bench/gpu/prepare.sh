#!/usr/bin/env bash
# Makes what smoke.sh needs, on a machine with a network and Node: plans, a token file, and the wheels that a bare GPU machine
# lacks. Everything lands in bench/gpu/staging, which git ignores; take the repository with that folder to the GPU machine.
#   PYTHON=python3.12 bench/gpu/prepare.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
staging=bench/gpu/staging
python="${PYTHON:-python3}"
mkdir -p "$staging/wheels"
npx --no -- tsx bench/gpu/plans.ts "$staging"
DS_BUILD_OPS=0 "$python" -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir "$staging/wheels" deepspeed==0.19.8
"$python" -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 --implementation cp --abi cp312 --abi abi3 --abi none \
  --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 --platform any --dest "$staging/wheels" \
  pyzmq==27.3.0 pydantic==2.14.3 pydantic-core==2.50.4 annotated-types typing-inspection hjson msgpack einops py-cpuinfo ninja psutil tqdm packaging
ls "$staging" "$staging/wheels"
