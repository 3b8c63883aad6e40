#!/usr/bin/env bash
# All steps of bench/gpu on one GPU, in less than nine minutes; or, with --dry, the same on a CPU with the tiny sizes of its table.
#   bash bench/gpu/run.sh [--dry] [--staging FOLDER] [--only STEP,STEP] [--coverage]
# First bench/gpu/prepare.sh where there are a network and Node; --dry does that by itself unless it is given a folder. Lines land in
# $OUT/result.jsonl (default: runs/gpu) as they are known, the table that is printed last in $OUT/table.txt; lines of an earlier run move
# to result.1.jsonl and so on.
set -euo pipefail
cd "$(dirname "$0")/../.."
coverage='' device=cuda staging='' more=() fork=() command="bash bench/gpu/run.sh $*"
needs() { [ $# -gt 1 ] || { echo "$1 needs a value" >&2; exit 2; }; }
while [ $# -gt 0 ]; do
  case "$1" in
    --dry) device=cpu fork=(--fork) ;;
    --staging) needs "$@"; staging="$2"; shift ;;
    --only) needs "$@"; more+=(--only "$2"); shift ;;
    --coverage) coverage=yes; more+=(--runner gpu.coverage) ;;
    *) echo "unknown option $1; known: --dry --staging --only --coverage" >&2; exit 2 ;;
  esac
  shift
done
# Each line that a step reaches is noted in a process of its own.
[ -z "$coverage" ] || fork=()
# shellcheck source=bench/gpu/python.sh
source bench/gpu/python.sh
if [ -z "$staging" ]; then
  staging="bench/gpu/staging/$device"
  [ "$device" = cuda ] || bash bench/gpu/prepare.sh --dry
fi
export OUT="${OUT:-$PWD/runs/gpu}" PYTHONUNBUFFERED=1 DS_ACCELERATOR="$device" HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
# What an earlier run found is kept beside this one's.
if [ -e "$OUT/result.jsonl" ]; then
  number=1
  while [ -e "$OUT/result.$number.jsonl" ]; do number=$((number + 1)); done
  mv "$OUT/result.jsonl" "$OUT/result.$number.jsonl"
fi
rm -rf "$OUT/table.txt" "$OUT/coverage"
code=0
"$python" -m gpu.driver --device "$device" --staging "$staging" --out "$OUT" --command "$command" "${fork[@]}" "${more[@]}" || code=$?
[ -z "$coverage" ] || "$python" -m gpu.coverage --list "$OUT"
exit "$code"
