"""A model of a Forge kind in place of the WebUI's, with the same weights: guided alike."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from fresco.errors import HostError
from fresco.hosts import coding
from tests.helpers.webui.double import ROOT, DoubleHost, running
from tests.helpers.webui.forge_model import BYTES_A_PIXEL, ForgeEngine, Patcher
from tests.helpers.webui.http_host import given_folder
from tests.helpers.webui.requests import NONE, QUICK, frames, pixels
from tests.helpers.webui.watcher import traces

LEVELS = 2
"""Grey levels between hosts."""
ONE_LAYOUT = QUICK | {"batch_size": 4}
SMOOTHED = NONE | {"background_smoothing": True}


class Memory(ModuleType):
    """`backend.memory_management`: notes what is loaded."""

    def __init__(self) -> None:
        super().__init__("backend.memory_management")
        self.loaded: list[list[Any]] = []

    def load_models_gpu(self, models: list[Any], memory_required: int = 0) -> None:
        self.loaded.append(list(models))


@contextmanager
def running_forge(folder: Path, style: str = "forge") -> Iterator[DoubleHost]:
    """The double with a Forge kind's model."""
    if given_folder():
        pytest.skip("looks inside the double, and WEBUI_DIR names a real WebUI")
    engine: Any = ForgeEngine(style)
    with running(ROOT / "scripts" / "fresco.py", folder, engine) as host:
        before = traces(host.unet)
        yield host
        assert traces(host.unet) == before
        assert host.swallowed == []


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Memory:
    module = Memory()
    monkeypatch.setitem(sys.modules, "backend", ModuleType("backend"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


@pytest.fixture
def forge(tmp_path: Path, memory: Memory) -> Iterator[DoubleHost]:
    with running_forge(tmp_path) as host:
        yield host


def ask_both(folder: Path, style: str, options: dict[str, Any], **payload: Any) -> list[Any]:
    """Images of the WebUI and of a Forge kind."""
    with running(ROOT / "scripts" / "fresco.py", folder) as host:
        webui = pixels(host.img2img(frames(5), options, **payload))
    with running_forge(folder, style) as host:
        return [webui, pixels(host.img2img(frames(5), options, **payload))]


@pytest.mark.parametrize(("style", "sampler"), [
    ("forge", "Euler a"), ("reforge", "DPM++ 2M"), ("forge", "DDIM"),
])
def test_both_families_give_the_same_images(
    tmp_path: Path, memory: Memory, style: str, sampler: str
) -> None:
    """Five frames in two batches."""
    webui, forge = ask_both(tmp_path, style, ONE_LAYOUT, sampler_name=sampler)
    assert np.abs(webui - forge).max() <= LEVELS


def test_calls_without_negative_rows_give_the_same(tmp_path: Path, memory: Memory) -> None:
    webui, forge = ask_both(tmp_path, "forge", ONE_LAYOUT, s_min_uncond=100.0)
    assert np.abs(webui - forge).max() <= LEVELS


def test_smoothing_by_the_vae_leaves_generator_and_patcher_alone(
    forge: DoubleHost, memory: Memory
) -> None:
    """Its room is told before the sampling; the UNet is loaded again behind each use."""
    patcher = forge.model.forge_objects.unet
    seen: list[tuple[list[Any], int]] = []
    inner = forge.model.apply_model

    def watch(*args: Any) -> Any:
        seen.append((list(patcher.extra_model_patchers_during_sampling),
                     patcher.extra_preserved_memory_during_sampling))
        return inner(*args)

    forge.model.apply_model = watch
    without = pixels(forge.img2img(frames(4), NONE))
    assert not memory.loaded
    assert {len(models) for models, _ in seen} == {0}
    seen.clear()
    smoothed = pixels(forge.img2img(frames(4), SMOOTHED))
    assert np.abs(smoothed - without).max() > 0
    vae = forge.model.forge_objects.vae.patcher
    assert seen[0] == ([vae], BYTES_A_PIXEL * 8 * 8)
    assert memory.loaded
    assert all(models == [patcher, vae] for models in memory.loaded)
    assert patcher.extra_model_patchers_during_sampling == []
    assert patcher.extra_preserved_memory_during_sampling == 0


def test_the_vae_is_given_one_frame_of_512_at_most(
    forge: DoubleHost, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here a part is as large as one frame; behind all parts the UNet is loaded once."""
    from fresco.hosts.webui.open import open_model

    monkeypatch.setattr(coding, "PIXELS", 64 * 64)
    model, counts = open_model(forge.model), []
    decoder = forge.model.forge_objects.vae.first_stage_model.decoder
    handle = decoder.register_forward_pre_hook(lambda _, given: counts.append(len(given[0])))
    model.decode(torch.zeros(3, 4, 8, 8))
    handle.remove()
    assert counts == [1] * 3
    assert len(memory.loaded) == 1


def test_encoding_is_the_mean_and_draws_nothing(forge: DoubleHost, memory: Memory) -> None:
    from fresco.hosts.webui.open import open_model

    images = torch.rand(2, 3, 64, 64) * 2 - 1
    opened = open_model(forge.model)
    state = torch.get_rng_state()
    first, second = opened.encode(images), opened.encode(images)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, second)
    vae = forge.model.first_stage_model
    moments = vae.encoder(images)
    assert torch.equal(first, forge.model.scale_factor * moments[:, :4])


def test_noise_levels_are_those_of_the_moment(forge: DoubleHost) -> None:
    """A host changes them for a batch (zero terminal SNR)."""
    from fresco.hosts.webui.open import open_model

    predictor = forge.model.forge_objects.unet.model.predictor
    assert open_model(forge.model).sigmas == tuple(predictor.sigmas.double().tolist())
    predictor.sigmas = 2 * predictor.sigmas
    assert open_model(forge.model).sigmas == tuple(predictor.sigmas.double().tolist())


def test_a_compiled_model_is_called_as_it_was(forge: DoubleHost) -> None:
    around = forge.model.forge_objects.unet.model
    expected = pixels(forge.img2img(frames(4), QUICK))

    def compiled(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the compiled UNet was called")

    around._orig_apply_model = around.apply_model
    around.apply_model = compiled
    assert np.array_equal(pixels(forge.img2img(frames(4), QUICK)), expected)
    assert around.apply_model is compiled


def tomesd_m(q: Any, k: Any, v: Any, options: Any) -> Any:
    """Named as Forge names it."""
    return q, k, v


class Reference:
    """An extension's own attention."""

    def __call__(self, q: Any, k: Any, v: Any, options: Any) -> Any:
        return v


@pytest.mark.parametrize(("options", "sentence"), [
    ({"patches": {"attn1_patch": [tomesd_m]}}, r"token merging \(.*tomesd_m\)"),
    ({"patches_replace": {"attn1": {("output", 5, 0): Reference()}}},
     r"decoder are replaced by .*test_forge_model\.Reference, so FRESCO cannot guide them"),
])
def test_foreign_attention_is_refused_by_name(
    forge: DoubleHost, options: dict[str, Any], sentence: str
) -> None:
    """Scripts set patches right before the sampling."""
    patcher: Patcher = forge.model.forge_objects.unet
    patcher.model_options = {"transformer_options": options}
    with pytest.raises(Exception, match=sentence):
        forge.img2img(frames(4), QUICK)
    patcher.model_options = {
        "transformer_options": {"patches_replace": {"attn1": {("input", 4): Reference()}}}
    }
    assert len(forge.img2img(frames(4), QUICK).images) == 4


def test_a_full_card_is_told_in_one_sentence(forge: DoubleHost) -> None:
    def full(*args: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore")

    forge.model.apply_model = full
    with pytest.raises(Exception, match="Memory ran out with a batch of 4 frames") as caught:
        forge.img2img(frames(4), QUICK)
    assert "\n" not in str(caught.value)


def test_latents_have_the_channels_of_the_vae() -> None:
    from fresco.hosts.webui.model import find_latent_channels

    vae = SimpleNamespace(latent_channels=16)
    assert find_latent_channels(SimpleNamespace(forge_objects=SimpleNamespace(vae=vae))) == 16
    assert find_latent_channels(SimpleNamespace()) == 4


class TestLoading:
    """Forge and Neo load what their settings name, when it is first needed."""

    @pytest.fixture
    def host(self, forge: DoubleHost, monkeypatch: pytest.MonkeyPatch) -> Any:
        """Nothing is loaded yet; the page has chosen `first`."""
        shared, sd_models = sys.modules["modules.shared"], sys.modules["modules.sd_models"]
        engine, loads = forge.model, list[str]()

        def find(name: str) -> Any:
            known = SimpleNamespace(title=name, filename=f"/models/{name}")
            return known if name in ("first", "second") else None

        def set_config(values: dict[str, Any], **_: Any) -> None:
            shared.opts.data.update(values)

        def reload() -> Any:
            name = shared.opts.data["sd_model_checkpoint"]
            if name == "second" and host.broken:
                raise ValueError("truncated")
            if not loads or loads[-1] != name:
                loads.append(name)
            engine.sd_checkpoint_info = find(name)
            shared.sd_model = engine

        sysinfo = ModuleType("modules.sysinfo")
        sysinfo.set_config = set_config  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "modules.sysinfo", sysinfo)
        monkeypatch.setattr(sd_models, "forge_model_reload", reload, raising=False)
        monkeypatch.setattr(sd_models, "get_closet_checkpoint_match", find, raising=False)
        monkeypatch.setattr(shared, "sd_model", SimpleNamespace(first_stage_model=None))
        shared.opts.data["sd_model_checkpoint"] = "first"
        host = SimpleNamespace(loads=loads, shared=shared, engine=engine, broken=False)
        yield host
        shared.sd_model = engine

    def test_a_job_may_be_the_first_that_needs_a_model(self, host: Any) -> None:
        from fresco.hosts.webui.checkpoints import load_checkpoint

        assert load_checkpoint("second") is host.engine
        assert load_checkpoint("second") is host.engine
        assert host.loads == ["second"]
        assert host.shared.opts.data["sd_model_checkpoint"] == "first"

    def test_what_fails_leaves_the_choice_of_the_page(self, host: Any) -> None:
        from fresco.hosts.webui.checkpoints import load_checkpoint

        host.broken = True
        with pytest.raises(ValueError, match="truncated"):
            load_checkpoint("second")
        assert host.shared.opts.data["sd_model_checkpoint"] == "first"
        with pytest.raises(HostError, match="'third' no longer exists"):
            load_checkpoint("third")


def test_no_model_yet_is_said(forge: DoubleHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neo has a placeholder until the first generation."""
    from fresco.hosts.webui.open import open_model

    with pytest.raises(HostError, match="No Stable Diffusion model is loaded"):
        open_model(SimpleNamespace(first_stage_model=None, cond_stage_model=None))


