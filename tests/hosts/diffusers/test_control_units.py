"""Several ControlNets at once: their sum, their share of the steps, their modes, given hints."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fresco.control import ControlUnit, list_units, place_units, write_unit
from fresco.errors import FrescoError, SettingsError
from fresco.guidance.ports import Step
from fresco.hosts.diffusers.conditioning import Conditioning
from fresco.hosts.diffusers.denoiser import Control, Denoiser
from fresco.hosts.diffusers.host import DiffusersHost
from fresco.hosts.diffusers.load import load_host
from fresco.hosts.diffusers.preprocessors import Canny, Resized, complete_units
from fresco.progress import Progress
from fresco.settings import SamplingSettings
from tests.helpers.tiny_models import square_frames, tiny_host, tiny_request

FRAMES = 2


class Network(torch.nn.Module):
    """Adds its hint's mean to two skips and to the middle."""

    dtype = torch.float32

    def forward(
        self, x: Tensor, t: Tensor, *, controlnet_cond: Tensor, conditioning_scale: float,
        **_: Any,
    ) -> tuple[list[Tensor], Tensor]:
        level = controlnet_cond.mean((1, 2, 3))[:, None, None, None] * conditioning_scale
        return [level, level], level


class SeenUNet(torch.nn.Module):
    """Remembers what it is given beside the latents."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.config: dict[str, Any] = {}
        self.seen: list[list[Tensor]] = []

    def forward(self, x: Tensor, t: Tensor, **given: Any) -> tuple[Tensor]:
        down = given.get("down_block_additional_residuals", ())
        middle = given.get("mid_block_additional_residual")
        self.seen.append([*down, *([] if middle is None else [middle])])
        return (x,)


class Adapter:
    """Hands out the UNet alone."""

    def __init__(self) -> None:
        self.unet = SeenUNet()

    def calling(self, rows: object) -> Any:
        return torch.no_grad()


def added(units: Sequence[ControlUnit], *, step: int = 0, steps: int = 10) -> list[list[float]]:
    """What the UNet is given for each row, by layer; the hints of unit n are n everywhere."""
    hints = [torch.full((FRAMES, 3, 8, 8), float(n)) for n in range(1, len(units) + 1)]
    made = [Control(Network(), hint, unit) for hint, unit in zip(hints, units, strict=True)]
    adapter: Any = Adapter()
    words = Conditioning(torch.zeros(FRAMES, 1, 4))
    denoiser = Denoiser(adapter, words, words, scale=2.0, controls=made)
    denoiser.begin_call(Step(step, steps, 1.0))
    denoiser(torch.zeros(FRAMES, 4, 8, 8), torch.tensor(1))
    return [each.flatten().tolist() for each in adapter.unet.seen[0]]


def unit(**changes: Any) -> ControlUnit:
    return dataclasses.replace(ControlUnit("some", "canny"), **changes)


def test_the_sum_of_all_is_added() -> None:
    assert added([unit(weight=0.5), unit(weight=2.0)]) == [[4.5] * 2 * FRAMES] * 3
    assert added([]) == []


def test_each_acts_in_its_share_of_the_steps() -> None:
    """Where one ends another begins: no step has both, none has neither."""
    units = [unit(end=0.3), unit(start=0.3)]
    assert [added(units, step=step)[0][0] for step in range(10)] == [1.0] * 3 + [2.0] * 7
    assert added([unit(start=0.5, end=0.5)], step=5) == []


def test_modes_weaken_layers_away_from_the_middle() -> None:
    soft = [pytest.approx(0.825 ** away) for away in (2, 1, 0)]
    assert [layer[0] for layer in added([unit(control_mode="prompt")])] == soft
    control = added([unit(control_mode="control")])
    for layer, level in zip(control, soft, strict=True):
        assert layer[:FRAMES] == [0.0] * FRAMES  # the negative rows come first
        assert layer[FRAMES:] == [level] * FRAMES


def test_a_preprocessor_sees_frames_of_its_own_size() -> None:
    frames = square_frames(1)
    small = Resized(Canny(50, 100), 32)(frames)
    assert small.shape == frames.shape
    assert not np.array_equal(small, Canny(50, 100)(frames))


@pytest.fixture(scope="module")
def control(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ControlNet in a folder whose name says nothing."""
    import diffusers

    unet = diffusers.UNet2DConditionModel.from_pretrained(tiny_model / "unet")
    model: Any = diffusers.ControlNetModel.from_unet(unet)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.controlnet_down_blocks.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    folder = tmp_path_factory.mktemp("nets") / "net"
    model.save_pretrained(folder)
    return folder


