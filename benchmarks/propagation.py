"""Patch synthesis: CPU and wall seconds, memory, energy and objective, by size and threads.

Prints JSON. `--sets FOLDER` paints every frame of reference sets of guides (a folder a set, with
style.png, k_*.png and t1_*.png) instead of a scene made here; `--original PROGRAM` lets another
program of the same command line paint them too, in the same run. Its objective needs its field:
one that writes OUTPUT.nnf beside its output (int32 width, height and two more, then x, y of every
match) has one in the report. `--before PROGRAM` compares with ours of an earlier version instead,
both in turns on one thread. Ours runs several times: the least seconds count, but two threads are
compared with one, taken in turn, by the medians, since a fast moment of one is no speed-up.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
from numpy.typing import NDArray

from fresco.propagation.program import find_program

Values = NDArray[np.float64]
Numbers = dict[str, float]
WEIGHTS = {"color": 6.0, "edge": 0.5, "temporal": 0.5, "pos": 2.0}
"""Guides of FRESCO by the names of the reference sets."""
EFFORT = ("-searchvoteiters", "12", "-patchmatchiters", "6")
RADIUS = 2
UNIFORMITY = 3500.0
LOOK_SECONDS = 0.005
"""Between two looks at whether a program has ended."""


@dataclass(frozen=True)
class Case:
    """One frame to paint."""

    name: str
    style: Path
    guides: tuple[tuple[Path, Path, float], ...]

    @property
    def words(self) -> list[str]:
        """Its part of the command line."""
        words = ["-style", str(self.style)]
        for source, target, weight in self.guides:
            words += ["-guide", str(source), str(target), "-weight", f"{weight:g}"]
        return [*words, *EFFORT]


def reference_cases(folder: Path, frames: Sequence[str]) -> Iterator[Case]:
    """Frames of reference sets; every frame of a set unless some are named."""
    for part in sorted(path.parent for path in folder.glob("*/style.png")):
        numbers = sorted(path.name[1:-10] for path in part.glob("t*_color.png"))
        for number in numbers:
            if frames and number not in frames:
                continue
            guides = tuple(
                (part / "style.png" if name == "temporal" else part / f"k_{name}.png",
                 part / f"t{number}_{name}.png", weight)
                for name, weight in WEIGHTS.items()
            )
            yield Case(f"{part.name} {number}", part / "style.png", guides)


def made_case(folder: Path, side: int) -> Case:
    """A painted scene that moved by some pixels."""
    random = np.random.default_rng(side)
    plain = cv2.resize(random.integers(0, 255, (side // 8, side // 8, 3), np.uint8),
                       (side + 16, side + 16), interpolation=cv2.INTER_CUBIC)
    painted = 255 - np.asarray(cv2.medianBlur(plain, 7), np.uint8)
    ramp = np.linspace(0, 255, side).astype(np.uint8)
    position = np.dstack([np.zeros((side, side), np.uint8), *np.meshgrid(ramp, ramp)])
    pictures = {
        "style": painted[:side, :side], "s_color": plain[:side, :side],
        "t_color": plain[5:side + 5, 9:side + 9], "t_temporal": painted[5:side + 5, 9:side + 9],
        "s_pos": position, "t_pos": np.roll(position, (-5, -9), (0, 1)),
    }
    for name in ("s", "t"):
        pictures[f"{name}_edge"] = cv2.Laplacian(pictures[f"{name}_color"], cv2.CV_8U)
    for name, picture in pictures.items():
        cv2.imwrite(str(folder / f"{side}_{name}.png"), picture)
    guides = tuple(
        (folder / f"{side}_{'style' if name == 'temporal' else f's_{name}'}.png",
         folder / f"{side}_t_{name}.png", weight)
        for name, weight in WEIGHTS.items()
    )
    return Case(f"made {side}", folder / f"{side}_style.png", guides)


def resident_peak(process: int) -> float:
    """MiB that a process held at most since it began; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((float(x.split()[1]) / 1024 for x in lines if x.startswith("VmHWM:")), 0.0)


def run(words: Sequence[str], threads: int) -> Numbers:
    """Seconds and memory of a program, from its start to its end."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    start, peak = time.perf_counter(), 0.0
    process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL)
    while True:
        # Not ru_maxrss, which begins at the size of the process that started the program.
        peak = max(peak, resident_peak(process.pid))
        ended, status, used = os.wait4(process.pid, os.WNOHANG)
        if ended:
            break
        time.sleep(LOOK_SECONDS)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{words[0]} ended with exit code {process.returncode}")
    return {
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 3),
        "wall_seconds": round(time.perf_counter() - start, 3),
        "peak_mib": round(peak, 1),
    }


def picture(path: Path) -> Values:
    """[H, W, 3]; order of the channels does not matter here."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise SystemExit(f"{path} cannot be read")
    return image.astype(np.float64)


def patch_sum(values: Values) -> Values:
    """Sum over the patch around every pixel."""
    side = (2 * RADIUS + 1,) * 2
    summed = cv2.boxFilter(values, -1, side, normalize=False, borderType=cv2.BORDER_CONSTANT)
    return np.asarray(summed, np.float64)


