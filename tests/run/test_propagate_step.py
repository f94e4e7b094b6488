"""Which method carries the keyframes, and what follows from it for names and words."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fresco.options import from_dict
from fresco.progress import Progress
from fresco.propagation.program import OVERRIDE
from fresco.run.propagate import choose_engine
from fresco.run.translate import RunResult, propagate_keys
from fresco.settings import FrescoSettings
from fresco.video.reader import open_source
from fresco.workspace import write_image
from tests.helpers.clips import moving_texture, write_clip
from tests.helpers.fake_ebsynth import fake_program, starts


def settings(**propagation: str) -> FrescoSettings:
    return from_dict({
        "sampling": {"resolution": 64}, "flow": {"estimator": "dis"},
        "keyframes": {"detect_shots": False},
        "propagation": {"workers": 1, **propagation},
    })


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = fake_program(tmp_path / "program")
    monkeypatch.setenv(OVERRIDE, str(path))
    return path


def test_another_method_quality_or_program_has_another_identity(
    fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def identity(chosen: FrescoSettings) -> str:
        return choose_engine(chosen)[0].digest_options(chosen)

    seen = [identity(settings()), identity(settings(quality="best")),
            identity(settings(method="flow"))]
    assert identity(settings(method="flow", quality="best")) == seen[2]
    assert identity(settings(cluster="tcp://there:1")) == seen[0]
    other = fake_program(tmp_path / "other")
    other.write_text(other.read_text() + "# another\n")
    monkeypatch.setenv(OVERRIDE, str(other))
    seen.append(identity(settings()))
    assert len(set(seen)) == 4


def test_a_program_that_cannot_run_is_said_and_the_flow_is_used(
    fake: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (fake.parent / "mode").write_text("sick")
    engine, note = choose_engine(settings())
    assert engine.name == engine.text == "flow"
    assert "by flow instead of by patches" in note
    assert "lacks what it takes" in note
    assert note in caplog.text
    assert choose_engine(settings(method="flow")) == (engine, "")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return write_clip(path, moving_texture(9, 64, 80))


def carried(clip: Path, folder: Path, chosen: FrescoSettings, scale: int = 1) -> RunResult:
    """A run with two keys of one's own: frames 0 to 1 and 7 to 8 lie outside them."""
    with open_source(clip) as source:
        for number in (2, 6):
            large = np.kron(255 - source.frame(number), np.ones((scale, scale, 1), np.uint8))
            write_image(folder / "keys" / f"mine {number}.png", large)
    return propagate_keys(clip, folder / "keys", folder / "r.mp4", chosen, Progress())


@pytest.mark.parametrize("scale", [1, 3])
def test_own_keys_of_any_size_are_carried_by_patches(
    clip: Path, fake: Path, tmp_path: Path, scale: int
) -> None:
    result = carried(clip, tmp_path, settings(), scale)
    with open_source(result.output) as written, open_source(clip) as source:
        errors = [np.abs(a.astype(int) + b - 255).mean()
                  for a, b in zip(written.frames(), source.frames(), strict=True)]
    assert len(errors) == 9
    assert max(errors) < 25
    asked = [json.loads(line) for line in (fake.parent / "frames").read_text().splitlines()]
    assert len(asked) == 2 * 3 + 2 + 2
    assert not [note for note in result.notes if "instead" in note]


def test_other_cuts_carry_own_keys_otherwise(tmp_path: Path) -> None:
    """A false cut between two keys parts their frames; seen and mended, they blend."""
    lights = [40 * (number >= 5) for number in range(10)]
    frames = [frame // 2 + np.uint8(light)
              for frame, light in zip(moving_texture(10, 64, 80), lights, strict=True)]
    clip = write_clip(tmp_path / "clip.mp4", frames)
    for number, level in ((0, 0), (9, 255)):
        write_image(tmp_path / "keys" / f"{number}.png", np.full((64, 80, 3), level, np.uint8))
    levels = []
    for name, threshold in (("a", 20.0), ("a", 255.0), ("b", 255.0)):
        keys = {"detect_shots": True, "shot_min_length": 5, "shot_threshold": threshold}
        chosen = from_dict({"keyframes": keys}, settings(method="flow"))
        result = propagate_keys(clip, tmp_path / "keys", tmp_path / f"{name}.mp4", chosen,
                                Progress())
        with open_source(result.output) as written:
            levels.append([round(float(frame.mean())) for frame in written.frames()])
    assert set(levels[0]) <= {0, 1, 254, 255}
    assert levels[1] == levels[2] != levels[0]


def test_without_the_program_every_frame_is_there_and_the_note_too(
    clip: Path, fake: Path, tmp_path: Path
) -> None:
    (fake.parent / "mode").write_text("sick")
    result = carried(clip, tmp_path, settings())
    assert [note for note in result.notes if "by flow instead of by patches" in note]
    by_flow = carried(clip, tmp_path, settings(method="flow"))
    assert not [note for note in by_flow.notes if "instead" in note]
    assert len(list(result.workspace.glob("frames-*"))) == 1
    assert {json.loads(line)[1] for line in starts(fake)} == {"-selftest"}
    (fake.parent / "mode").write_text("")
    carried(clip, tmp_path, settings())
    assert len(list(result.workspace.glob("frames-*"))) == 2
