#!/usr/bin/env bash
# Makes the pictures of the README and of docs/ that come from shipped clips: bash docs/make_pictures.sh
# It runs the demo (minutes; at once where its result is there). A second run gives the same files.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash demo.sh
source tools/setup_venv.sh

# The stretch that the demo compares is 12 frames long; the video plays it to and fro.
"$PY" -m tools.readme_animation demo-output/comparison.mp4 docs/demo.webp --every 1 --frames 24
"$PY" -m tools.readme_animation demo-output/painted.mp4 docs/painted.webp --widest 640 --every 1 --quality 60
"$PY" -m tools.mask_picture
"$PY" -m tools.format_picture
"$PY" -m tools.border_picture # ten minutes
"$PY" -m tools.tab_pictures # needs Chromium
