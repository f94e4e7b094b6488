"""What `fresco ui` offers to jobs, over a tiny model of diffusers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from fresco.control import ControlUnit
from fresco.errors import FrescoError, HostError, SettingsError
from fresco.hosts.options import HostOptions
from fresco.settings import FlowSettings, SamplingSettings
from fresco.ui.environment import Choices, DiffusersEnvironment

SAMPLING = SamplingSettings(steps=4, strength=0.5, device="cuda:9", resolution=64)
"""A job's; the device is not the job's to choose."""


def environment(model: Path, **changes: Any) -> DiffusersEnvironment:
    return DiffusersEnvironment(Choices(
        (str(model),), sampling=SamplingSettings(device="cpu"), flow=FlowSettings(offline=True),
        **changes,
    ))


@pytest.fixture
def control(tmp_path: Path) -> Path:
    """A file that is listed as a ControlNet; nothing here loads it."""
    path = tmp_path / "tiny_canny.safetensors"
    path.write_bytes(b"-")
    return path


def test_empty_options_become_what_comes_first(demo_model: Path) -> None:
    here = environment(demo_model)
    offer = here.offer()
    assert offer.models == (demo_model.name,)
    assert (offer.samplers[0], offer.control_models) == ("ddpm", ())
    assert here.resolve(HostOptions()) == HostOptions(demo_model.name, "ddpm")


@pytest.mark.parametrize(("options", "sentence"), [
    (HostOptions(model="other"), "host.model is 'other', which is not here; choose one of"),
    (HostOptions(sampler="none such"), "host.sampler is 'none such'"),
    (HostOptions(sampler="ddim", scheduler="karras"), "ddim has no Karras form"),
    (HostOptions(sampler="lcm", scheduler="leading"), "lcm has timesteps of its own"),
    (HostOptions(control=(ControlUnit("nowhere", "canny"),)), "model is 'nowhere'"),
    (HostOptions(control=(ControlUnit("tiny_canny.safetensors", "openpose"),)),
     "'openpose', which needs packages that FRESCO does not bring"),
    (HostOptions(control=(ControlUnit("tiny_canny.safetensors", threshold_a=300),)),
     "control.threshold_a .Lower threshold of canny. is 300; give 0 to 255"),
])
def test_what_is_not_there_is_refused_before_a_job(
    demo_model: Path, control: Path, options: HostOptions, sentence: str
) -> None:
    here = environment(demo_model, control_models=(str(control),))
    assert here.offer().control_models == (control.name,)
    with pytest.raises(SettingsError, match=sentence):
        here.resolve(options)


def test_a_model_is_loaded_once_for_jobs_that_differ_in_their_options(demo_model: Path) -> None:
    here = environment(demo_model)
    one: Any = here.open(HostOptions(), SAMPLING)
    options = HostOptions(sampler="euler", scheduler="trailing")
    two: Any = here.open(options, dataclasses.replace(SAMPLING, seed=3))
    assert (two._settings.scheduler, two._settings.timesteps) == ("euler", "trailing")

    assert two._parts is one._parts
    assert two.device == "cpu"
    assert one.fingerprint != two.fingerprint


def test_a_model_that_changed_on_disk_or_has_other_lora_is_loaded_again(
    demo_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    model = tmp_path / "model"
    model.symlink_to(demo_model)
    up = {f"lora_unet_mid_block_attentions_0_proj_in.lora_{side}.weight": value
          for side, value in (("down", torch.ones(2, 128)), ("up", torch.ones(128, 2)))}
    save_file(up, tmp_path / "own.safetensors")
    here = DiffusersEnvironment(Choices(
        (str(model),), sampling=SamplingSettings(device="cpu", lora_dir=str(tmp_path)),
        flow=FlowSettings(offline=True),
    ))
    plain: Any = here.open(HostOptions(), SAMPLING)
    changed = dataclasses.replace(SAMPLING, prompt="a <lora:own:0.5>")
    with_lora: Any = here.open(HostOptions(), changed)
    assert with_lora._parts is not plain._parts
    (tmp_path / "work" / "notes.txt").write_text("the folder at work is none of the model's")
    again: Any = here.open(HostOptions(), changed)
    assert again._parts is with_lora._parts
    (demo_model / "unet" / "config.json").touch()
    assert here.open(HostOptions(), changed)._parts is not with_lora._parts  # type: ignore


def test_models_that_cannot_be_used_are_refused_at_the_start(tmp_path: Path) -> None:
    vae = tmp_path / "vae.safetensors"
    save_file({"decoder.conv_in.weight": torch.zeros(4, 4, 3, 3),
               "encoder.conv_in.weight": torch.zeros(4, 3, 3, 3)}, vae)
    with pytest.raises(FrescoError, match=r"vae\.safetensors"):
        environment(vae).require_models()
    with pytest.raises(HostError, match=r"There is no model at .*gone"):
        environment(tmp_path / "gone.safetensors").require_models()
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(SettingsError, match="there is no model; put one there"):
        DiffusersEnvironment(Choices(models_dir=str(empty))).require_models()


def test_others_may_name_files_of_opened_folders_alone(demo_model: Path, tmp_path: Path) -> None:
    environment(demo_model).require_allowed("/etc/passwd")
    shared = environment(demo_model, only_own=False, open_folders=(tmp_path,))
    shared.require_allowed(str(tmp_path / "clip.mp4"))
    for path in ("/etc/passwd", str(tmp_path / ".." / "x"), "a" * 5000 + "\0"):
        with pytest.raises(SettingsError, match="outside of the folders"):
            shared.require_allowed(path)


def test_flow_has_the_folder_and_the_network_of_the_start(demo_model: Path) -> None:
    found = environment(demo_model).complete_flow(FlowSettings(estimator="dis"))
    assert (found.estimator, found.offline) == ("dis", True)


def test_checks_name_what_is_offered(demo_model: Path) -> None:
    texts = {check.name: check.text for check in environment(demo_model).run_checks()}
    assert f"{demo_model.name} is the default" in texts["Checkpoint"]
    assert "--control-model" in texts["ControlNet"]
