"""A source that changes under a run: a clear error, and nothing of a mixture stays."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fresco.cli.main import main
from fresco.errors import VideoError
from fresco.hosts.diffusers.load import load_host
from fresco.options import from_dict
from fresco.progress import Progress, StageStatus
from fresco.run import external_keyframes
from fresco.run.compare import compare_videos
from fresco.run.inputs import SourceWatch
from fresco.run.keyframes import PLAN_NAME
from fresco.run.translate import detect_keyframes, propagate_keys, translate
from fresco.settings import FrescoSettings
from fresco.workspace import SEEN, write_image
from tests.helpers.clips import ClipOptions, Frames, moving_texture, write_clip

COUNT = 8
KEY = 3
"""A keyframe with frames before and after it, so that ends are carried too."""


def make_settings(**sampling: object) -> FrescoSettings:
    return from_dict({
        "sampling": {"resolution": 64, **sampling}, "flow": {"estimator": "dis"},
        "keyframes": {"detect_shots": False, "min_interval": 2, "max_interval": 3,
                      "batch_size": 3},
        "guidance": {"optimization_iterations": 1},
        "propagation": {"method": "flow", "workers": 1},
    })


def write_folder(place: Path, frames: Frames) -> Path:
    for number, frame in enumerate(frames):
        write_image(place / f"{number:04d}.png", frame)
    return place


def write_video(place: Path, frames: Frames) -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    return write_clip(place.with_suffix(".mp4"), frames, ClipOptions(sound=("aac",)))


def replace_source(source: Path, other: Path) -> None:
    """Another content under the same name, with the same times of change."""
    if source.is_dir():
        for image in other.iterdir():
            shutil.copy2(image, source / image.name)
        return
    fresh = source.with_name("fresh.mp4")
    shutil.copy2(other, fresh)
    fresh.replace(source)


def read_run(folder: Path) -> dict[str, bytes]:
    """What is left of a run, without what it keeps for itself."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*") if path.is_file() and path.name not in ("lock", SEEN)
    }


class Change:
    """Does something once, at the first status with so many units done of a stage."""

    def __init__(self, stage: str, what: Callable[[], None], done: int = 0) -> None:
        self.stage, self.what, self.done, self.happened = stage, what, done, False

    def __call__(self, status: StageStatus) -> None:
        if (status.stage, status.done) == (self.stage, self.done) and not self.happened:
            self.happened = True
            self.what()


