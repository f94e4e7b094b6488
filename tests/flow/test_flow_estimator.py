"""Estimators: known motion, the choice among them, networks from files, and the cache."""

from __future__ import annotations

import importlib.util
import logging
import pickle
import sys
import types
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from fresco.errors import WeightsError
from fresco.flow import network as networks
from fresco.flow.cache import CachedEstimator
from fresco.flow.dis import DisEstimator
from fresco.flow.estimator import create_estimator
from fresco.flow.gmflow import GMFlow
from fresco.flow.interface import FlowEstimator
from fresco.flow.network import GMFLOW, RAFT, NetworkEstimator, NetworkSpec, find_raft
from fresco.flow.occlusion import find_occlusion, ring_flow
from fresco.flow.tensors import to_images
from fresco.settings import FlowSettings
from fresco.weights import GMFLOW_SINTEL, WeightFile, file_sha256
from tests.helpers.motion_scenes import texture
from tests.helpers.tolerances import KNOWN_FLOW_PIXELS

SIZES = [(16, 16), (1, 1), (5, 7), (8, 400), (400, 8), (33, 64)]


def pair(height: int, width: int, shift: int = 2) -> Tensor:
    image = texture(height, width)
    return to_images(np.stack([image, np.roll(image, shift, axis=1)]))


