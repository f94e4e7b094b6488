"""A result that is not a number ends a guided call with a sentence, whichever frame has it.

The WebUI itself looks only for results of which every value is broken.
"""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor

from tests.helpers.webui.client import Refused
from tests.helpers.webui.double import DoubleHost
from tests.helpers.webui.requests import NONE, QUICK, frames


@pytest.mark.parametrize("sampler", ["Euler", "DDIM"])
@pytest.mark.parametrize("broken", [1, -1], ids=["first call", "last call"])
def test_one_broken_frame_is_told_with_its_call(
    double: DoubleHost, monkeypatch: pytest.MonkeyPatch, sampler: str, broken: int
) -> None:
    calls = 0
    count = {"Euler": 4, "DDIM": 2}[sampler]
    wanted = broken % (count + 1)

    def apply_model(x: Tensor, t: Tensor, cond: dict[str, Any]) -> Tensor:
        nonlocal calls
        calls += 1
        output = double.model.model(x, t, **cond)
        if calls == wanted:
            output[1, 0, 2, 3] = float("inf")
        return output

    monkeypatch.setattr(double.model, "apply_model", apply_model)
    with pytest.raises(Refused, match=rf"NaN or infinite values in call {wanted} .*--no-half"):
        double.img2img(frames(3), NONE, sampler_name=sampler)


def test_broken_features_of_the_decoder_are_told(
    double: DoubleHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where they are optimised: the loss of a broken frame has no gradient to trust."""
    middle = double.unet.middle_block[2].out_layers[3].bias
    kept = middle.clone()
    try:
        middle.fill_(float("nan"))
        with pytest.raises(Refused, match="NaN"):
            double.img2img(frames(3), QUICK)
    finally:
        middle.copy_(kept)
