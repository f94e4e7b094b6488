"""Disks that fail at every operation: whatever fails, there is a clear error and no half file.

FRESCO_FAULTS=all strikes every operation of the runs too, FRESCO_FAULTS=50 so many of each run, at
random; without it, a few.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from fresco.errors import FrescoError
from fresco.hosts.options import HostOptions
from fresco.options import from_dict
from fresco.progress import Progress
from fresco.propagation.scratch import load_arrays, save_arrays
from fresco.run.translate import propagate_keys, translate
from fresco.video.folder import ImageFolderWriter
from fresco.video.writer import VideoWriter
from fresco.workspace import (
    read_image,
    read_json,
    read_tensors,
    write_image,
    write_json,
    write_tensors,
)
from fresco.writing import clear_parts, copy_file
from tests.helpers.clips import ClipOptions, moving_texture, write_clip
from tests.helpers.faulty_files import (
    DISK_FAULTS,
    Fault,
    FaultyFiles,
    PowerCut,
    choose_count,
    count,
)
from tests.helpers.job_environment import TinyEnvironment, tiny_settings

pytestmark = pytest.mark.skipif(os.name == "nt", reason="numbers of open files are asked of Linux")
CUT = pytest.param(
    # What a process has in memory when it ends so is found by its collector of garbage.
    Fault.CUT, marks=pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
)
FAULTS = (*DISK_FAULTS, CUT)
FRAME = np.full((48, 64, 3), 90, np.uint8)


def strike(root: Path, fault: Fault, at: int, act: Callable[[], object], kept: float) -> bool:
    """Whether the act came to its end in spite of the fault; else it raised a sentence."""
    try:
        with FaultyFiles(root, fault, at, kept=kept) as files:
            act()
    except PowerCut:
        return False
    except FrescoError as error:
        said = str(error)
    else:
        return True
    assert files.struck, said
    assert said.endswith("."), said
    return False


def list_left(root: Path) -> list[str]:
    """What is half written below a folder."""
    return [path.name for path in root.rglob(".*") if path.is_file()
            and path.name not in (".fresco-frames", ".fresco-keys.json")]


def copy_number(path: Path, n: int) -> None:
    """Copy a file that holds a number, from where no operation fails."""
    with tempfile.TemporaryDirectory() as place:
        source = Path(place) / "n.json"
        source.write_text(json.dumps({"n": n}))
        copy_file(source, path)


FILES: dict[str, tuple[Callable[[Path, int], object], Callable[[Path], object]]] = {
    "a.json": (lambda path, n: write_json(path, {"n": n}),
               lambda path: (read_json(path) or {}).get("n")),
    "copy.json": (copy_number, lambda path: (read_json(path) or {}).get("n")),
    "a.png": (lambda path, n: write_image(path, np.full((9, 9, 3), n, np.uint8)),
              lambda path: None if (image := read_image(path)) is None else int(image.max())),
    "a.safetensors": (lambda path, n: write_tensors(path, {"n": torch.full((9,), n)}),
                      lambda path: None if (t := read_tensors(path)) is None else int(t["n"][0])),
    "a.npz": (lambda path, n: save_arrays(path, {"n": np.full(9, n)}),
              lambda path: int(load_arrays(path)["n"][0]) if path.exists() else None),
}
"""Kinds of files: write a number, read it; None where it is absent or known to be damaged."""


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", FILES)
def test_a_file_is_as_before_or_as_after(tmp_path: Path, name: str, fault: Fault) -> None:
    write, read = FILES[name]
    path = tmp_path / "new" / name
    total = len(count(tmp_path, fault, lambda: write(path, 1)))
    assert total >= 1 or name == "copy.json"  # whose writes the system makes, unseen
    for at in range(total):
        for kept in (0.0, 0.5, 1.0) if fault is Fault.CUT else (1.0,):
            for before in (None, 1):
                shutil.rmtree(path.parent, ignore_errors=True)
                if before:
                    write(path, before)
                done = strike(tmp_path, fault, at, lambda: write(path, 2), kept)
                found = read(path) if name != "a.npz" or fault is not Fault.CUT else before
                assert found in ((2,) if done else (before, 2)), (at, kept)
                assert done or fault is not Fault.SHORT
                assert fault is Fault.CUT or not list_left(tmp_path)
                write(path, 3)
                assert read(path) == 3


def write_video(path: Path) -> None:
    with VideoWriter(path, 64, 48, Fraction(25)) as writer:
        for _ in range(3):
            writer.write(FRAME)


def write_folder(path: Path) -> None:
    with ImageFolderWriter(path) as writer:
        for _ in range(3):
            writer.write(FRAME)


def content(path: Path) -> dict[str, bytes]:
    """A file, or the files of a folder that are no parts."""
    files = [path] if path.is_file() else sorted(path.glob("[!.]*"))
    return {file.name: file.read_bytes() for file in files}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(("name", "write"), [("r.mp4", write_video), ("r", write_folder)])
def test_a_result_is_whole_or_not_there(
    tmp_path: Path, name: str, write: Callable[[Path], None], fault: Fault
) -> None:
    path = tmp_path / "out" / name
    total = len(count(tmp_path, fault, lambda: write(path)))
    whole = content(path)
    assert len(whole) == (1 if path.suffix else 3)
    for at in range(total):
        shutil.rmtree(path.parent)
        done = strike(tmp_path, fault, at, lambda: write(path), at / total)
        assert content(path) == (whole if path.exists() or done else {}), at
        assert fault is Fault.CUT or not list_left(tmp_path), at
        clear_parts(path)
        write(path)
        assert content(path) == whole
        assert not list_left(tmp_path), at


Run = Callable[[Path], object]
"""Makes `result.mp4` and what lies beside it in a folder."""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip with sound, and keyframes of it."""
    folder = tmp_path_factory.mktemp("inputs")
    sound = ClipOptions(sound=("pcm_s16le",))
    write_clip(folder / "clip.mov", moving_texture(5, 32, 32), sound)
    for number in (0, 3):
        write_image(folder / "keys" / f"{number}.png", np.full((32, 32, 3), 90, np.uint8))
    return folder


