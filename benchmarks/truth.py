"""Propagation against known truth: PSNR, SSIM and edges that no side explains.

Prints JSON. The scene of `benchmarks.scene` gives frames whose stylised version is known exactly;
every twelfth of those is a keyframe. `fresco propagate` paints the frames between them, in
processes of its own, and each is compared with its exact version: over the whole frame, and near
the edges where one surface ends over another. `exact motion` is the nearer keyframe that shows a
pixel, moved by the exact flow: what is left to gain.

`--other FOLDER` measures another version of this project too, such as a work tree of a release.
`--clips FOLDER` adds clips whose truth is unknown, with keyframes by OpenCV's stylization.
`--program FILE` lets another synthesis program with the command line of ebsynth paint some frames
from the first keyframe, and ours the same ones from the same guides.

Edges that no side explains: the gradient of a frame is compared with that of either side it was
made from, and the less of both differences counts, as a root mean square over a neighbourhood. A
double image, a seam and a blurred mean all have gradients that neither side has.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks import scene
from benchmarks.propagation import EFFORT, run
from fresco.flow.arrays import pixel_grid
from fresco.propagation.guides import KeySources
from fresco.propagation.program import find_program

ROOT = Path(__file__).resolve().parents[1]
Image = NDArray[np.uint8]
Values = NDArray[np.float64]
Numbers = dict[str, float]

NEIGHBOURHOOD = 3.0
"""Sigma in pixels of the neighbourhood that one side must explain."""
CLIP_FRAMES = 13
"""Frames of a clip, a keyframe at either end."""
SIDE = scene.SIDE
RECORDER = """
import importlib.abc, importlib.util, os, sys

class Recorder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "fresco.propagation.render":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module
        def load_and_wrap(module):
            load(module)
            render = module.render
            def recorded(sides, *others):
                import numpy as np
                image = render(sides, *others)
                name = f"{os.getpid()}-{len(os.listdir(folder))}.npz"
                np.savez(os.path.join(folder, name), forward=sides.forward,
                         backward=sides.backward, image=image)
                return image
            module.render = recorded
        spec.loader.exec_module = load_and_wrap
        return spec

folder = os.environ["FRESCO_TRUTH_SIDES"]
sys.meta_path.insert(0, Recorder())
"""
"""Run by every process of a measured run before its own program: keeps both sides of each frame.
All versions have `render(sides, ...)`, which makes a frame of `sides.forward` and `.backward`."""


@dataclass(frozen=True)
class Clip:
    """Frames to propagate over."""

    name: str
    sources: Sequence[Image]
    keys: Mapping[int, Image]
    truth: Sequence[Image] | None = None

    @property
    def between(self) -> list[int]:
        """Numbers of the frames between the keys."""
        return [n for n in range(min(self.keys), max(self.keys)) if n not in self.keys]

    @property
    def side(self) -> int:
        """Shorter side in pixels."""
        return min(self.sources[0].shape[:2])

    @property
    def scale(self) -> int:
        """Of the scene."""
        return self.side // scene.SIDE


def known_clip(scale: int) -> Clip:
    """The scene with exact keyframes, its side so many times the usual."""
    frames = [scene.render(time, scale) for time in range(scene.FRAMES)]
    truth = [style for _, style in frames]
    return Clip("scene", [source for source, _ in frames],
                     {key: truth[key] for key in scene.KEYS}, truth)


def read_clip(path: Path) -> Clip:
    """The beginning of a clip, with keyframes by OpenCV's stylization."""
    video = cv2.VideoCapture(str(path))
    frames: list[Image] = []
    while len(frames) < CLIP_FRAMES:
        good, image = video.read()
        if not good:
            raise SystemExit(f"{path} has {len(frames)} frames; {CLIP_FRAMES} are needed.")
        wide = round(SIDE * image.shape[1] / image.shape[0] / 64) * 64
        small = cv2.resize(image, (wide, SIDE), interpolation=cv2.INTER_AREA)
        frames.append(np.asarray(small[..., ::-1], np.uint8).copy())
    keys = {
        key: np.asarray(cv2.stylization(frames[key][..., ::-1].copy()), np.uint8)[..., ::-1]
        for key in (0, CLIP_FRAMES - 1)
    }
    return Clip(path.stem, frames, keys)


