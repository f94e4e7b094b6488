"""Hints of a ControlNet: canny, soft edges, depth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import DPTConfig, DPTForDepthEstimation

from fresco.control import ControlUnit
from fresco.errors import HostError
from fresco.hosts.diffusers.hed import HedNetwork
from fresco.hosts.diffusers.preprocessors import Canny, Depth, SoftEdges, create_preprocessor
from tests.helpers.tiny_models import square_frames

CPU = torch.device("cpu")


def unit(kind: str) -> ControlUnit:
    return ControlUnit("some", kind)


def test_canny_marks_the_square_of_every_frame() -> None:
    hints = Canny(50, 100)(square_frames(2))
    assert hints.shape == (2, 64, 64, 3)
    assert hints.dtype == np.float32
    assert set(np.unique(hints)) == {0.0, 1.0}
    for index in range(2):
        columns = np.flatnonzero(hints[index, 20:36, :, 0].sum(axis=0) > 8)
        assert abs(int(columns.min()) - (8 + 4 * index)) <= 1
        assert abs(int(columns.max()) - (27 + 4 * index)) <= 1


def test_canny_obeys_its_thresholds() -> None:
    """The official tool ignores them (docs/method.md, section 12)."""
    soft = (square_frames(1) // 4).astype(np.uint8)
    assert Canny(10, 20)(soft).sum() > 0
    assert Canny(250, 255)(soft).sum() == 0


def test_soft_edges_find_what_a_network_of_differences_finds() -> None:
    """Weights set so that the first block passes a horizontal difference: truth is known."""
    network = HedNetwork()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        first, second = network.block1.convs
        first.weight[0, 0, 1, 1], first.weight[0, 0, 1, 0] = 1.0, -1.0
        second.weight[0, 0, 1, 1] = 1.0
        network.block1.projection.weight[0, 0] = 1.0
    frames = square_frames(1)
    red = frames[0, ..., 0].astype(float)
    rises = np.maximum(np.diff(red, axis=1, prepend=0), 0)
    expected = 1 / (1 + np.exp(-rises / 5))
    assert np.allclose(SoftEdges(network.eval())(frames)[0, ..., 0], expected, atol=1e-5)


def test_hed_network_has_the_published_keys() -> None:
    state = HedNetwork().state_dict()
    assert len(state) == 1 + 2 * (2 + 2 + 3 + 3 + 3) + 2 * 5
    assert tuple(state["block5.convs.2.weight"].shape) == (512, 512, 3, 3)
    assert tuple(state["block3.projection.weight"].shape) == (1, 256, 1, 1)


def test_depth_of_every_frame_fills_its_range(tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                              ) -> None:
    torch.manual_seed(0)
    config = DPTConfig(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=16,
        backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8,
        image_size=384, patch_size=16, is_hybrid=False,
    )
    network = DPTForDepthEstimation(config)
    with torch.no_grad():  # untrained depths differ by 1e-9 only
        network.head.head[-2].weight.mul_(1e6)
        network.head.head[-2].bias.fill_(1e4)
    network.save_pretrained(tmp_path / "dpt-hybrid-midas")
    monkeypatch.setenv("FRESCO_WEIGHTS", str(tmp_path))
    preprocessor = create_preprocessor(unit("depth"), CPU, offline=True)
    assert isinstance(preprocessor, Depth)
    hints = preprocessor(square_frames(2))
    assert hints.shape == (2, 64, 64, 3)
    assert hints.min(axis=(1, 2, 3)) == pytest.approx([0, 0], abs=1e-5)
    assert hints.max(axis=(1, 2, 3)) == pytest.approx([1, 1], abs=1e-5)


@pytest.mark.parametrize(("kind", "name"), [
    ("hed", "ControlNetHED.pth"), ("depth", "Intel/dpt-hybrid-midas"),
])
def test_missing_networks_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, name: str
) -> None:
    monkeypatch.setenv("FRESCO_WEIGHTS", str(tmp_path))
    with pytest.raises(HostError, match=f"preprocessor is '{kind}'.*{name}.*use canny"):
        create_preprocessor(unit(kind), CPU, offline=True)


def test_weights_of_another_network_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRESCO_WEIGHTS", str(tmp_path))
    torch.save({"weight": torch.zeros(1)}, tmp_path / "ControlNetHED.pth")
    with pytest.raises(HostError, match="is not the HED network"):
        create_preprocessor(unit("hed"), CPU, offline=True)
    torch.save(HedNetwork().state_dict(), tmp_path / "ControlNetHED.pth")
    assert isinstance(create_preprocessor(unit("hed"), CPU, offline=True), SoftEdges)