def random_weights(path: Path, seed: int = 0) -> Path:
    """A file of GMFlow's layout."""
    torch.manual_seed(seed)
    torch.save({"model": GMFlow().state_dict()}, path)
    return path


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a file that passes for the published one."""
    path = random_weights(tmp_path / GMFLOW_SINTEL.name)
    weight = WeightFile(path.name, path.stat().st_size, file_sha256(path), "https://example.org/",
                        "MIT")
    monkeypatch.setattr("fresco.flow.estimator.GMFLOW_SINTEL", weight)
    return tmp_path


def test_dis_finds_a_known_smooth_flow() -> None:
    image = texture(96, 128)
    ys, xs = np.mgrid[:96, :128].astype(np.float32)
    known = np.stack((2 + np.sin(ys / 20), 1 + np.cos(xs / 25)))
    # The target at p is the source at p - f(p) for a flow this smooth, up to its second order.
    target = cv2.remap(image, xs - known[0], ys - known[1], cv2.INTER_CUBIC)
    images = to_images(np.stack([image, target]))
    forward, backward = DisEstimator().estimate(images[:1], images[1:])
    inner = (slice(12, -12), slice(12, -12))
    for flow, expected in ((forward, known), (backward, -known)):
        error = np.linalg.norm(flow[0].numpy() - expected, axis=0)[inner]
        assert error.mean() < KNOWN_FLOW_PIXELS


@pytest.mark.parametrize("size", SIZES)
def test_dis_takes_every_size(size: tuple[int, int]) -> None:
    images = pair(*size)
    for flow in DisEstimator().estimate(images[:1], images[1:]):
        assert flow.shape == (1, 2, *size)
        assert torch.isfinite(flow).all()


def test_dis_does_not_depend_on_what_it_saw_before() -> None:
    images, estimator = pair(48, 64), DisEstimator()
    alone = estimator.estimate(images[:1], images[1:])
    estimator.estimate(*pair(96, 32).split(1))
    again = estimator.estimate(images, images.roll(-1, dims=0))
    assert torch.equal(alone[0], again[0][:1])


@pytest.mark.parametrize("size", [(16, 16), (1, 5), (35, 50)])
def test_a_network_takes_every_size(size: tuple[int, int], tmp_path: Path) -> None:
    estimator = NetworkEstimator(GMFLOW, random_weights(tmp_path / "net.pth"), "cpu")
    images = pair(*size)
    for flow in estimator.estimate(images[:1], images[1:]):
        assert flow.shape == (1, 2, *size)
        assert torch.isfinite(flow).all()


def test_padding_leaves_whole_sizes_alone(tmp_path: Path) -> None:
    estimator = NetworkEstimator(GMFLOW, random_weights(tmp_path / "net.pth"), "cpu")
    images = pair(32, 48)
    expected = estimator.load_network()(images[:1], images[1:])
    found = estimator.estimate(images[:1], images[1:])
    assert all(torch.equal(*both) for both in zip(found, expected, strict=True))


def test_a_pair_does_not_depend_on_its_company(tmp_path: Path) -> None:
    estimator = NetworkEstimator(GMFLOW, random_weights(tmp_path / "net.pth"), "cpu")
    images = pair(32, 48)
    alone = estimator.estimate(images[1:], images[:1])
    company = estimator.estimate(images, images.flip(0))
    assert torch.equal(alone[0], company[0][1:])
    assert torch.equal(alone[1], company[1][1:])


def test_networks_travel_to_workers_without_their_weights(tmp_path: Path) -> None:
    estimator = NetworkEstimator(GMFLOW, random_weights(tmp_path / "net.pth"), "cpu")
    images = pair(16, 16)
    expected = estimator.estimate(images[:1], images[1:])
    data = pickle.dumps(estimator)
    assert len(data) < 2000
    found = pickle.loads(data).estimate(images[:1], images[1:])
    assert torch.equal(found[0], expected[0])


def test_fingerprints_tell_weights_apart(tmp_path: Path) -> None:
    one, other = (NetworkEstimator(GMFLOW, random_weights(tmp_path / f"{i}.pth", i), "cpu")
                  for i in range(2))
    assert one.fingerprint != other.fingerprint
    assert one.fingerprint == NetworkEstimator(GMFLOW, tmp_path / "0.pth", "cpu").fingerprint


@pytest.mark.parametrize("change", [
    lambda s: s.pop("upsampler.0.bias"), lambda s: s.update(more=torch.ones(1)),
    lambda s: s.update({"upsampler.0.bias": torch.ones(3)}),
], ids=["missing", "unknown", "shape"])
def test_weights_of_another_network_are_refused(change, tmp_path: Path) -> None:
    state = GMFlow().state_dict()
    change(state)
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match=r"net\.pth holds no weights of gmflow: 1 of"):
        NetworkEstimator(GMFLOW, tmp_path / "net.pth", "cpu").load_network()


def test_auto_takes_gmflow_where_its_weights_are(published: Path) -> None:
    estimator = create_estimator(FlowSettings(weights_dir=str(published), offline=True))
    assert estimator.name == "gmflow"
    assert "GMFlow" in estimator.note


def test_auto_without_weights_takes_dis_and_says_what_it_costs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "fresco"):
        estimator = create_estimator(FlowSettings(weights_dir=str(tmp_path), offline=True))
    assert estimator.name == "dis"
    assert "far more pixels as occluded" in estimator.note
    assert "GMFlow is not available" in caplog.text
    assert estimator.note in caplog.text


def test_auto_does_not_pass_by_a_damaged_file(tmp_path: Path) -> None:
    (tmp_path / GMFLOW_SINTEL.name).write_bytes(b"damaged")
    with pytest.raises(WeightsError, match="is damaged"):
        create_estimator(FlowSettings(weights_dir=str(tmp_path), offline=True))


def test_gmflow_by_name_never_becomes_another(tmp_path: Path) -> None:
    settings = FlowSettings(estimator="gmflow", weights_dir=str(tmp_path), offline=True)
    with pytest.raises(WeightsError, match=GMFLOW_SINTEL.name):
        create_estimator(settings)


def test_raft_without_torchvision_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(WeightsError, match=r"raft.*needs torchvision"):
        create_estimator(FlowSettings(estimator="raft", weights_dir=str(tmp_path)))


def test_raft_without_its_file_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "_import_raft", lambda: types.SimpleNamespace())
    with pytest.raises(WeightsError, match=r"raft_large\.safetensors nor raft_large\.pth"):
        find_raft(tmp_path)
    (tmp_path / "raft_large.pth").write_bytes(b"")
    assert find_raft(tmp_path) == tmp_path / "raft_large.pth"


HAS_TORCHVISION = importlib.util.find_spec("torchvision") is not None


@pytest.mark.parametrize("spec", [GMFLOW, *([RAFT] if HAS_TORCHVISION else [])],
                         ids=lambda spec: spec.name)
def test_networks_run_on_weights_of_a_file(tmp_path: Path, spec: NetworkSpec) -> None:
    """RAFT where torchvision is, which brings it."""
    torch.save(spec.build().state_dict(), tmp_path / "network.pth")
    images = pair(40, 50)
    estimator = NetworkEstimator(spec, tmp_path / "network.pth", "cpu")
    for flow in estimator.estimate(images[:1], images[1:]):
        assert flow.shape == (1, 2, 40, 50)
        assert torch.isfinite(flow).all()


class Counting:
    """DIS that counts its pairs."""

    name, note, device = "dis", "", "cpu"
    fingerprint = former_fingerprint = "counting"

    def __init__(self) -> None:
        self.pairs = 0

    def estimate(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        self.pairs += len(source)
        return DisEstimator().estimate(source, target)


def frames(count: int, seed: int = 0) -> np.ndarray:
    image = texture(32, 40, seed)
    return np.stack([np.roll(image, 2 * i, axis=1) for i in range(count)])


def same(one: object, other: object) -> bool:
    names = ("forward", "backward", "forward_occlusion", "backward_occlusion")
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in names)


def test_a_pair_is_estimated_once_and_comes_back_the_same(tmp_path: Path) -> None:
    counting = Counting()
    first = ring_flow(frames(3), CachedEstimator(counting, tmp_path / "flow"))
    again = ring_flow(frames(3), CachedEstimator(counting, tmp_path / "flow"))
    assert counting.pairs == 3
    assert same(first, again)
    plain = ring_flow(frames(3), DisEstimator())
    assert (first.forward - plain.forward).abs().max() < 0.01
    images = to_images(frames(3))
    masks = find_occlusion(images, images.roll(-1, dims=0), first.forward, first.backward)
    assert torch.equal(first.forward_occlusion, masks[0])
    assert torch.equal(first.backward_occlusion, masks[1])


def test_only_new_pairs_are_estimated(tmp_path: Path) -> None:
    counting = Counting()
    cached = CachedEstimator(counting, tmp_path)
    images = to_images(frames(4))
    cached.estimate(images[:1], images[1:2])
    cached.estimate(images[:3], images[1:])
    assert counting.pairs == 3


def test_other_frames_and_other_estimators_do_not_meet(tmp_path: Path) -> None:
    counting, other = Counting(), Counting()
    other.fingerprint = "other"
    ring_flow(frames(2), CachedEstimator(counting, tmp_path))
    ring_flow(frames(2, seed=1), CachedEstimator(counting, tmp_path))
    ring_flow(frames(2), CachedEstimator(other, tmp_path))
    assert counting.pairs == 4
    assert other.pairs == 2
    assert len(list(tmp_path.iterdir())) == 6


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda _: b"", lambda _: b"x" * 99],
                         ids=["cut", "empty", "text"])
def test_a_damaged_entry_is_estimated_again(
    damage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    counting = Counting()
    first = ring_flow(frames(2), CachedEstimator(counting, tmp_path))
    broken = min(tmp_path.iterdir())
    whole = broken.read_bytes()
    broken.write_bytes(damage(whole))
    again = ring_flow(frames(2), CachedEstimator(counting, tmp_path))
    assert counting.pairs == 3
    assert same(first, again)
    assert f"{broken} is damaged" in caplog.text
    assert broken.read_bytes() == whole


def test_the_cache_is_an_estimator_that_travels(tmp_path: Path) -> None:
    settings = FlowSettings(estimator="dis")
    cached: FlowEstimator = create_estimator(settings, cache=tmp_path / "flow")
    assert cached.fingerprint != create_estimator(settings).fingerprint
    images = pair(20, 24)
    expected = cached.estimate(images[:1], images[1:])
    found = pickle.loads(pickle.dumps(cached)).estimate(images[:1], images[1:])
    assert torch.equal(found[0], expected[0])
