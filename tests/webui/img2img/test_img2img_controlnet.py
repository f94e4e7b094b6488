"""Hints of a ControlNet: each frame's own, unless a unit has a picture of its own."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fresco.errors import HostError
from fresco.hosts.webui.controlnet_extension import _started_units
from tests.helpers.webui.client import Refused
from tests.helpers.webui.controlnet import ControlNet, Unit, offered
from tests.helpers.webui.double import DoubleHost
from tests.helpers.webui.http_host import text_of
from tests.helpers.webui.requests import INPAINT, QUICK, band, frames, pixels
from tests.helpers.webui.watcher import Watcher


@pytest.fixture
def control(double: DoubleHost, monkeypatch: pytest.MonkeyPatch) -> ControlNet:
    """A ControlNet, listed behind FRESCO as the WebUI's order of folders may do."""
    offered(monkeypatch)
    script = ControlNet()
    double.add(script)
    return script


def hints_of(control: ControlNet, unit: int = 0) -> list[torch.Tensor]:
    """[rows, 3, H, W] of every call of a unit's network."""
    return control.networks[unit].seen


@pytest.mark.parametrize("both", [True, False])
def test_every_frame_has_its_own_hint(double: DoubleHost, control: ControlNet, both: bool) -> None:
    control.units = [Unit()]
    given = frames(7)
    double.img2img(given, QUICK | {"batch_size": 4},
                   override_settings={"batch_cond_uncond": both})
    own = torch.cat([control.hint_of(np.asarray(frame)) for frame in given])
    assert len(own.flatten(1).unique(dim=0)) == 7
    batches = [own[[0, 1, 2, 3]], own[[0, 3, 4, 5, 6]]]
    chunks = 2 if both else 1
    wanted = [batch.repeat(chunks, 1, 1, 1) for batch in batches for _ in range(4 * (3 - chunks))]
    assert len(hints_of(control)) == len(wanted)
    assert all(map(torch.equal, hints_of(control), wanted))


def test_without_fresco_all_frames_share_a_hint(double: DoubleHost, control: ControlNet) -> None:
    control.units = [Unit()]
    double.img2img(frames(4), batch_size=4)
    assert all(len(hint) == 1 for hint in hints_of(control))


def test_a_picture_of_its_own_stays(double: DoubleHost, control: ControlNet) -> None:
    picture = np.asarray(frames(3)[2])
    control.units = [Unit(image={"image": picture, "mask": None}), Unit(model="other")]
    double.img2img(frames(4), QUICK)
    assert all(torch.equal(hint, control.hint_of(picture)) for hint in hints_of(control))
    assert all(len(hint) == 8 for hint in hints_of(control, 1))


def test_units_that_share_a_network(double: DoubleHost, control: ControlNet) -> None:
    """ControlNet loads a model once, however many units name it."""
    given = frames(4)
    picture = np.asarray(given[2])
    control.units = [Unit(image={"image": picture, "mask": None}), Unit()]
    double.img2img(given, QUICK)
    assert control.networks[0] is control.networks[1]
    own = torch.cat([control.hint_of(np.asarray(frame)) for frame in given]).repeat(2, 1, 1, 1)
    assert all(torch.equal(hint, control.hint_of(picture)) for hint in hints_of(control)[::2])
    assert all(torch.equal(hint, own) for hint in hints_of(control)[1::2])


def test_hints_of_inpainting_are_blank_where_each_frame_s_mask_is(
    double: DoubleHost, control: ControlNet
) -> None:
    control.units = [Unit(module="inpaint_global_harmonious")]
    tops = [0, 8, 16, 24]
    masks = [text_of(band(top)) for top in tops]
    double.img2img(frames(4), QUICK | {"masks": masks}, **INPAINT)
    blank = (hints_of(control)[-1][:4] == -1).all(1).all(2)
    assert [rows.nonzero()[0].item() for rows in blank] == tops
    assert blank.sum(1).tolist() == [16] * 4


def test_units_switched_off_do_nothing(double: DoubleHost, control: ControlNet) -> None:
    with_none = pixels(double.img2img(frames(3), QUICK))
    control.units = [Unit(enabled=False)]
    assert np.array_equal(pixels(double.img2img(frames(3), QUICK)), with_none)
    control.units = [Unit()]
    assert not np.array_equal(pixels(double.img2img(frames(3), QUICK)), with_none)


