#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Play every scenario so many times; stop at the first that fails.
set -eu
cd "$(dirname "$0")/.."
. tools/setup.sh
setup test
for round in $(seq "${1:-10}"); do
  printf -- '--- round %s\n' "$round"
  for name in $("$VENV/bin/python" -m isthmus lab list --json | "$VENV/bin/python" -c \
    'import json, sys; print(*(each["name"] for each in json.load(sys.stdin)))'); do
    "$VENV/bin/python" -m isthmus lab run "$name"
  done
done
