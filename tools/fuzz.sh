#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Feed mutated octets to the RSIP parser for so many seconds; what breaks it is kept in tests/fuzz/findings.
set -eu
cd "$(dirname "$0")/.."
. tools/setup.sh
setup test
mkdir -p tests/fuzz/findings
exec "$VENV/bin/python" tests/fuzz/fuzz_rsip.py -max_total_time="${1:-60}" -artifact_prefix=tests/fuzz/findings/