def propagated(inputs: Path, method: str) -> Run:
    settings = from_dict({
        "sampling": {"resolution": 64}, "flow": {"estimator": "dis"},
        "keyframes": {"detect_shots": False}, "propagation": {"method": method, "workers": 1},
    })
    return lambda place: propagate_keys(
        inputs / "clip.mov", inputs / "keys", place / "result.mp4", settings, Progress()
    )


def translated(inputs: Path, models: Path) -> Run:
    host = TinyEnvironment(models).open(HostOptions(), tiny_settings().sampling)
    settings = tiny_settings({
        "sampling": {"strength": 0.25}, "keyframes": {"keys": "0,2,4", "detect_shots": False},
        "output": {"compare": True, "measures": True},
    })
    return lambda place: translate(
        inputs / "clip.mov", place / "result.mp4", settings, lambda: host, Progress()
    )


@pytest.fixture(scope="module")
def runs(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    return {
        "flow": propagated(inputs, "flow"), "patch": propagated(inputs, "patch"),
        "translate": translated(inputs, tmp_path_factory.getbasetemp() / "job-models"),
    }


def everything(place: Path) -> dict[str, bytes]:
    """All that a run leaves, but what names times."""
    return {
        str(path.relative_to(place)): path.read_bytes()
        for path in sorted(place.rglob("*")) if path.is_file() and path.name != "seen"
    }


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # as of `CUT`
@pytest.mark.parametrize(("name", "most"), [("flow", 3), ("patch", 1), ("translate", 1)])
def test_a_run_goes_on_after_any_fault(
    runs: dict[str, Run], tmp_path: Path, name: str, most: int
) -> None:
    run, place = runs[name], tmp_path / "out"
    place.mkdir()
    seen = count(place, Fault.CUT, lambda: run(place))
    whole = everything(place)
    removed = {name for kind, name in (text.split(maxsplit=1) for text in seen) if kind == "remove"}
    for fault, at, kept in choose(seen, choose_count(most)):
        shutil.rmtree(place)
        place.mkdir()
        case = f"{name} {fault} at {at} of {len(seen)}, {kept}"
        done = strike(place, fault, at, lambda: run(place), kept)
        found = everything(place)
        assert found.get("result.mp4", whole["result.mp4"]) == whole["result.mp4"], case
        assert fault is Fault.CUT or not list_left(place), case
        if done:  # what could not be removed in spite of it is removed by the next run
            made = {key: data for key, data in found.items()
                    if key in whole or not (Path(key).name in removed or "/." in key)}
            assert list_differences(made, whole) == [], case
        for path in place.rglob(".*"):
            os.utime(path, (1, 1))  # what is young may be written just now
        run(place)
        again = everything(place)
        assert list_differences(again, whole) == [], case


def choose(seen: list[str], most: int | None) -> list[tuple[Fault, int, float]]:
    """Faults with the operations they strike, and what a power cut leaves; of all, or of some."""
    chance = random.Random()
    cases = [
        (fault, at, chance.random()) for fault in (*DISK_FAULTS, Fault.CUT)
        for at in range(sum(text.split()[0] in fault.kinds for text in seen))
    ]
    return cases if most is None else chance.sample(cases, min(most, len(cases)))


def list_differences(found: dict[str, bytes], whole: dict[str, bytes]) -> list[str]:
    """Files that are not alike; of texts, the lines that are not."""
    different = []
    for name in sorted(found.keys() | whole):
        ours, theirs = found.get(name, b""), whole.get(name, b"")
        if found.get(name) != whole.get(name):
            lines = ours.splitlines() + theirs.splitlines() if name.endswith(".json") else []
            different.append(f"{name} {[line for line in lines if lines.count(line) == 1]}")
    return different
