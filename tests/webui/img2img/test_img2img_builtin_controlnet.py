"""Hints of the ControlNet that Forge kinds have built in: each frame's own, in every batch."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.webui.client import Refused
from tests.helpers.webui.controlnet_builtin import (
    BuiltinControlNet,
    InputMode,
    Unit,
    offered,
)
from tests.helpers.webui.double import DoubleHost
from tests.helpers.webui.http_host import text_of
from tests.helpers.webui.requests import INPAINT, NONE, QUICK, band, frames, pixels

IN_BOTH = pytest.mark.parametrize("control", ["Forge", "reForge"], indirect=True)


@pytest.fixture
def control(
    request: pytest.FixtureRequest, double: DoubleHost, monkeypatch: pytest.MonkeyPatch
) -> BuiltinControlNet:
    """One that makes hints for the first batch, or one that splits them by iteration."""
    offered(monkeypatch)
    script = BuiltinControlNet(splits=getattr(request, "param", "") == "reForge")
    double.add(script)
    return script


def hints_of(given: list[Image.Image]) -> torch.Tensor:
    """[N, 3, H, W] without a preprocessor."""
    made = np.stack([np.array(frame) for frame in given])
    return torch.from_numpy(made).float().movedim(-1, 1) / 255


@IN_BOTH
def test_every_frame_has_its_own_hint(double: DoubleHost, control: BuiltinControlNet) -> None:
    control.units = [Unit()]
    given = frames(7)
    double.img2img(given, QUICK | {"batch_size": 4})
    own = hints_of(given)
    assert len(own.flatten(1).unique(dim=0)) == 7
    batches = [own[[0, 1, 2, 3]], own[[0, 3, 4, 5, 6]]]
    wanted = [batch.repeat(2, 1, 1, 1) for batch in batches for _ in range(4)]
    assert len(control.seen[0]) == len(wanted)
    assert all(map(torch.equal, control.seen[0], wanted))
    assert control.loads == 1, "the model is not read again for each batch"


def test_an_image_depends_on_its_frame_s_hint_alone(
    double: DoubleHost, control: BuiltinControlNet
) -> None:
    plain = pixels(double.img2img(frames(4), NONE))
    control.units = [Unit(weight=3.0)]
    given = frames(5)
    first = pixels(double.img2img(given[:4], NONE))
    assert all(np.abs(first - plain).mean((1, 2, 3)) > 1)
    other = pixels(double.img2img([given[0], given[4], *given[2:4]], NONE))
    assert [bool((a == b).all()) for a, b in zip(other, first, strict=True)] == [
        True, False, True, True
    ]


@IN_BOTH
def test_an_image_of_its_own_stays(double: DoubleHost, control: BuiltinControlNet) -> None:
    given = frames(7)
    control.units = [Unit(image=np.array(given[2])), Unit()]
    double.img2img(given, QUICK | {"batch_size": 4})
    own = hints_of(given)
    assert [len(rows) for rows in control.seen[0]] == [8] * 4 + [10] * 4
    assert all(torch.equal(rows, own[[2]].expand_as(rows)) for rows in control.seen[0])
    assert all(torch.equal(rows[4:], own[[0, 1, 2, 3]]) for rows in control.seen[1][:4])


def test_weight_nought_changes_nothing(double: DoubleHost, control: BuiltinControlNet) -> None:
    plain = pixels(double.img2img(frames(3), QUICK))
    control.units = [Unit(weight=0.0)]
    assert np.array_equal(pixels(double.img2img(frames(3), QUICK)), plain)
    assert len(control.seen[0]) == 4


@IN_BOTH
def test_masks_have_a_row_for_each_frame(double: DoubleHost, control: BuiltinControlNet) -> None:
    """The host makes them for the first batch; the second one is larger."""
    control.units = [Unit(), Unit(module="inpaint_global_harmonious")]
    mask = Image.fromarray(np.pad(np.full((32, 32), 255, np.uint8), 16))
    given = frames(7)
    double.img2img(given, QUICK | {"batch_size": 4}, mask=mask, inpaint_full_res=False)
    assert [len(rows) for rows in control.masks[0]] == [4, 5]
    inside = control.seen[1][-1][:, :, 16:48, 16:48]
    assert bool((inside == -1).all())
    assert torch.equal(control.seen[1][-1][5:, :, :16], hints_of(given)[[0, 3, 4, 5, 6], :, :16])


def test_masks_are_each_frame_s_own(double: DoubleHost, control: BuiltinControlNet) -> None:
    control.units = [Unit(module="inpaint_global_harmonious")]
    tops = [0, 8, 16, 24, 32, 40, 48]
    masks = [text_of(band(top)) for top in tops]
    double.img2img(frames(7), QUICK | {"batch_size": 4, "masks": masks}, **INPAINT)
    blank = (control.seen[0][-1][:5] == -1).all(1).all(2)
    assert [rows.nonzero()[0].item() for rows in blank] == [tops[k] for k in (0, 3, 4, 5, 6)]
    assert blank.sum(1).tolist() == [16] * 5


def test_units_come_back_unchanged(double: DoubleHost, control: BuiltinControlNet) -> None:
    unit = Unit(module="canny", pixel_perfect=True)
    before = copy.copy(unit)
    plain = pixels(double.img2img(frames(1)))
    control.units = [unit]
    with_hints = pixels(double.img2img(frames(3), QUICK))
    before.processor_res = 64  # by ControlNet itself
    assert unit == before
    control.units = []
    assert not np.array_equal(with_hints, plain)
    assert np.array_equal(pixels(double.img2img(frames(1))), plain)
    assert vars(control).keys() == vars(BuiltinControlNet()).keys() | {
        "alwayson", "args_from", "args_to", "controls", "filename", "is_img2img", "name",
    }


@pytest.mark.parametrize(("unit", "said"), [
    (Unit(model="t2i_style"), "ControlNet's unit None (IPAdapterPatcher) cannot follow the frames"),
    (Unit(module="CLIP-ViT-H (IPAdapter)"), "makes no image of a frame"),
    (Unit(module="inpaint_only"), "inpaint_only changes the sampling by one image for all frames"),
    (Unit(input_mode=InputMode.BATCH), "takes several images (input mode BATCH)"),
])
def test_units_that_cannot_follow(
    double: DoubleHost, control: BuiltinControlNet, unit: Unit, said: str
) -> None:
    control.units = [unit]
    with pytest.raises(Refused) as caught:
        double.img2img(frames(3), QUICK)
    assert caught.value.status == 422
    assert said in caught.value.detail
    assert double.model.rows == []


def test_hints_of_the_batch_tab_s_folder(
    double: DoubleHost, control: BuiltinControlNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    offered(monkeypatch, folder=" /hints ")
    control.units = [Unit()]
    with pytest.raises(Refused, match="takes its images from the folder /hints"):
        double.img2img(frames(3), QUICK)


def test_a_unit_that_did_not_start(double: DoubleHost, control: BuiltinControlNet) -> None:
    control.units = [Unit(), Unit(model="gone")]
    with pytest.raises(Refused, match="ControlNet has units switched on but did not start"):
        double.img2img(frames(3), QUICK)
    assert [str(error) for error in double.swallowed] == ["no such model"]
    double.swallowed.clear()


def test_what_goes_wrong_right_before_the_sampling(
    double: DoubleHost, control: BuiltinControlNet
) -> None:
    """The host swallows it, and would make images without ControlNet."""
    control.units = [Unit(module="inpaint_global_harmonious")]  # without a mask
    with pytest.raises(Refused, match="ControlNet could not get ready for the frames"):
        double.img2img(frames(3), QUICK)
    assert double.model.rows == []
    assert [type(error) for error in double.swallowed] == [AttributeError]
    double.swallowed.clear()


def test_two_controlnets(double: DoubleHost, control: BuiltinControlNet) -> None:
    other = BuiltinControlNet()
    double.add(other)
    other.filename = "extensions/sd-webui-controlnet/scripts/controlnet.py"
    with_none = pixels(double.img2img(frames(3), QUICK))
    control.units = [Unit()]
    with pytest.raises(Refused, match=r"has 2 ControlNets, .*remove one"):
        double.img2img(frames(3), QUICK)
    control.units = []
    assert np.array_equal(pixels(double.img2img(frames(3), QUICK)), with_none)


def test_a_controlnet_of_another_make(double: DoubleHost) -> None:
    class Unheard(BuiltinControlNet):
        get_input_data: Any = None
        process = process_before_every_sampling = postprocess = lambda *_args, **_kwargs: None

    control = Unheard()
    double.add(control)
    double.img2img(frames(3), QUICK)
    control.units = [Unit()]
    with pytest.raises(Refused, match="not one that FRESCO can give hints to"):
        double.img2img(frames(3), QUICK)
