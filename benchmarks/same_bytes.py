"""Whether two source trees of this project make the same bytes on this machine.

    python -m benchmarks.same_bytes --before TREE --after TREE

Each tree, in processes of its own, makes the demo's untrained model, translates a clip, propagates
two of the keyframes, and answers img2img calls in the tests' stand-in for a WebUI. Both work in
the same folder, one after the other, so that paths written into files are equal too. Prints JSON:
how many files and decoded frames are equal, and the name of each that is not.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np

FRAMES, SIDE = 14, 64
CUT = 8
"""First frame of the second shot."""
TRANSLATE = (
    "--model", "model", "--prompt", "a painting", "--negative-prompt", "blurry", "--resolution",
    "64", "--steps", "6", "--strength", "0.5", "--seed", "3", "--optimization-iterations", "3",
    "--min-interval", "2", "--max-interval", "3", "--batch-size", "3", "--shot-min-length", "2",
    "--background-smoothing", "--freeu-b1", "1.1", "--freeu-s1", "0.9", "--flow", "dis",
    "--workers", "1", "--compare", "--quiet",
)
"""Every part of the guidance, several batches, two shots, both propagations and all measures."""
PROPAGATE = ("--resolution", "64", "--flow", "dis", "--workers", "1", "--quiet")
IMG2IMG = """
import sys, torch
from pathlib import Path
torch.set_num_threads(1)
from tests.helpers.webui.double import ROOT, running
from tests.helpers.webui.requests import QUICK, frames
folder = Path("img2img")
folder.mkdir()
calls = {
    "frames": (frames(7), QUICK | {"batch_size": 3}),
    "smoothed": (frames(4), QUICK | {"background_smoothing": True, "freeu_b1": 1.2}),
    "video": (frames(1), QUICK | {"path": "clip.mp4", "keys": "0,3,7", "last_frame": 7}),
}
for name, (images, options) in calls.items():
    with running(ROOT / "scripts" / "fresco.py", folder) as host:
        answer = host.img2img(images, options)
        assert not host.swallowed, host.swallowed
    for number, image in enumerate(answer.images):
        image.save(folder / f"{name}-{number}.png")
    (folder / f"{name}.txt").write_text("\\n\\n".join(answer.infotexts))
"""
"""Runs in either tree: imports only names that both have."""


def write_source(path: Path) -> None:
    """A clip of two shots with a square that moves over coarse noise."""
    random = np.random.default_rng(0)
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream("libx264", rate=25)
        stream.width = stream.height = SIDE
        stream.pix_fmt, stream.options = "yuv420p", {"crf": "8"}
        grounds = random.integers(0, 120, (2, SIDE // 8, SIDE // 8, 3), np.uint8)
        for number in range(FRAMES):
            ground = grounds[int(number >= CUT)].repeat(8, 0).repeat(8, 1)
            image = 120 * int(number >= CUT) + np.roll(ground, number, 1)
            image[16:40, 4 + 2 * number:24 + 2 * number] = (220, 60, 40)
            frame = av.VideoFrame.from_ndarray(image.astype(np.uint8), "rgb24")
            output.mux(stream.encode(frame.reformat(format="yuv420p")))
        output.mux(stream.encode(None))


def run(tree: Path, folder: Path, *words: str) -> None:
    """A command of Python in a folder, with a tree's sources."""
    environment = os.environ | {
        "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{tree}: {' '.join(words)[:200]}\n{done.stdout}\n{done.stderr}")


def make(tree: Path, folder: Path) -> None:
    """Everything that is compared."""
    run(tree, folder, "-m", "demo.make_model", "model")
    run(tree, folder, "-m", "fresco", "translate", "clip.mp4", "-o", "translated.mp4", *TRANSLATE)
    made = sorted((folder / "translated.fresco").glob("keys-*/*.png"))
    (folder / "keys").mkdir()
    for number, key in ((3, made[1]), (CUT + 2, made[-1])):
        shutil.copy(key, folder / "keys" / f"{number:06d}.png")
    run(tree, folder, "-m", "fresco", "propagate", "clip.mp4", "--keys", "keys", "-o",
        "propagated.mp4", *PROPAGATE)
    run(tree, folder, "-c", IMG2IMG)


def digests(folder: Path) -> dict[str, str]:
    """Hash of every file, and of every decoded frame of a video, by name."""
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if not path.is_file() or path.name == "lock":
            continue
        found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        if path.suffix == ".mp4":
            with av.open(str(path)) as video:
                for number, frame in enumerate(video.decode(video=0)):
                    data = frame.to_ndarray(format="rgb24").tobytes()
                    found[f"{name} frame {number}"] = hashlib.sha256(data).hexdigest()
    return found


def made_by(tree: Path, folder: Path) -> dict[str, str]:
    """What a tree makes in a folder that is empty before and gone afterwards."""
    folder.mkdir()
    write_source(folder / "clip.mp4")
    make(tree, folder)
    found = digests(folder)
    shutil.rmtree(folder)
    return found


def compared(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, Any]:
    """What is equal, what differs, and what only one side has."""
    both = before.keys() & after.keys()
    different = sorted(name for name in both if before[name] != after[name])
    return {
        "equal": len(both) - len(different),
        "equal_images_and_frames": sum(
            name.endswith(".png") or ".mp4 frame" in name for name in both - set(different)
        ),
        "different": different,
        "only_before": sorted(before.keys() - after.keys()),
        "only_after": sorted(after.keys() - before.keys()),
    }


def main() -> None:
    """Compare and print; the exit code is 1 if anything differs."""
    parser = argparse.ArgumentParser(description="Compare two source trees.")
    parser.add_argument("--before", type=Path, required=True, help="A source tree.")
    parser.add_argument("--after", type=Path, required=True, help="Another.")
    trees = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fresco-") as name:
        folder = Path(name) / "run"
        result = compared(*(made_by(tree.resolve(), folder)
                            for tree in (trees.before, trees.after)))
    sys.stdout.write(json.dumps(result, indent=1) + "\n")
    raise SystemExit(bool(result["different"] or result["only_before"] or result["only_after"]))


if __name__ == "__main__":
    main()