@pytest.fixture(scope="module")
def sources(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """A source and another of the same size and count."""
    place = tmp_path_factory.mktemp("sources")
    write = write_folder if getattr(request, "param", "file") == "folder" else write_video
    first = write(place / "first", moving_texture(COUNT, 64, 64))
    frames = moving_texture(COUNT, 64, 64, seed=4)
    other = write(place / "other", [np.asarray(255 - f, np.uint8) for f in frames])
    return first, other


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("keys")
    write_image(place / f"{KEY:06d}.png", np.full((64, 64, 3), 90, np.uint8))
    write_image(place / f"{KEY + 3:06d}.png", np.full((64, 64, 3), 120, np.uint8))
    return place


def copy_source(source: Path, target: Path) -> Path:
    target = target / source.name
    target.parent.mkdir(parents=True)
    return Path((shutil.copytree if source.is_dir() else shutil.copy2)(source, target))


@pytest.mark.parametrize(("sources", "stage", "done"), [
    ("file", "scan", 2), ("file", "propagate", 0), ("file", "write", COUNT),
    ("folder", "frames", 2), ("folder", "ends", 1), ("folder", "write", 3),
], indirect=["sources"])
def test_replaced_anywhere_nothing_of_a_mixture_stays(
    sources: tuple[Path, Path], keys: Path, tmp_path: Path, stage: str, done: int
) -> None:
    first, other = sources
    source = copy_source(first, tmp_path / "in")
    # Nothing is scanned where the keyframes are given and cuts do not count.
    settings = from_dict({"keyframes": {"detect_shots": stage == "scan"}}, make_settings())
    output = tmp_path / "a" / "result.mp4"
    clean = tmp_path / "clean" / "result.mp4"
    propagate_keys(source, keys, clean, settings, Progress())
    change = Change(stage, lambda: replace_source(source, other), done)
    if stage == "frames":  # kept while scanning where the run begins anew
        propagate_keys(source, keys, output, settings, Progress())
        shutil.rmtree(next(output.parent.glob("*.fresco/frames-*")))
        output.unlink()
    with pytest.raises(VideoError, match="has changed since the run began"):
        propagate_keys(source, keys, output, settings, Progress(change))
    assert change.happened
    assert not output.exists()
    replace_source(source, first)
    propagate_keys(source, keys, output, settings, Progress())
    assert output.read_bytes() == clean.read_bytes()
    assert read_run(tmp_path / "a" / "result.fresco") == read_run(
        tmp_path / "clean" / "result.fresco"
    )


@pytest.mark.parametrize("stage", ["batch 1", "propagate"])
def test_a_translation_drops_what_it_made_since(
    demo_model: Path, tmp_path: Path, stage: str
) -> None:
    """Keyframes of whole batches that were finished before are kept."""
    source = write_video(tmp_path / "clip", moving_texture(COUNT, 64, 64))
    other = write_video(tmp_path / "other", moving_texture(COUNT, 64, 64, seed=4))
    first = Path(shutil.copy2(source, tmp_path / "kept.mp4"))
    settings = make_settings(model=str(demo_model), steps=2, strength=0.5, prompt="a painting")
    host = load_host(settings.sampling, offline=True)
    clean, output = (tmp_path / name / "result.mp4" for name in ("clean", "a"))
    translate(source, clean, settings, lambda: host, Progress())
    change = Change(stage, lambda: replace_source(source, other))
    with pytest.raises(VideoError, match="has changed since the run began"):
        translate(source, output, settings, lambda: host, Progress(change))
    assert change.happened
    assert not output.exists()
    left = read_run(output.parent / "result.fresco")
    expected = read_run(clean.parent / "result.fresco")
    assert any(name.startswith("keys-") for name in left) == (stage == "propagate")
    # The plan says where frames lie, once there are some.
    assert all(
        expected[name] == data for name, data in left.items()
        if not name.startswith("source-") and name != PLAN_NAME
    )
    replace_source(source, first)
    translate(source, output, settings, lambda: host, Progress())
    assert output.read_bytes() == clean.read_bytes()


def note_unlink(dropped: list[Path]) -> Callable[..., None]:
    """`Path.unlink`, which tells what it removes."""
    unlink = Path.unlink

    def noted(self: Path, missing_ok: bool = False) -> None:
        dropped.append(self)
        unlink(self, missing_ok=missing_ok)

    return noted


def test_replaced_before_a_kill_and_put_back_after_it(
    sources: tuple[Path, Path], keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed run looks no more; the next one drops what was made after its last look."""
    first, other = sources
    source = copy_source(first, tmp_path / "in")
    clean, output = (tmp_path / name / "result.mp4" for name in ("clean", "a"))
    propagate_keys(source, keys, clean, make_settings(), Progress())

    def kill(status: StageStatus) -> None:
        if status.stage == "frames" and status.done == 0:
            replace_source(source, other)
        if status.stage == "frames" and status.done == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as killed:  # nothing of ours runs any more
        killed.setattr(SourceWatch, "dropping", lambda self: contextlib.nullcontext())
        with pytest.raises(KeyboardInterrupt):
            propagate_keys(source, keys, output, make_settings(), Progress(kill))
    kept = list(output.parent.glob("result.fresco/source-*/*.npz"))
    assert kept
    replace_source(source, first)
    with monkeypatch.context() as context:
        context.setattr(Path, "unlink", note_unlink(dropped := []))
        propagate_keys(source, keys, output, make_settings(), Progress())
    assert set(kept) <= set(dropped)
    assert output.read_bytes() == clean.read_bytes()


def test_a_source_that_is_gone_is_named_and_the_command_line_exits_by_3(
    sources: tuple[Path, Path], keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = copy_source(sources[0], tmp_path / "in")
    begin = external_keyframes.list_external_keyframes

    def remove(*arguments: object) -> object:
        found = begin(*arguments)  # type: ignore[arg-type]
        source.rename(tmp_path / "away")
        return found

    monkeypatch.setattr("fresco.run.translate.list_external_keyframes", remove)
    code = main([
        "propagate", str(source), "--keys", str(keys), "-o", str(tmp_path / "result.mp4"), "-q",
        "--resolution", "64", "--flow", "dis",
    ])
    assert code == 3
    assert str(source) in capsys.readouterr().err
    assert not (tmp_path / "result.mp4").exists()


@pytest.mark.parametrize(("sources", "touch"), [
    ("file", lambda path: path.write_bytes(path.read_bytes())),
    ("folder", lambda path: os.utime(path, (1, 1))),
    ("folder", lambda path: (path.parent / "notes.txt").write_text("of somebody")),
], indirect=["sources"])
def test_a_source_only_touched_is_the_same(
    sources: tuple[Path, Path], keys: Path, tmp_path: Path, touch: Callable[[Path], object]
) -> None:
    source = copy_source(sources[0], tmp_path / "in")
    file = source / "0002.png" if source.is_dir() else source
    change = Change("write", lambda: void(touch(file)))
    output = tmp_path / "result.mp4"
    propagate_keys(source, keys, output, make_settings(), Progress(change))
    assert change.happened
    assert output.exists()


def void(_: object) -> None:
    """Nothing."""


def test_files_of_others_in_the_workspace_are_left_alone(
    sources: tuple[Path, Path], keys: Path, tmp_path: Path
) -> None:
    """Also where the workspace is a folder in which somebody works."""
    first, other = sources
    source = copy_source(first, tmp_path / "in")

    def harm() -> None:
        replace_source(source, other)
        (source.parent / "new.txt").write_text("just written")
        (source.parent / "frames-of-mine").mkdir()
        (source.parent / "frames-of-mine" / "000001.png").write_bytes(b"mine")

    with pytest.raises(VideoError, match="has changed"):
        propagate_keys(
            source, keys, tmp_path / "result.mp4", make_settings(),
            Progress(Change("write", harm)), workspace=source.parent,
        )
    assert (source.parent / "new.txt").exists()
    assert (source.parent / "frames-of-mine" / "000001.png").exists()
    assert source.exists()


def test_external_keyframes_that_change_while_they_are_read(
    sources: tuple[Path, Path], keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = Path(shutil.copytree(keys, tmp_path / "keys"))
    name = f"{KEY:06d}.png"
    decode = external_keyframes.decode_with_alpha
    count = itertools.count()

    def decode_another(path: Path) -> object:
        if next(count) == 0:
            write_image(mine / name, np.full((64, 64, 3), 7, np.uint8))
        return decode(path)

    monkeypatch.setattr(external_keyframes, "decode_with_alpha", decode_another)
    with pytest.raises(VideoError, match=name):
        propagate_keys(sources[0], mine, tmp_path / "a.mp4", make_settings(), Progress())
    assert not list((tmp_path / "a.fresco").rglob(name))


def test_a_scan_and_a_comparison_watch_their_videos(
    sources: tuple[Path, Path], tmp_path: Path
) -> None:
    first, other = sources
    source = copy_source(first, tmp_path / "in")
    change = Change("scan", lambda: replace_source(source, other), 2)
    with pytest.raises(VideoError, match="has changed"):
        detect_keyframes(source, make_settings(), Progress(change), tmp_path / "space")
    assert not list((tmp_path / "space").glob("scan*"))
    change = Change("compare", lambda: replace_source(source, first), 2)
    with pytest.raises(VideoError, match="has changed"):
        compare_videos([source, other], ["a", "b"], tmp_path / "c.mp4", Progress(change))
    assert not (tmp_path / "c.mp4").exists()