def save(path: Path, image: Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image[..., ::-1] if image.ndim == 3 else image)


@dataclass(frozen=True)
class Result:
    """What a version's command line made of a clip."""

    images: Mapping[int, Image]
    """The frames between the keys."""
    sides: Mapping[int, tuple[Image, Image]]
    """What each was made from."""
    seconds: float
    """Of CPU."""


def save_motion(folder: Path, *, hidden: bool = True) -> None:
    """The scene's exact motion between neighbours, as files that the command line reads."""
    folder.mkdir(parents=True)
    for number in range(scene.FRAMES):
        arrays: dict[str, NDArray] = {}
        for name, other in (("forward", number + 1), ("backward", number - 1)):
            arrays[name], covered = scene.motion(number, other)
            if hidden:
                arrays[f"{name}_occlusion"] = covered
        np.savez(folder / f"{number:06d}.npz", **arrays)  # pyright: ignore[reportArgumentType]


def propagate(tree: Path, clip: Clip, method: str, *, exact: bool = False) -> Result:
    """Fill the frames between the keys by a version's command line.

    Args:
        exact: by the scene's motion instead of an estimated one.
    """
    with tempfile.TemporaryDirectory(prefix="fresco-truth-") as name:
        folder = Path(name)
        for number, image in enumerate(clip.sources):
            save(folder / "source" / f"{number:06d}.png", image)
        for key, image in clip.keys.items():
            save(folder / "keys" / f"{key:06d}.png", image)
        (folder / "recorder").mkdir()
        (folder / "recorder" / "sitecustomize.py").write_text(RECORDER)
        (folder / "sides").mkdir()
        flow = ["--flow", "dis"]
        if exact:
            save_motion(folder / "motion")
            flow = ["--flow", "files", "--flow-path", str(folder / "motion")]
        words = [
            sys.executable, "-m", "fresco", "propagate", str(folder / "source"),
            "--keys", str(folder / "keys"), "-o", str(folder / "result"), *flow,
            "--resolution", str(clip.side), "--workers", "1", "--no-detect-shots", "--quiet",
            "--propagation", method,
        ]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            words, cwd=tree, capture_output=True, text=True, check=False,
            env=os.environ | {
                "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1",
                "PYTHONPATH": str(folder / "recorder"), "FRESCO_TRUTH_SIDES": str(folder / "sides"),
            },
        )
        if done.returncode:
            raise SystemExit(f"{' '.join(words)} in {tree}:\n{done.stdout}{done.stderr}")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        paths = sorted((folder / "result").glob("*.png"))
        if len(paths) != len(clip.sources):
            raise SystemExit(f"{tree} made {len(paths)} of {len(clip.sources)} frames.")
        images = {number: load(paths[number]) for number in clip.between}
        known = {}
        for path in (folder / "sides").iterdir():
            with np.load(path) as arrays:
                known[arrays["image"].tobytes()] = (arrays["forward"], arrays["backward"])
    sides = {number: known[image.tobytes()] for number, image in images.items()}
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Result(images, sides, seconds)


def load(path: Path) -> Image:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise SystemExit(f"{path} cannot be read.")
    return np.array(image[..., ::-1], np.uint8)


