"""Results carry their settings, and are read as configurations."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from fresco.config.run_file import load_config
from fresco.errors import SettingsError
from fresco.options import from_dict, to_dict
from fresco.progress import Progress
from fresco.run.embedded import describe_settings
from fresco.run.translate import propagate_keys
from fresco.video.codecs import read_comment
from fresco.video.containers import CONTAINERS
from fresco.video.writer import VideoWriter
from fresco.workspace import write_image
from tests.helpers.clips import moving_texture, write_clip

SETTINGS = from_dict({
    "sampling": {"prompt": "a dog; ünïcode \"quoted\"", "seed": 7, "strength": 0.5,
                 "key_prompts": {"4": "a cat"}},
    "propagation": {"method": "flow", "workers": 1}, "flow": {"estimator": "dis"},
    "keyframes": {"detect_shots": False, "keys": "0,2"}, "output": {"crf": 9},
})


@pytest.mark.parametrize(
    "suffix", [suffix for suffix, kind in CONTAINERS.items() if kind.keeps_comment]
)
def test_settings_come_back_from_every_kind_of_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"r{suffix}"
    with VideoWriter(path, 64, 48, Fraction(25), comment=describe_settings(SETTINGS)) as writer:
        for frame in moving_texture(3, 48, 64):
            writer.write(frame)
    found = to_dict(load_config(path).settings)
    wanted = to_dict(SETTINGS)
    wanted["propagation"]["workers"] = found["propagation"]["workers"]  # changes nothing in it
    assert found == wanted


def test_a_run_writes_them(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", moving_texture(3))
    for number in (0, 2):
        write_image(tmp_path / "keys" / f"{number}.png", np.full((48, 64, 3), 90, np.uint8))
    results = []
    for name, workers in (("one", 1), ("two", 2)):
        propagation = dataclasses.replace(SETTINGS.propagation, workers=workers)
        settings = dataclasses.replace(SETTINGS, propagation=propagation)
        results.append(propagate_keys(
            clip, tmp_path / "keys", tmp_path / f"{name}.mp4", settings, Progress()
        ).output)
    assert load_config(results[0]).settings.sampling == SETTINGS.sampling
    assert results[0].read_bytes() == results[1].read_bytes()


def test_folders_are_not_told() -> None:
    settings = from_dict({
        "sampling": {"model": "/home/me/models/m.safetensors", "vae": "C:\\me\\v.pt",
                     "lora": ["/home/me/l.safetensors:0.5", "other.safetensors"]},
        "flow": {"weights_dir": "/home/me"}, "keyframes": {"keys": "/home/me/keys.txt"},
    })
    text = describe_settings(settings)
    assert "/home" not in text
    assert "me\\" not in text
    for name in ("m.safetensors", "v.pt", "l.safetensors:0.5", "other.safetensors", "keys.txt"):
        assert f'"{name}"' in text
    long = {str(n): "word " * 100 for n in range(4000)}
    assert describe_settings(from_dict({"sampling": {"key_prompts": long}})) == ""


@pytest.mark.parametrize("comment", ["", "a holiday", "{\"some\": \"json\"}", "{broken"])
def test_other_videos_are_no_configurations(tmp_path: Path, comment: str) -> None:
    path = tmp_path / "r.mp4"
    with VideoWriter(path, 64, 48, Fraction(25), comment=comment) as writer:
        writer.write(np.zeros((48, 64, 3), np.uint8))
    assert read_comment(path) == comment
    with pytest.raises(SettingsError, match=r"no settings of FRESCO inside|comment of .* JSON"):
        load_config(path)
    path.write_bytes(b"no video")
    with pytest.raises(SettingsError, match="no settings of FRESCO inside"):
        load_config(path)
    path.unlink()
    with pytest.raises(SettingsError, match="does not exist"):
        load_config(path)
