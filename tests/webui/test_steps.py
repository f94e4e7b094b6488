"""The WebUI's samplers as stages of a run, and its errors as ours."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from fresco.errors import Cancelled, HostError, OutOfMemoryError
from fresco.progress import CancelToken, Progress, StageStatus
from tests.helpers.webui import sampling
from tests.helpers.webui.double import DoubleHost

SIGMAS = torch.tensor([5.0, 3.0, 2.0, 1.0, 0.0])
STEPS = 4


class _Model(nn.Module):
    """x0 is half of everything; counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        self.calls += 1
        return x / 2


class _Sampler:
    """What a WebUI's sampler is to a counter."""

    def __init__(self) -> None:
        self.model_wrap_cfg = _Model()
        self.heard: list[int] = []

    def callback_state(self, told: dict[str, Any]) -> None:
        self.heard.append(told["i"])


def _sample(function: Any, sampler: _Sampler, progress: Progress) -> None:
    from fresco.hosts.webui.steps import StepCounter

    sampling.noise.source = lambda: torch.zeros(1, 4, 2, 2)
    with progress.stage("batch") as stage:
        counter = StepCounter(stage, lambda: STEPS)
        with counter.counting(sampler):
            function(sampler.model_wrap_cfg, torch.ones(1, 4, 2, 2), SIGMAS,
                     callback=sampler.callback_state)


@pytest.mark.parametrize("name", [
    "sample_euler", "sample_euler_ancestral", "sample_heun", "sample_dpmpp_2m", "sample_lcm",
])
def test_every_sampler_is_counted_by_its_steps(double: DoubleHost, name: str) -> None:
    sampler, seen = _Sampler(), list[StageStatus]()
    _sample(getattr(sampling, name), sampler, Progress(seen.append))
    assert sampler.heard == list(range(STEPS))
    assert sampler.model_wrap_cfg.calls == (2 * STEPS - 1 if name == "sample_heun" else STEPS)
    done = [status.done for status in seen]
    assert sorted(set(done)) == list(range(STEPS + 1))
    assert done == sorted(done)
    assert {status.total for status in seen[1:]} == {STEPS}
    assert "callback_state" not in vars(sampler)


def test_a_sampler_that_counts_too_far_or_not_to_the_end_ends_at_its_total(
    double: DoubleHost,
) -> None:
    def tells(*numbers: int) -> Any:
        def function(model: _Model, x: Tensor, sigmas: Tensor, *, callback: Any) -> None:
            for number in numbers:
                model(x, sigmas[:1])
                callback({"i": number})
        return function

    for numbers in ((0, 1, 2), (0, 1, 2, 3, 4, 5), (0, 0, 1, 0, 3)):
        seen: list[StageStatus] = []
        _sample(tells(*numbers), _Sampler(), Progress(seen.append))
        assert max(status.done for status in seen) == seen[-1].done == STEPS


def test_a_stop_is_heard_at_the_next_call_of_the_model(double: DoubleHost) -> None:
    sampler, token = _Sampler(), CancelToken()

    def report(status: StageStatus) -> None:
        if status.total:
            token.cancel()

    with pytest.raises(Cancelled):
        _sample(sampling.sample_heun, sampler, Progress(report, token))
    assert sampler.model_wrap_cfg.calls == 1


@pytest.fixture
def webui_host(double: DoubleHost, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of the host of jobs; what it needs of a WebUI beyond the double is a blank."""
    for name in ("call_queue", "sd_vae"):
        module = ModuleType(f"modules.{name}")
        module.queue_lock = mock.MagicMock()  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setattr(sys.modules["modules"], name, module, raising=False)
    return importlib.import_module("fresco.hosts.webui.host")


@pytest.mark.parametrize("error", [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    RuntimeError("MPS backend out of memory (MPS allocated: 17 GB)"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
    MemoryError(),
], ids=["cuda", "mps", "cublas", "cpu", "python"])
def test_every_way_of_running_out_of_memory_shrinks_the_batch(
    webui_host: Any, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    freed: list[int] = []
    devices = SimpleNamespace(torch_gc=lambda: freed.append(1), NansException=ArithmeticError)
    monkeypatch.setattr(webui_host, "devices", devices)
    with pytest.raises(OutOfMemoryError, match="in the WebUI"), webui_host._own_errors():
        raise error
    assert freed
    with pytest.raises(RuntimeError, match="shapes"), webui_host._own_errors():
        raise RuntimeError("shapes")


def test_images_that_were_not_sampled_here_are_no_result(
    webui_host: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fork of Forge Neo asks a service for them in its model mode API."""
    image = Image.new("RGB", (8, 8))
    monkeypatch.setattr(
        webui_host.processing, "process_images", lambda p: SimpleNamespace(images=[image] * 3),
        raising=False,
    )
    bar = mock.Mock()
    monkeypatch.setattr(webui_host.shared, "total_tqdm", bar, raising=False)
    p = SimpleNamespace(init=len, sample=len, batch_size=3)
    request = SimpleNamespace(frames=np.zeros((3, 8, 8, 3), np.uint8))
    with Progress(lambda status: None).stage("batch") as stage:
        call = webui_host._BatchCall(p, request, object(), stage, None, 0)
        with pytest.raises(HostError, match="without sampling them itself"):
            call.run()
        unguided = webui_host._BatchCall(p, request, None, stage, None, 0)
        assert unguided.run().shape == (3, 8, 8, 3)
    assert bar.clear.call_count == 2, "the console's bar is closed after every call"