def sample(host: DiffusersHost, **changes: Any) -> np.ndarray:
    with Progress().stage("sampling") as stage:
        return host.sample(tiny_request(**changes), None, stage).images


def test_units_of_a_host_and_its_fingerprint(tiny_model: Path, control: Path) -> None:
    """One unit by words is that of the options; hints given are those of the preprocessor."""
    frames = square_frames(3)
    short = tiny_host(tiny_model, control="canny", control_model=str(control), control_weight=1.0)
    hints = np.rint(Canny(50, 100)(frames) * 255).astype(np.uint8)
    given = tiny_host(tiny_model, control_units=(f"hints=/nowhere model={control}",))
    expected = sample(short)
    assert np.array_equal(sample(given, hints=(hints,)), expected)
    with pytest.raises(FrescoError, match="no hints of"):
        sample(given)
    twice = tiny_host(tiny_model, control_units=(
        f"canny model={control} weight=0.5", f"none model={control}",
    ))
    assert not np.array_equal(sample(twice), expected)
    assert twice._parts.controls[0] is twice._parts.controls[1]
    hosts = [short, given, twice, *(twice.with_settings(dataclasses.replace(
        twice._settings, control_units=(f"canny model={control} {words}", f"none model={control}"),
    )) for words in ("weight=0.5 end=0.9", "weight=0.6"))]
    assert len({host.fingerprint for host in hosts}) == len(hosts)


@pytest.mark.parametrize(("words", "sentence"), [
    ("openpose model=m", "'openpose', which needs packages that FRESCO does not bring"),
    ("model=some_openpose", "hints of the kind openpose, by its name"),
    ("canny model=m threshold_a=300", "Lower threshold of canny.* is 300; give 0 to 255"),
    ("canny model=m threshold_a=200", "threshold_a of canny is 200, above threshold_b"),
    ("hed model=m threshold_a=2", "preprocessor hed has no such number"),
    ("canny model=/none/such.safetensors", "no ControlNet at /none/such.safetensors"),
])
def test_what_cannot_be_is_refused_before_the_model_is_loaded(words: str, sentence: str) -> None:
    settings = SamplingSettings(model="/none/model.safetensors", control_units=(words,))
    with pytest.raises(FrescoError, match=sentence):
        load_host(settings, offline=True)


def test_preprocessors_are_chosen_by_name() -> None:
    names = ("control_v11p_sd15_canny.pth", "/canny/sd-controlnet-depth", "x_softedge_y", "tile",
             "ip2p", "unheard")
    found = [each.module for each in complete_units([ControlUnit(name) for name in names])]
    assert found == ["canny", "depth", "hed", "none", "none", "none"]


def test_units_in_the_settings_are_those_that_were_placed() -> None:
    """The first one in the options of one unit where these can say it, as cache keys of before."""
    units = [
        [ControlUnit("m", "canny", 0.5, threshold_a=50, threshold_b=100)],
        [ControlUnit("m", "hed", end=0.5), ControlUnit("a b", "depth")],
        [ControlUnit("m", "none", hints="some 'where'"), ControlUnit("n", "canny")],
    ]
    for given in units:
        assert list(list_units(place_units(SamplingSettings(), given))) == given
    placed = place_units(SamplingSettings(), [ControlUnit("m", "canny", 0.5)])
    assert (placed.control, placed.canny_low, placed.control_units) == ("canny", 50, ())
    assert write_unit(ControlUnit("a b", "depth", 0.5)) == 'depth model="a b" weight=0.5'


@pytest.mark.parametrize(("words", "sentence"), [
    ("canny", "names no ControlNet"), ("canny model=m wieght=1", "has 'wieght=1'"),
    ("canny model=m weight=x", "has weight=x"), ("canny model=m weight=3", "weight is 3.0; give 0"),
    ("canny model='m", "a quote is not closed"), ("canny model=m model=n", "names model twice"),
    ("canny model=m hints=here", "leave one of the two out"),
    ("canny model=m control_mode=loud", "choose one of balanced, prompt, control"),
])
def test_words_that_are_wrong(words: str, sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        list_units(SamplingSettings(control_units=(words,)))
