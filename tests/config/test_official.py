"""Files of the official FRESCO and of Rerender: every key ends in the report."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fresco.config.run_file import load_config
from fresco.errors import SettingsError
from fresco.options import from_dict

MUSIC = """\
# data
file_path: './data/music.mp4'
save_path: './output/music/'
mininterv: 10 # interval
maxinterv: 30
# diffusion
seed: 3
prompt: 'A beautiful woman: in CG style'
sd_path: 'SG161222/Realistic_Vision_V2.0'   # or 'stablediffusionapi/rev-animated'
use_controlnet: True
controlnet_type: 'hed'
cond_scale: 1.0
use_freeu: False
batch_size: 8
num_inference_steps: 20
num_warmup_steps: 3
end_opt_step: 15
run_ebsynth: False
max_process: 4
gmflow_path: './model/gmflow_sintel-0c07dcb3.pth'
sod_path: './model/epoch_resnet.pth'
use_salinecy: True
"""
RERENDER: dict[str, Any] = {
    "input": "videos/girl.mp4", "output": "out/blend.mp4", "work_dir": "work", "key_subdir": "keys",
    "frame_count": 102, "interval": 10, "crop": [0, 180, 0, 0], "sd_model": "models/cartoon.ckpt",
    "a_prompt": "sharp", "n_prompt": "blurry", "prompt": "a girl", "x0_strength": -1,
    "control_type": "canny", "canny_low": 50, "control_strength": 0.7, "seed": 0, "ddim_steps": 25,
    "scale": 8, "image_resolution": 448, "freeu_args": [1.1, 1.2, 1.0, 0.2], "warp_period": [0, 1],
    "loose_cfattn": True, "color_preserve": True, "use_limit_device_resolution": False,
}


def official(folder: Path, text: str = MUSIC, **changes: object) -> Path:
    """An official file in its usual place, `config/`, with some keys changed; None removes one."""
    values = yaml.safe_load(text) | changes
    path = folder / "config" / "config_music.yaml"
    path.parent.mkdir(exist_ok=True)
    kept = {key: value for key, value in values.items() if value is not None}
    path.write_text(text if not changes else yaml.safe_dump(kept))
    return path


def clip(folder: Path, name: str = "data/music.mp4") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"clip")
    return path


def rerender(folder: Path, **changes: object) -> Path:
    path = folder / "config" / "real2sculpture.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(RERENDER | changes))
    return path


def sentences(path: Path) -> str:
    return load_config(path).report.text()


# Official YAML


def test_an_official_file_sets_every_option_it_has(tmp_path: Path) -> None:
    source = clip(tmp_path)
    run = load_config(official(tmp_path))
    assert run.source == source
    assert run.output == tmp_path / "output/music/music_fresco.mp4"
    expected = from_dict({
        "keyframes": {"min_interval": 10, "max_interval": 30, "batch_size": 8},
        "guidance": {"background_smoothing": True, "optimization_end": 0.75},
        "sampling": {
            "prompt": "A beautiful woman: in CG style", "seed": 3, "steps": 20, "strength": 0.85,
            "model": "SG161222/Realistic_Vision_V2.0", "vae": "stabilityai/sd-vae-ft-mse",
            "control": "hed", "control_model": "lllyasviel/sd-controlnet-hed",
            "control_weight": 1.0,
        },
        "propagation": {"enabled": True, "workers": 4},
    })
    assert run.settings == expected


def test_every_official_key_is_in_the_report_once(tmp_path: Path) -> None:
    clip(tmp_path)
    report = load_config(official(tmp_path)).report
    said = [*report.mapped, *report.defaulted, *report.ignored]
    for key in yaml.safe_load(MUSIC):
        naming = [text for text in said if text.startswith((f"{key}:", f"{key} "))]
        assert len(naming) == 1, (key, naming)
    assert all(text.endswith(".") for text in said)


def test_added_words_are_told_or_taken(tmp_path: Path) -> None:
    clip(tmp_path)
    text = "\n".join(load_config(official(tmp_path)).report.defaulted)
    assert "sampling.added_prompt" in text
    assert "sampling.negative_prompt stay empty" in text
    run = load_config(official(tmp_path, a_prompt="best", n_prompt="bad"))
    assert run.settings.sampling.added_prompt == "best"
    assert run.settings.sampling.negative_prompt == "bad"
    assert "sampling.added_prompt and" not in run.report.text()


@pytest.mark.parametrize(
    ("warmup", "low", "control", "weight"), [(5, 2, "depth", 0.7), (5, 5, "hed", 0.7),
                                             (8, 10, "hed", 1.0), (3, 10, "canny", 1.0)],
)
def test_published_samples(
    tmp_path: Path, warmup: int, low: int, control: str, weight: float
) -> None:
    path = official(tmp_path, num_warmup_steps=warmup, mininterv=low, controlnet_type=control,
                    cond_scale=weight)
    settings = load_config(path).settings
    assert settings.sampling.strength == (20 - warmup) / 20
    assert settings.keyframes.min_interval == low
    assert settings.sampling.control_model == f"lllyasviel/sd-controlnet-{control}"
    assert settings.sampling.control_weight == weight


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))))
def test_strength_gives_back_the_warm_up_steps(counts: tuple[int, int]) -> None:
    steps, warmup = counts
    strength = (steps - warmup) / steps
    assert steps - round(strength * steps) == warmup


@pytest.mark.parametrize(("steps", "warmup", "end"), [(20, 0, 20), (20, 20, 0), (7, 3, 5)])
def test_steps_become_shares(tmp_path: Path, steps: int, warmup: int, end: int) -> None:
    path = official(tmp_path, num_inference_steps=steps, num_warmup_steps=warmup, end_opt_step=end)
    settings = load_config(path).settings
    assert settings.sampling.strength == (steps - warmup) / steps
    assert settings.guidance.optimization_end == end / steps


def test_an_end_beyond_the_steps_is_all_of_them(tmp_path: Path) -> None:
    path = official(tmp_path, end_opt_step=30)
    assert load_config(path).settings.guidance.optimization_end == 1.0
    assert "end_opt_step (30): guidance.optimization_end is 1." in sentences(path)


def test_freeu_and_controlnet_switches(tmp_path: Path) -> None:
    run = load_config(official(tmp_path, use_freeu=True, use_controlnet=False))
    guidance, sampling = run.settings.guidance, run.settings.sampling
    factors = [getattr(guidance, f"freeu_{name}") for name in ("b1", "b2", "s1", "s2")]
    assert factors == [1.2, 1.5, 1.0, 1.0]
    assert (sampling.control, sampling.control_model) == ("none", "")
    assert len([text for text in run.report.ignored if "no ControlNet is used" in text]) == 2


def test_an_unknown_preprocessor_is_hed_and_said_so(tmp_path: Path) -> None:
    path = official(tmp_path, controlnet_type="scribble")
    assert load_config(path).settings.sampling.control == "hed"
    assert "'scribble' is none of" in sentences(path)


def test_both_spellings_of_saliency(tmp_path: Path) -> None:
    right = official(tmp_path, use_salinecy=None, use_saliency=False)
    assert load_config(right).settings.guidance.background_smoothing is False
    both = official(tmp_path, use_salinecy=True, use_saliency=False)
    assert load_config(both).settings.guidance.background_smoothing is True
    assert "use_salinecy is taken instead" in sentences(both)


def test_propagation_is_on_although_the_file_says_off(tmp_path: Path) -> None:
    report = load_config(official(tmp_path)).report
    assert any("run_ebsynth is False" in text and "only keyframes are written" in text
               for text in report.mapped)


def test_weights_beside_the_tool_are_used_and_absent_ones_told(tmp_path: Path) -> None:
    path = official(tmp_path)
    assert "gmflow_path ('./model/gmflow_sintel-0c07dcb3.pth'): no such file" in sentences(path)
    clip(tmp_path, "model/gmflow_sintel-0c07dcb3.pth")
    assert load_config(path).settings.flow.weights_dir == str(tmp_path / "model")


@pytest.mark.parametrize("seed", [-1, -7])
def test_a_random_seed_stays_random(tmp_path: Path, seed: int) -> None:
    path = official(tmp_path, seed=seed)
    assert load_config(path).settings.sampling.seed == -1
    assert "seed: sampling.seed is -1, a random one" in sentences(path)


def test_missing_and_unknown_keys_are_told(tmp_path: Path) -> None:
    path = official(tmp_path, mininterv=None, max_process=None, blur=3)
    run = load_config(path)
    assert run.settings.keyframes.min_interval == 10
    assert "mininterv is not there: keyframes.min_interval stays 10." in run.report.defaulted
    assert "max_process is not there: propagation.workers stays 0." in run.report.defaulted
    assert "blur (3): unknown here." in run.report.ignored


def test_a_file_of_one_key_is_enough(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text("maxinterv: 20\n")
    run = load_config(path)
    assert run.settings.keyframes.max_interval == 20
    assert (run.source, run.output) == (None, None)


@pytest.mark.parametrize("where", ["tool", "file", "present"])
def test_relative_paths_start_at_the_tool_the_file_or_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    path = official(tmp_path)
    base = {"tool": tmp_path, "file": tmp_path / "config", "present": here}[where]
    source = clip(base)
    run = load_config(path)
    assert run.source == source
    assert run.output == base / "output/music/music_fresco.mp4"


def test_a_missing_clip_is_told_with_the_places_tried(tmp_path: Path) -> None:
    run = load_config(official(tmp_path))
    assert run.source is None
    told = [text for text in run.report.ignored if text.startswith("file_path")]
    assert len(told) == 1
    assert str(tmp_path / "data/music.mp4") in told[0]
    assert str(tmp_path / "config/data/music.mp4") in told[0]


def test_keyframes_of_an_official_run_are_pointed_out(tmp_path: Path) -> None:
    clip(tmp_path)
    clip(tmp_path, "output/music/keys/0011.png")
    assert f"fresco propagate CLIP --keys {tmp_path / 'output/music/keys'}" in sentences(
        official(tmp_path))


def test_a_model_folder_beside_the_tool_is_taken(tmp_path: Path) -> None:
    (tmp_path / "models" / "mine").mkdir(parents=True)
    path = official(tmp_path, sd_path="models/mine")
    assert load_config(path).settings.sampling.model == str(tmp_path / "models/mine")


@pytest.mark.parametrize(
    "name", ["models/a.safetensors", "./model/mine", "/models/mine", "a/b/c", "C:\\models\\a"]
)
def test_a_model_path_that_is_not_there_is_no_hub_name(tmp_path: Path, name: str) -> None:
    path = official(tmp_path, sd_path=name)
    assert load_config(path).settings.sampling.model == ""
    expected = f"sd_path ({name!r}): no such file. Name a checkpoint as sampling.model."
    assert expected in sentences(path)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"mininterv": "ten"}, "mininterv is 'ten' .*a whole number"),
        ({"mininterv": True}, "mininterv is True"),
        ({"mininterv": 40}, r"min_interval is 40, above keyframes.max_interval, which is 30"),
        ({"prompt": 5}, "prompt is 5 .*a text"),
        ({"use_freeu": "on"}, "use_freeu is 'on' .*yes or no"),
        ({"batch_size": 2}, "batch_size is 2; give 3 to 64"),
        ({"num_warmup_steps": 21}, "num_warmup_steps is 21 .*0 to 20"),
        ({"num_warmup_steps": -1}, "num_warmup_steps is -1"),
        ({"num_inference_steps": 0}, "num_inference_steps is 0"),
        ({"cond_scale": "strong"}, "cond_scale is 'strong' .*a number"),
    ],
)
def test_wrong_values_are_named_with_key_and_file(
    tmp_path: Path, changes: dict[str, object], named: str
) -> None:
    path = official(tmp_path, **changes)
    with pytest.raises(SettingsError, match=named) as caught:
        load_config(path)
    assert str(path) in str(caught.value)


# Rerender


def test_a_rerender_file_sets_every_option_it_has(tmp_path: Path) -> None:
    source = clip(tmp_path, "videos/girl.mp4")
    model = clip(tmp_path, "models/cartoon.ckpt")
    run = load_config(rerender(tmp_path))
    assert run.source == source
    assert run.output == tmp_path / "out/blend.mp4"
    assert run.settings == from_dict({
        "keyframes": {"min_interval": 10, "max_interval": 10},
        "guidance": {"freeu_b1": 1.1, "freeu_b2": 1.2, "freeu_s1": 1.0, "freeu_s2": 0.2},
        "sampling": {
            "prompt": "a girl", "added_prompt": "sharp", "negative_prompt": "blurry",
            "scheduler": "ddim", "steps": 25, "strength": 1.0, "guidance_scale": 8.0,
            "resolution": 448, "model": str(model), "control": "canny", "control_weight": 0.7,
            "control_model": "lllyasviel/sd-controlnet-canny", "canny_low": 50, "canny_high": 200,
        },
        "output": {"last_frame": 101},
    })


def test_every_rerender_key_is_in_the_report_once(tmp_path: Path) -> None:
    clip(tmp_path, "videos/girl.mp4")
    report = load_config(rerender(tmp_path)).report
    said = [*report.mapped, *report.defaulted, *report.ignored]
    for key in RERENDER:
        naming = [text for text in said if text.startswith((f"{key}:", f"{key} "))]
        assert len(naming) == 1, (key, naming)
    assert "canny_high is not there: sampling.canny_high is 200, as in Rerender." in said


@pytest.mark.parametrize(("given", "strength"), [(-1, 1.0), (1.05, 1.0), (1, 1.0), (0.75, 0.75)])
def test_rerender_strength(tmp_path: Path, given: float, strength: float) -> None:
    path = rerender(tmp_path, x0_strength=given)
    assert load_config(path).settings.sampling.strength == strength


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"freeu_args": [1, 2, 3]}, "freeu_args"), ({"freeu_args": [1, 1, "a", 1]}, "freeu_args"),
     ({"frame_count": 0}, "frame_count is 0"), ({"x0_strength": -2}, "strength is -2"),
     ({"interval": 0}, "max_interval is 0"), ({"crop": "none"}, "crop is 'none'")],
)
def test_wrong_rerender_values_are_named(
    tmp_path: Path, changes: dict[str, object], named: str
) -> None:
    with pytest.raises(SettingsError, match=named):
        load_config(rerender(tmp_path, **changes))


def test_hed_in_capitals_and_a_crop_of_nothing(tmp_path: Path) -> None:
    run = load_config(rerender(tmp_path, control_type="HED", crop=[0, 0, 0, 0]))
    assert run.settings.sampling.control == "hed"
    assert "crop ([0, 0, 0, 0]): it crops nothing." in run.report.ignored


def test_reports_are_values(tmp_path: Path) -> None:
    report = load_config(official(tmp_path)).report
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.kind = "other"  # type: ignore[misc]
