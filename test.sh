#!/usr/bin/env bash
# All checks: ruff, type checker, tests. Arguments go to pytest: bash test.sh tests/flow -k warp
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source tools/setup_venv.sh

export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 PYTHONDONTWRITEBYTECODE=1
# A package in the lock carries u2netp's weights; the test that needs them finds them there.
export FRESCO_WEIGHTS="${FRESCO_WEIGHTS:-$("$PY" -c '
import importlib.util, pathlib
print(pathlib.Path(importlib.util.find_spec("rembg").origin).parent)')}"
status=0

printf '\nruff: style and likely faults (usually 1 s)\n'
"$PY" -m ruff check . || status=1

printf '\nimport-linter: who imports whom (usually 2 s)\n'
"$PY" -c "from importlinter.cli import lint_imports_command; lint_imports_command()" --no-cache || status=1

printf '\nbasedpyright: types (usually 20 to 60 s)\n'
"$PY" -m basedpyright --pythonpath "$PY" || status=1

printf '\npytest: all tests on 2 processes (usually 7 to 12 min)\n'
"$PY" -m pytest -n "${FRESCO_TEST_PROCESSES:-2}" --dist worksteal "$@" || status=$?
exit "$status"
