#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Feed mutated octets to the RSIP parser and to a live gateway: first a million messages, the same every time,
# then whatever atheris finds, guided by coverage, for so many seconds each. What breaks something is kept in
# tests/fuzz/findings.
set -eu
cd "$(dirname "$0")/.."
. tools/setup.sh
setup test
export PYTHONPATH=src:tests
mkdir -p tests/fuzz/findings
"$VENV/bin/python" tests/fuzz/million.py 1000000
for target in rsip gateway; do
  "$VENV/bin/python" "tests/fuzz/fuzz_$target.py" -max_total_time="${1:-60}" -artifact_prefix=tests/fuzz/findings/
done