def test_the_reference_pass_sees_no_control(double: DoubleHost, control: ControlNet) -> None:
    """The pass is two calls of the UNet, which reach its own forward."""
    control.units = [Unit()]
    tokens: list[int] = []

    def look(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tokens.append(kwargs["context"].shape[1])

    handle = double.unet.register_forward_pre_hook(look, with_kwargs=True)
    double.img2img(frames(4), QUICK, sampler_name="DDIM")
    handle.remove()
    assert double.model.rows == [4, 4, 8, 8]
    assert tokens == [77, 77, 78, 78]  # without the mark that only ControlNet's forward takes off
    assert [len(hint) for hint in hints_of(control)] == [8, 8]


@pytest.mark.parametrize(("unit", "said"), [
    (Unit(kind="IPAdapter"), "canny (IPAdapter) cannot follow the frames"),
    (Unit(module="inpaint_only+lama"), "changes the sampling by one image for all frames"),
    (Unit(module="unheard"), "no preprocessor 'unheard'"),
])
def test_units_that_cannot_follow(
    double: DoubleHost, control: ControlNet, unit: Unit, said: str
) -> None:
    control.units = [unit]
    with pytest.raises(Refused) as caught:
        double.img2img(frames(3), QUICK)
    assert caught.value.status == 422
    assert said in caught.value.detail
    assert double.model.rows == []


def test_a_controlnet_that_did_not_start(double: DoubleHost, control: ControlNet) -> None:
    control.units, control.broken = [Unit()], True
    with pytest.raises(Refused, match="ControlNet has units switched on but did not start"):
        double.img2img(frames(3), QUICK)
    assert [str(error) for error in double.swallowed] == ["broken"]
    double.swallowed.clear()


def test_a_refused_call_leaves_nothing_to_the_next(
    double: DoubleHost, control: ControlNet
) -> None:
    """sd-webui-controlnet would lay the refused call's frame over the next call's images."""
    control.units = [Unit(module="inpaint_only")]
    vars(control)["post_processors"], vars(control)["noise_modifier"] = [lambda image: image], 1
    with pytest.raises(Refused):
        double.img2img(frames(3), QUICK)
    assert vars(control)["post_processors"] == []
    assert vars(control)["noise_modifier"] is None


@pytest.mark.parametrize("parameters", [None, []])
def test_a_network_that_was_left_half_made_did_not_start(parameters: list[Any] | None) -> None:
    """As sd-webui-controlnet leaves it where a unit's model does not exist."""
    network = SimpleNamespace(control_params=parameters)
    script = SimpleNamespace(enabled_units=[Unit()], latest_network=network)
    with pytest.raises(HostError, match="did not start"):
        _started_units(script)


def test_marked_prompts_do_not_reach_the_next_call(
    double: DoubleHost, control: ControlNet
) -> None:
    """ControlNet marks cached conditionings, and drops them in a forward that never came."""
    before = pixels(double.img2img(frames(1)))
    control.units = [Unit(kind="IPAdapter")]
    with pytest.raises(Refused, match="cannot follow"):
        double.img2img(frames(1), QUICK)
    control.units = []
    assert np.array_equal(pixels(double.img2img(frames(1))), before)


def test_nothing_is_left_on_the_networks(
    double: DoubleHost, control: ControlNet, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    control.units = [Unit()]
    before = pixels(double.img2img(frames(1)))

    def fail(*args: Any, **kwargs: Any) -> None:
        raise ZeroDivisionError("no way")

    with monkeypatch.context() as patch:
        patch.setattr("fresco.guidance.guide.FrescoGuide.step", fail)
        with pytest.raises(Refused, match="no way"):
            double.img2img(frames(3), QUICK)
    assert all(not len(network._forward_pre_hooks) for network in control.networks)
    assert np.array_equal(pixels(double.img2img(frames(1))), before)


@pytest.mark.parametrize("usual", [True, False])
def test_a_unit_that_does_not_say_whether_it_is_on_is_as_the_extension_takes_it(
    double: DoubleHost, control: ControlNet, monkeypatch: pytest.MonkeyPatch, usual: bool
) -> None:
    """Off in sd-webui-controlnet 1.1.455; on in older versions."""
    from fresco.hosts.webui.controlnet import _is_used

    external = vars(sys.modules["scripts.external_code"])
    monkeypatch.setitem(external, "ControlNetUnit", lambda: SimpleNamespace(enabled=usual))
    for name in ("get_models", "get_modules"):
        monkeypatch.setitem(external, name, list)

    def ask(unit: dict[str, Any]) -> bool:
        return _is_used(control, [None] * control.args_from + [unit])

    assert ask({"module": "canny"}) is usual
    assert ask({"module": "canny", "enabled": True})
    assert not ask({"module": "canny", "enabled": False})
