"""`fresco propagate` of one or several source trees of this project, in turns in one run.

    python -m benchmarks.whole --tree before=OLD --tree after=. --clip CLIP

Keyframes are made by OpenCV's stylisation. Prints JSON: for every tree and number of workers the
median CPU seconds, of Python and of the synthesis program where one process runs Python, wall
seconds, and the peak of the memory of all processes (shared pages counted once); then ratios of
each tree to the first. `two_cores` is how many times faster two cores would be than one: from how
often one thread of the run could work, and how often more could. Other work on the machine does
not change it much, as it does wall seconds. It wants two cores at least.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import av
import cv2
import numpy as np

from fresco.video.reader import open_source
from fresco.video.size import MULTIPLE, scale_frame, working_size

RUN = """
import json, resource, runpy, sys
code = 0
try:
    runpy.run_module("fresco", run_name="__main__", alter_sys=True)
except SystemExit as end:
    code = end.code
own, others = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
print(json.dumps({"own": own.ru_utime + own.ru_stime, "others": others.ru_utime + others.ru_stime}))
sys.exit(code or 0)
"""
LOOK_SECONDS, LOOKS_FOR_MEMORY = 0.1, 10
"""Seconds between two looks at threads, and how many of them to a look at memory."""
MIB = 1024
"""KiB in a MiB."""


def write_case(
    clip: Path, folder: Path, *, frames: int, side: int, interval: int,
    size: tuple[int, int] | None = None,
) -> None:
    """The first frames of a clip at a size, and its stylised keyframes.

    Args:
        side: shorter side in pixels.
        size: width and height in the place of `side`, whatever the clip's shape.
    """
    with open_source(clip) as source:
        size = size or working_size(source.info.width, source.info.height, side)
        images = [scale_frame(frame, size) for frame in source.frames(0, frames - 1)]
    with av.open(str(folder / "clip.mp4"), "w") as output:
        stream: Any = output.add_stream("libx264", rate=24)
        stream.width, stream.height = size
        stream.pix_fmt, stream.options = "yuv420p", {"crf": "12"}
        for image in images:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        output.mux(stream.encode(None))
    (folder / "keys").mkdir()
    for number in range(0, frames, interval):
        key = cv2.stylization(images[number], sigma_s=40, sigma_r=0.4)
        cv2.imwrite(str(folder / "keys" / f"{number:06d}.png"), np.asarray(key)[..., ::-1])


def list_family(root: int) -> Iterator[int]:
    """A process and all its descendants."""
    yield root
    try:
        children = Path(f"/proc/{root}/task").iterdir()
        found = [child for task in children for child in (task / "children").read_text().split()]
    except OSError:
        return
    for child in found:
        yield from list_family(int(child))


def measure_memory(root: int) -> float:
    """MiB of a process and its descendants now."""
    total = 0
    for process in list_family(root):
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
    return total / MIB


def count_ready(root: int) -> int:
    """Threads of a process and its descendants that work, or could if a core was free."""
    ready = 0
    for process in list_family(root):
        for state in Path(f"/proc/{process}/task").glob("*/stat"):
            try:
                ready += state.read_text().rpartition(")")[2].split()[0] == "R"
            except OSError:
                continue
    return ready


def run(tree: Path, folder: Path, side: int, workers: int, cores: str) -> dict[str, float]:
    """One run of a tree: seconds and memory."""
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    words = [
        sys.executable, "-c", RUN, "propagate", str(folder / "clip.mp4"),
        "--keys", str(folder / "keys"), "-o", str(out / "out.mp4"), "--resolution", str(side),
        "--flow", "dis", "--workers", str(workers), "--no-detect-shots", "--quiet",
    ]
    environment = os.environ | {
        "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    start, peak = time.monotonic(), 0.0
    process = subprocess.Popen(
        ["taskset", "-c", cores, *words] if cores else words, cwd=tree, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )
    looks, one, more = 0, 0, 0
    while process.poll() is None:
        ready = count_ready(process.pid)
        one, more, looks = one + (ready == 1), more + (ready > 1), looks + 1
        if looks % LOOKS_FOR_MEMORY == 1:
            peak = max(peak, measure_memory(process.pid))
        time.sleep(LOOK_SECONDS)
    wall = time.monotonic() - start
    said, wrong = process.communicate()
    if process.returncode:
        raise SystemExit(f"{tree} failed:\n{said}\n{wrong}")
    spent = json.loads(said.strip().splitlines()[-1])
    found = {
        "cpu_seconds": spent["own"] + spent["others"], "wall_seconds": wall,
        "peak_mib": peak, "two_cores": (one + 2 * more) / max(1, one + more),
    }
    if workers == 1:
        found |= {"python_seconds": spent["own"], "program_seconds": spent["others"]}
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tree", action="append", required=True, metavar="NAME=FOLDER")
    parser.add_argument("--clip", type=Path, required=True)
    parser.add_argument("--side", type=int, default=512, help="shorter side in pixels")
    parser.add_argument("--size", type=int, nargs=2, metavar=("WIDTH", "HEIGHT"),
                        help="of the frames, both multiples of 64, in the place of --side")
    parser.add_argument("--frames", type=int, default=61)
    parser.add_argument("--interval", type=int, default=15, help="frames from key to key")
    parser.add_argument("--workers", type=int, nargs="+", default=[1])
    parser.add_argument("--cores", default="", help="cores of all runs, as taskset takes them")
    parser.add_argument("--rounds", type=int, default=1)
    given = parser.parse_args()
    size = (given.size[0], given.size[1]) if given.size else None
    if size:
        if any(side % MULTIPLE for side in size):
            parser.error(f"--size is {size[0]} {size[1]}; give multiples of {MULTIPLE}.")
        given.side = min(size)
    trees = {name: Path(folder).resolve()
             for name, _, folder in (word.partition("=") for word in given.tree)}
    cases = [(name, workers) for workers in given.workers for name in trees]
    found: dict[tuple[str, int], list[dict[str, float]]] = {case: [] for case in cases}
    with tempfile.TemporaryDirectory(prefix="fresco-whole-") as place:
        folder = Path(place)
        write_case(given.clip, folder, frames=given.frames, side=given.side,
                   interval=given.interval, size=size)
        for _ in range(given.rounds):
            for name, workers in cases:
                found[name, workers].append(
                    run(trees[name], folder, given.side, workers, given.cores)
                )
    medians = {
        case: {key: round(statistics.median(each[key] for each in runs), 2) for key in runs[0]}
        for case, runs in found.items()
    }
    first = next(iter(trees))
    json.dump({
        "benchmark": "whole", "clip": given.clip.name, "side": given.side, "size": given.size,
        "frames": given.frames, "interval": given.interval, "rounds": given.rounds,
        "cores": given.cores or "all",
        "results": [
            {"tree": name, "workers": workers, **numbers,
             "of_first_tree": {key: round(value / medians[first, workers][key], 3)
                               for key, value in numbers.items()}}
            for (name, workers), numbers in medians.items()
        ],
    }, sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
