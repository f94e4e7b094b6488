#!/usr/bin/env bash
# All checks: ruff, type checker, tests. Arguments go to pytest: bash test.sh tests/flow -k warp
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source tools/setup_venv.sh

export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
# A package in the lock carries u2netp's weights; the test that needs them finds them there.
export FRESCO_WEIGHTS="${FRESCO_WEIGHTS:-$("$PY" -c '
import importlib.util, pathlib
found = importlib.util.find_spec("rembg")
print(pathlib.Path(found.origin).parent if found else "")')}"
[ -n "$FRESCO_WEIGHTS" ] || unset FRESCO_WEIGHTS # as on Python 3.13, which that package does not serve
status=0
types="$(mktemp)"
trap 'kill "${checking:-}" 2>/dev/null || true; rm -f "$types"' EXIT

printf '\nruff: style and likely faults (usually 1 s)\n'
"$PY" -m ruff check . || status=1

printf '\nimport-linter: who imports whom (usually 2 s)\n'
"$PY" -c "from importlinter.cli import lint_imports_command; lint_imports_command()" --no-cache || status=1

# Tests often wait, for a browser or a program; the type checker works meanwhile, and after them.
nice "$PY" -m basedpyright --pythonpath "$PY" >"$types" 2>&1 &
checking=$!

printf '\npytest: all tests on 2 processes (usually 8 min)\n'
"$PY" -m pytest -n "${FRESCO_TEST_PROCESSES:-2}" --dist worksteal "$@" || tests=$?

printf '\nbasedpyright: types\n'
wait "$checking" || status=1
cat "$types"
exit "$((${tests:-0} ? ${tests:-0} : status))"
