"""Memory of a whole run against its length: 50 frames and 500, each in processes of its own.

Prints JSON: peak resident MiB of the command itself and of it with its workers (pages
that processes share count in each), the ratios of long to short, and seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import psutil

from demo.make_model import write_model
from fresco.video.writer import VideoWriter

LENGTHS = (50, 500)
SIDE = 128
WANTED_RATIO = 1.1
INTERVAL = 0.05
"""Seconds between looks at the processes."""
MIB = 2**20


def write_clip(path: Path, frames: int) -> None:
    """A texture that slides under a still one: motion, occlusion, no cut."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (40, 40, 3)).astype(np.uint8)
    large = cv2.resize(coarse, (SIDE * 4, SIDE * 4), interpolation=cv2.INTER_CUBIC)
    field = np.asarray(large, dtype=np.uint8)
    with VideoWriter(path, SIDE, SIDE, Fraction(25)) as writer:
        for number in range(frames):
            shift = int(SIDE * (1 + np.sin(number / 40)))
            frame = field[shift : shift + SIDE, number % SIDE : number % SIDE + SIDE].copy()
            frame[32:64, 32:64] = field[:32, :32]
            writer.write(frame)


def _resident(process: psutil.Process, known: set[int]) -> tuple[int, int, set[int]]:
    """Bytes of the process alone and with all below it, and who they are.

    Those that just ended count nothing, nor those not `known` at the look before: a child
    between its birth and its own program shows all pages of its parent as its own.
    """
    total, alone, family = 0, 0, set[int]()
    try:
        members = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0, 0, family
    for member in members:
        try:
            size = member.memory_info().rss
        except psutil.NoSuchProcess:
            continue
        family.add(member.pid)
        total += size if member.pid in known else 0
        alone = size if member is process else alone
    return alone, total, family


def measured(command: list[str]) -> dict[str, float]:
    """Peak MiB and seconds of a command that must succeed."""
    start, alone, together, known = time.monotonic(), 0, 0, set[int]()
    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen(command, stdout=said, stderr=said)
        process = psutil.Process(child.pid)
        while child.poll() is None:
            own, total, known = _resident(process, known)
            alone, together = max(alone, own), max(together, total)
            time.sleep(INTERVAL)
        if child.returncode:
            said.seek(0)
            sys.exit(f"{' '.join(command)} failed:\n{said.read().decode(errors='replace')}")
    return {
        "peak_mib": round(alone / MIB, 1),
        "peak_mib_with_workers": round(together / MIB, 1),
        "seconds": round(time.monotonic() - start, 1),
    }


def translation(clip: Path, model: Path, output: Path, workers: int) -> list[str]:
    """The command of one whole run."""
    return [
        sys.executable, "-m", "fresco", "translate", str(clip), "-o", str(output),
        "--model", str(model), "--prompt", "a painting", "--flow", "dis", "--offline",
        "--resolution", str(SIDE), "--steps", "4", "--batch-size", "4", "--workers", str(workers),
        "--optimization-iterations", "2",
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lengths", type=int, nargs=2, default=LENGTHS, metavar="FRAMES")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    runs: dict[int, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="fresco-memory-") as scratch:
        folder = Path(scratch)
        model = write_model(folder / "model")
        for frames in given.lengths:
            clip = folder / f"clip-{frames}.mp4"
            write_clip(clip, frames)
            command = translation(clip, model, folder / f"result-{frames}.mp4", given.workers)
            runs[frames] = measured(command)
    short, long = (runs[frames] for frames in given.lengths)
    print(json.dumps({
        "what": f"whole run at {SIDE}x{SIDE}, {given.lengths[0]} and {given.lengths[1]} frames",
        "runs": runs,
        "ratio": round(long["peak_mib"] / short["peak_mib"], 3),
        "ratio_with_workers": round(
            long["peak_mib_with_workers"] / short["peak_mib_with_workers"], 3
        ),
        "wanted_ratio": WANTED_RATIO,
    }, indent=1))


if __name__ == "__main__":
    main()
