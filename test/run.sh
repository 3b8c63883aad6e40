#!/usr/bin/env bash
# Installs what is missing, then runs every check and test, those of the two languages side by side; a failure ends it, loudly.
#   test/run.sh LANE              one lane alone: typescript or python, checks and tests of a language; breaks or runs, the scripts behind them
#   FPDT_PYTHON=/path/to/python   use that environment instead of .venv
set -euo pipefail
cd "$(dirname "$0")/.."

lane="${1:-all}"
case "$lane" in
  typescript | python | breaks | runs | all) ;;
  *) echo "unknown lane $lane, expected typescript, python, breaks or runs" >&2 && exit 2 ;;
esac
[ "${FPDT_IS_SET_UP:-}" ] || node scripts/setup.mjs --for test
export FPDT_IS_SET_UP=1
export FPDT_PYTHON="${FPDT_PYTHON:-$PWD/.venv/bin/python}"
export PATH="$PWD/node_modules/.bin:$PATH"
# Two ranks share the cores: one thread each keeps times steady and results equal from run to run.
export CI=1 OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1
current='set-up'
trap 'status=$?; [ $status -eq 0 ] || echo "FAILED: $current (exit $status)" >&2' EXIT

# step <name> <command...>: says what runs and how long it took.
step() {
  current="$1"
  shift
  local started=$SECONDS
  echo "== $current"
  "$@"
  echo "   ok in $((SECONDS - started)) s"
}
in_python() { (cd python && "$FPDT_PYTHON" -m "$@"); }

of_typescript() {
  step 'types' tsc --noEmit
  step 'biome' biome check .
  step 'oxlint, type-aware' oxlint --type-aware
  step 'schemas are current' node --import tsx scripts/generate-schemas.ts --check
  if command -v "${NVCC:-nvcc}" >/dev/null; then
    step 'CUDA back end' node native/cuda/build.mjs --check
  else
    echo '== CUDA back end: left out, there is no nvcc'
  fi
  step 'vitest' vitest run --tags-filter '!full'
  # The tarball, unpacked: npm run test:pack installs it, and runs it too.
  step 'package, a core' node --import tsx scripts/pack/pack.ts --core
  # A core of `npm run verify:full`: every head layout, policy and kind of file, some of the covering cases and some mixtures drawn anew.
  step 'parity, a core' node --import tsx scripts/parity/parity.ts --limit 1 --random 1
  # One of them with its copies on native threads.
  step 'parity on threads, a core' node --import tsx scripts/parity/parity.ts --device threads --only 'policy fpdt'
  # Of the families, whose layers and models the worker's own tests run, two whole runs.
  step 'parity of families, a core' node --import tsx scripts/parity/parity.ts --families --only softcap
}
of_python() {
  step 'ruff' in_python ruff check . ../bench
  step 'ruff format' in_python ruff format --check . ../bench
  step 'mypy' in_python mypy
  step 'mypy, bench' in_python mypy ../bench/gpu ../bench/host.py ../bench/copies.py ../bench/training
  step 'pytest' in_python pytest
}
# A core of `npm run verify:full`: one damage of each kind, to the plan that has most in it.
of_breaks() {
  step 'mutate, a core' node scripts/setup/bundled.mjs scripts/mutate/mutate.ts --sample 1 --only packed
}
of_runs() {
  step 'chaos, a core' node --import tsx scripts/chaos/chaos.ts --rounds 3
  step 'chaos of starts, a core' node --import tsx scripts/chaos/chaos.ts --start-up --rounds 4 --patience 60
  # Without its judgement of time: this machine may be shared.
  step 'demo, 3 steps' node --import tsx scripts/demo.ts --steps 3 --ignore-step-time
}
# side_by_side <lane> <lane>: each mostly waits for one core. Both come to their end; what the second one says is told last.
side_by_side() {
  local log pid status=0
  log=$(mktemp)
  bash test/run.sh "$2" >"$log" 2>&1 &
  pid=$!
  bash test/run.sh "$1" || status=$?
  wait "$pid" || status=$?
  cat "$log"
  rm "$log"
  return "$status"
}

if [ "$lane" != all ]; then
  "of_$lane"
  exit
fi

step 'TypeScript and Python' side_by_side typescript python
step 'breaks and runs' side_by_side runs breaks
current='all'
echo "all tests passed in $SECONDS s"
