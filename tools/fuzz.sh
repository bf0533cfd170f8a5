#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Feed mutated octets to every parser that a packet can reach: first a million control messages, the same every
# time, then whatever atheris finds, guided by coverage, for so many seconds with each target. What breaks something
# is kept in tests/fuzz/findings, and so is what has been found to lead to new places (the next run begins there).
#   tools/fuzz.sh           60 seconds each
#   tools/fuzz.sh 600 ike   600 seconds with that target only
set -eu
cd "$(dirname "$0")/.."
. tools/setup.sh
setup test
seconds=${1:-60}
export PYTHONPATH=src:tests
mkdir -p tests/fuzz/findings
failed=""
[ -n "${2-}" ] || "$VENV/bin/python" tests/fuzz/million.py 1000000
for file in tests/fuzz/fuzz_*.py; do
  name=$(basename "$file" .py)
  name=${name#fuzz_}
  [ -z "${2-}" ] || [ "$2" = "$name" ] || continue
  printf -- '--- %s\n' "$name"
  "$VENV/bin/python" tests/fuzz/target.py "$name" -max_total_time="$seconds" -print_final_stats=1 || failed="$failed $name"
done
[ -z "$failed" ] || { printf 'failed:%s; see tests/fuzz/findings\n' "$failed" >&2; exit 1; }
