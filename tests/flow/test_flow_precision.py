"""A host's autocast is kept out, where there is one, and TF32 on CUDA."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from fresco.flow.precision import full_precision


def test_it_turns_a_hosts_autocast_off_and_leaves_it_as_it_was() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        with full_precision(torch.device("cpu")):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16


def test_a_device_without_autocast_is_none_of_its_affair() -> None:
    with full_precision(torch.device("meta")):
        assert (torch.ones(2, 2, device="meta") @ torch.ones(2, 2, device="meta")).shape == (2, 2)


def tf32_flags() -> list[object]:
    """What hosts and torch itself read, by the old names and the new; None: refused."""
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    found: list[object] = []
    for owner, name in ((products, "allow_tf32"), (convolutions, "allow_tf32"),
                        (products, "fp32_precision"),
                        (getattr(convolutions, "conv", None), "fp32_precision")):
        try:
            found.append(getattr(owner, name, "absent"))
        except RuntimeError:  # the host has used the new names
            found.append(None)
    return found


@pytest.fixture(params=["as torch starts", "as the WebUI", "off", "new names"])
def flags(request: pytest.FixtureRequest) -> Iterator[list[object]]:
    """Flags of TF32 as a host leaves them."""
    products: Any = torch.backends.cuda.matmul
    convolutions: Any = torch.backends.cudnn
    start = products.allow_tf32, convolutions.allow_tf32
    new = request.param == "new names"
    if new and not hasattr(convolutions, "conv"):
        pytest.skip("torch knows the old names only")
    places = [(products, products.fp32_precision),
              (convolutions.conv, "none")] if new else []
    if new:
        for place, _ in places:
            place.fp32_precision = "tf32"
    elif request.param != "as torch starts":
        products.allow_tf32 = convolutions.allow_tf32 = request.param == "as the WebUI"
    yield tf32_flags()
    for place, value in places:
        place.fp32_precision = value
    products.allow_tf32, convolutions.allow_tf32 = start


def test_tf32_is_off_within_on_cuda_and_as_before_after(flags: list[object]) -> None:
    cuda = torch.device("cuda")
    with full_precision(cuda):
        within = tf32_flags()
        with full_precision(cuda):
            assert tf32_flags() == within
        assert tf32_flags() == within
    assert within[0] is False
    assert within[1] is False
    assert "tf32" not in within
    assert tf32_flags() == flags
    with pytest.raises(ZeroDivisionError), full_precision(cuda):
        raise ZeroDivisionError
    assert tf32_flags() == flags


def test_other_devices_leave_tf32_alone(flags: list[object]) -> None:
    with full_precision(torch.device("cpu")):
        assert tf32_flags() == flags