def energy(case: Case, output: Path, field: Path) -> Numbers:
    """Mean distance E, mean use U of the source, and E + 3500 U, as PatchMatch minimises them."""
    header = np.fromfile(field, np.int32, 4)
    matches = np.fromfile(field, np.int32, offset=16).reshape(header[1], header[0], 2)
    height, width = matches.shape[:2]
    rows, columns = np.mgrid[:height, :width]
    pairs = [(picture(case.style), picture(output), 1.0)]
    pairs += [(picture(a), picture(b), weight) for a, b, weight in case.guides]
    source_rows, source_columns = pairs[0][0].shape[:2]
    total = np.zeros((height, width))
    for dy in range(-RADIUS, RADIUS + 1):
        for dx in range(-RADIUS, RADIUS + 1):
            y, x = (rows + dy).clip(0, height - 1), (columns + dx).clip(0, width - 1)
            v = (matches[..., 1] + dy).clip(0, source_rows - 1)
            u = (matches[..., 0] + dx).clip(0, source_columns - 1)
            for source, target, weight in pairs:
                total += weight * np.square(target[y, x] - source[v, u]).mean(axis=-1)
    counts = np.zeros((source_rows, source_columns))
    np.add.at(counts, (matches[..., 1], matches[..., 0]), 1)
    area = (2 * RADIUS + 1) ** 2
    ideal = height * width / counts.size * area
    use = patch_sum(patch_sum(counts)) / area / ideal
    mean, used = float(total.mean()), float(use[matches[..., 1], matches[..., 0]].mean())
    return {"energy": round(mean, 2), "use": round(used, 4),
            "objective": round(mean + UNIFORMITY * used, 2)}


@dataclass(frozen=True)
class Painter:
    """Our program at work on a case."""

    program: Path
    case: Case
    folder: Path
    repeats: int

    @property
    def output(self) -> Path:
        """What was painted last."""
        return self.folder / "ours.png"

    @property
    def field(self) -> Path:
        """Its field."""
        return self.folder / "ours.nnf"

    def once(self, *options: str, threads: int = 1) -> Numbers:
        """Seconds and memory of one run."""
        words = [str(self.program), *self.case.words, "-output", str(self.output),
                 "-nnf", str(self.field), *options, "-threads", str(threads)]
        return run(words, threads)

    def energy(self) -> Numbers:
        """Of what was painted last."""
        return energy(self.case, self.output, self.field)

    def paint(self, *options: str, threads: Sequence[int] = (1,)) -> list[Numbers]:
        """One frame by each of these numbers of threads."""
        turns = [
            [self.once(*options, threads=count) for count in threads] for _ in range(self.repeats)
        ]
        quality = self.energy()
        return [
            least(runs) | quality
            | {"median_wall_seconds": statistics.median(n["wall_seconds"] for n in runs)}
            for runs in zip(*turns, strict=True)
        ]


def least(runs: Sequence[Numbers]) -> Numbers:
    """The least of each number."""
    return {key: min(numbers[key] for numbers in runs) for key in runs[0]}


def paint_original(program: Path, case: Case, folder: Path) -> Numbers:
    """One frame by another program, on one thread."""
    output = folder / "original.png"
    numbers = run([str(program), *case.words, "-output", str(output)], 1)
    field = folder / "original.png.nnf"
    return numbers | (energy(case, output, field) if field.exists() else {})


def compared(ours: Numbers, original: Numbers) -> Numbers:
    """How many times less CPU, and how much more of the objective, in percent."""
    result = {"times_less_cpu": round(original["cpu_seconds"] / ours["cpu_seconds"], 1)}
    if "objective" in original:
        more = ours["objective"] / original["objective"] - 1
        result["objective_percent"] = round(100 * more, 3)
    return result


def compare_before(painter: Painter, before: Path) -> Mapping[str, object]:
    """Both qualities by an earlier program and by this one, in turns."""
    apart = painter.folder / "before"
    apart.mkdir(exist_ok=True)
    pair = (replace(painter, program=before, folder=apart), painter)
    found: dict[str, object] = {"case": painter.case.name}
    for quality in ("balanced", "best"):
        turns = [[each.once("-quality", quality) for each in pair] for _ in range(painter.repeats)]
        old, new = (least(runs) | each.energy()
                    for runs, each in zip(zip(*turns, strict=True), pair, strict=True))
        found[f"{quality}, before"], found[quality] = old, new | compared(new, old)
    return found


def measure(painter: Painter, original: Path | None) -> Mapping[str, object]:
    """All numbers of one frame."""
    case, folder = painter.case, painter.folder
    one, two = painter.paint(threads=(1, 2))
    median = "median_wall_seconds"
    one["wall_of_two_threads"] = round(one[median] / two[median], 2)
    found: dict[str, Numbers] = {
        "balanced": one, "balanced, 2 threads": two,
        "best": painter.paint("-quality", "best")[0],
        "from its own field": painter.paint("-start", str(painter.field))[0],
    }
    if original:
        theirs = paint_original(original, case, folder)
        for numbers in found.values():
            numbers |= compared(numbers, theirs)
        found["original"] = theirs
    return {"case": case.name, **found}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--original", type=Path, help="another program of the same command line")
    parser.add_argument("--before", type=Path, help="program of an earlier version of ours")
    parser.add_argument("--sets", type=Path, help="folder of reference sets")
    parser.add_argument("--repeats", type=int, default=3, help="runs of ours, the least counts")
    parser.add_argument("--frames", nargs="*", default=[], help="frame numbers of the sets")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases = (
            reference_cases(options.sets, options.frames) if options.sets
            else (made_case(folder, side) for side in (128, 256, 512))
        )
        painters = (Painter(find_program(), case, folder, options.repeats) for case in cases)
        report = [
            compare_before(painter, options.before) if options.before
            else measure(painter, options.original)
            for painter in painters
        ]
    json.dump({"benchmark": "propagation", "effort": EFFORT, "cases": report}, sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
