#!/usr/bin/env bash
# Runs every benchmark, or those named: bash benchmarks/run.sh [NAME...]. Prints their JSON as one object.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tools/setup_venv.sh >&2

export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
names=("$@")
if [ ${#names[@]} -eq 0 ]; then
    # A benchmark is a file with a command line of its own; the others are its plain versions.
    # same_bytes and whole compare trees, which only a person can name; truth needs scikit-image,
    # and card a graphics card. ablation and consistency go on with a file of rows.
    for file in benchmarks/*.py; do
        if grep -q '^if __name__ == "__main__":' "$file" && \
            [[ "$file" != benchmarks/@(same_bytes|truth|whole|card|ablation|consistency).py ]]; then
            names+=("$(basename "$file" .py)")
        fi
    done
fi

comma=""
printf '{\n'
for name in "${names[@]}"; do
    printf '%s: running\n' "$name" >&2
    printf '%s"%s": ' "$comma" "$name"
    "$PY" -m "benchmarks.$name"
    comma=","
done
printf '}\n'