def slopes(image: Image) -> Values:
    """Gradient of luma, [H, W, 2], grey levels a pixel."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float64)
    axes = [cv2.Sobel(grey, cv2.CV_64F, *axis, scale=1 / 8) for axis in ((1, 0), (0, 1))]
    return np.asarray(np.stack(axes, axis=-1), np.float64)


def unexplained(image: Image, sides: Sequence[Image]) -> Values:
    """[H, W] how far the gradients around every pixel are from those of the nearer side."""
    own = slopes(image)
    misses = [
        cv2.GaussianBlur(np.square(own - slopes(side)).sum(axis=-1), (0, 0), NEIGHBOURHOOD)
        for side in sides
    ]
    return np.asarray(np.sqrt(np.minimum(*misses)), np.float64)


def peak_ratio(image: Image, truth: Image, where: NDArray[np.bool_] | None = None) -> float:
    """PSNR in dB, over all pixels or some."""
    square = np.square(image.astype(np.float64) - truth)
    mean = square.mean() if where is None else square[where].mean()
    return float(10 * np.log10(255.0 ** 2 / max(mean, 1e-9)))


def similarity(image: Image, truth: Image) -> Values:
    """SSIM of every pixel, [H, W]."""
    try:
        from skimage.metrics import structural_similarity  # pyright: ignore
    except ImportError as error:
        raise SystemExit("scikit-image is not installed: pip install scikit-image") from error
    found = structural_similarity(truth, image, channel_axis=2, full=True)
    return np.asarray(found[1], np.float64).mean(axis=-1)


def fidelity(results: Mapping[int, Image], clip: Clip) -> Numbers:
    """Means over frames of PSNR and SSIM, of all pixels and of those near edges."""
    rows, truth = [], clip.truth
    assert truth is not None
    for number, image in results.items():
        near, alike = scene.edges(number, clip.scale), similarity(image, truth[number])
        rows.append((peak_ratio(image, truth[number]), peak_ratio(image, truth[number], near),
                     alike.mean(), alike[near].mean()))
    names = ("psnr", "psnr_near_edges", "ssim", "ssim_near_edges")
    return {name: round(float(value), 4) for name, value in
            zip(names, np.mean(rows, axis=0), strict=True)}


def flicker(results: Mapping[int, Image], clip: Clip) -> float:
    """Mean change of the error from a frame to the next, along the exact motion, grey levels."""
    changes, truth = [], clip.truth
    assert truth is not None
    for number in results.keys() & {n - 1 for n in results}:
        flow, hidden = scene.motion(number, number + 1, clip.scale)
        errors = [results[n].astype(np.float32) - truth[n] for n in (number, number + 1)]
        place = pixel_grid(*flow.shape[:2]) + flow
        moved = cv2.remap(errors[1], place[..., 0], place[..., 1], cv2.INTER_LINEAR)
        changes.append(np.abs(moved - errors[0])[~hidden].mean())
    return round(float(np.mean(changes)), 3)


def measured(clip: Clip, tree: Path, method: str, *, exact: bool = False) -> Numbers:
    """All numbers of a version on a clip."""
    result = propagate(tree, clip, method, exact=exact)
    images = result.images
    numbers: Numbers = {"cpu_seconds_per_frame": round(result.seconds / len(images), 3)}
    if clip.truth:
        numbers |= fidelity(images, clip)
        numbers["flicker"] = flicker(images, clip)
    missed = [unexplained(image, result.sides[number]).mean() for number, image in images.items()]
    numbers["unexplained_edges"] = round(float(np.mean(missed)), 4)
    return numbers


def move_exactly(clip: Clip) -> dict[int, Image]:
    """The nearer key that shows a pixel, moved by the exact motion; the nearer one where none."""
    results = {}
    for number in clip.between:
        image: Image | None = None
        for key in sorted(clip.keys, key=lambda k: -abs(k - number)):
            flow, hidden = scene.motion(number, key, clip.scale)
            place = pixel_grid(*flow.shape[:2]) + flow
            moved = np.asarray(
                cv2.remap(clip.keys[key], place[..., 0], place[..., 1], cv2.INTER_CUBIC,
                          borderMode=cv2.BORDER_REPLICATE), np.uint8)
            image = moved if image is None else np.where(hidden[..., None], image, moved)
        assert image is not None
        results[number] = image
    return results


def compare_programs(
    clip: Clip, programs: Mapping[str, Path], frames: Sequence[int]
) -> dict[str, Numbers]:
    """Some frames painted from the first key by each program, from guides by the exact motion."""
    assert clip.truth is not None
    first = min(clip.keys)
    key = KeySources.from_frame(clip.sources[first], clip.keys[first])
    found: dict[str, Numbers] = {}
    with tempfile.TemporaryDirectory(prefix="fresco-truth-") as name:
        folder = Path(name)
        save(folder / "style.png", clip.keys[first])
        for title, program in programs.items():
            results, seconds = {}, 0.0
            for number in frames:
                flow, _ = scene.motion(number, first, clip.scale)
                words = [str(program), "-style", str(folder / "style.png")]
                for guide in key.make_guides(clip.sources[number], flow):
                    pair = (folder / f"{guide.name}_{end}.png" for end in ("from", "to"))
                    for path, image in zip(paths := list(pair), (guide.source, guide.target),
                                           strict=True):
                        save(path, image)
                    words += ["-guide", *map(str, paths), "-weight", f"{guide.weight:g}"]
                output = folder / "output.png"
                seconds += run([*words, *EFFORT, "-output", str(output)], 1)["cpu_seconds"]
                results[number] = load(output)
            found[title] = fidelity(results, clip) | {
                "cpu_seconds_per_frame": round(seconds / len(frames), 2)}
    return found


def print_table(report: Mapping[str, Mapping[str, Numbers]]) -> None:
    """The report as a table of Markdown."""
    columns = ("psnr", "psnr_near_edges", "ssim", "ssim_near_edges", "flicker",
               "unexplained_edges", "cpu_seconds_per_frame")
    lines = [["clip", "made by", *(name.replace("_", " ") for name in columns)]]
    lines.append(["---"] * len(lines[0]))
    for title, rows in report.items():
        lines += [
            [title, name, *(f"{numbers[key]:.4g}" if key in numbers else "" for key in columns)]
            for name, numbers in rows.items()
        ]
    for line in lines:
        print("|", " | ".join(line), "|")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--other", type=Path, help="sources of another version of this project")
    parser.add_argument("--clips", type=Path, help="folder of clips whose truth is unknown")
    parser.add_argument("--without-scene", action="store_true", help="measure the clips alone")
    parser.add_argument("--program", type=Path, help="another synthesis program")
    parser.add_argument("--frames", type=int, nargs="*", default=[4],
                        help="frames that both programs paint [default 4]")
    parser.add_argument("--methods", nargs="*", default=["patch", "flow"], help="of propagation")
    parser.add_argument("--table", action="store_true", help="print a table instead of JSON")
    parser.add_argument("--scale", type=int, default=1, help="of the scene's side of 256 pixels")
    options = parser.parse_args()
    known = known_clip(options.scale)
    clips = [] if options.without_scene else [known]
    clips += [read_clip(path) for path in sorted(
        options.clips.glob("*.mp4") if options.clips else ())]
    trees = {"this": ROOT} | ({"other": options.other.resolve()} if options.other else {})
    report: dict[str, Mapping[str, Numbers]] = {}
    for clip in clips:
        rows = {
            f"{method}, {name}": measured(clip, tree, method)
            for method in options.methods for name, tree in trees.items()
        }
        if clip.truth:
            rows |= {
                f"{method}, this, exact flow": measured(clip, ROOT, method, exact=True)
                for method in options.methods
            }
            exact = move_exactly(clip)
            rows["exact motion"] = fidelity(exact, clip) | {"flicker": flicker(exact, clip)}
        report[clip.name] = rows
    if options.program:
        programs = {"this": find_program(), "other": options.program.resolve()}
        report["programs"] = compare_programs(known, programs, options.frames)
    if options.table:
        print_table(report)
        return
    json.dump({"benchmark": "truth", "clips": report}, sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
