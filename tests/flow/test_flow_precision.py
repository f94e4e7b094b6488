"""A host's autocast is kept out, where there is one."""

from __future__ import annotations

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
