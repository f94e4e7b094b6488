"""The double, started: its modules are importable while it runs, and no longer."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from PIL import Image

from tests.helpers.webui import (
    api,
    devices,
    errors,
    gradio_double,
    hypernetwork,
    images,
    img2img,
    launch_utils,
    model,
    paths,
    processing,
    prompt_parser,
    rng,
    script_callbacks,
    scripts,
    sd_models,
    sd_samplers,
    sd_samplers_cfg_denoiser,
    sd_samplers_common,
    sd_samplers_kdiffusion,
    sd_samplers_timesteps,
    shared,
    ui_components,
)
from tests.helpers.webui.client import REQUEST, Answer, script_arguments

with warnings.catch_warnings():
    # Starlette imports python-multipart by its old name; the WebUI has loaded it before a script.
    warnings.simplefilter("ignore", PendingDeprecationWarning)
    import fastapi  # noqa: F401

ROOT = Path(__file__).resolve().parents[3]
_OFFERED = (
    devices, errors, images, img2img, launch_utils, paths, processing, prompt_parser, rng,
    script_callbacks, scripts, sd_models, sd_samplers, sd_samplers_cfg_denoiser, sd_samplers_common,
    sd_samplers_kdiffusion, sd_samplers_timesteps, shared, ui_components,
)


class DoubleHost:
    """A WebUI with one extension, and with what tests look at inside."""

    def __init__(self, runner: scripts.ScriptRunner) -> None:
        self.runner = runner
        self.made: list[Any] = []
        """Processing objects of all requests."""
        self.comments = ""
        """Of the last request."""

    @property
    def model(self) -> model.LatentDiffusion:
        """The loaded one."""
        return shared.sd_model

    @property
    def unet(self) -> Any:
        """Of the loaded model."""
        return shared.sd_model.model.diffusion_model

    @property
    def state(self) -> shared.State:
        """Of the job."""
        return shared.state

    @property
    def swallowed(self) -> list[Exception]:
        """What went wrong in callbacks."""
        return errors.caught

    @property
    def script(self) -> Any:
        """The extension's own."""
        return self.runner.alwayson_scripts[0]

    def img2img(
        self, frames: Sequence[Image.Image], options: dict[str, Any] | Sequence[Any] | None = None,
        **payload: Any,
    ) -> Answer:
        """See `client.Host`; torch's own generator begins alike for every request."""
        torch.manual_seed(0)
        done = api.img2img(
            self.runner, self.made, init_images=list(frames),
            alwayson_scripts=script_arguments(options), **(REQUEST | payload),
        )
        self.comments = done.comments
        return Answer(
            tuple(done.images), tuple(done.infotexts), dict(done.extra_generation_params))

    def add(self, script: scripts.Script, *, first: bool = False) -> None:
        """Another extension."""
        self.runner.add(script)
        if first:
            listed = self.runner.alwayson_scripts
            listed.insert(0, listed.pop())


@contextmanager
def running(
    script: Path, folder: Path, loaded: model.LatentDiffusion | None = None,
    change: Callable[[dict[str, Any]], None] | None = None,
) -> Iterator[DoubleHost]:
    """Within: a WebUI runs that has loaded an extension's file.

    Args:
        change: changes which modules it has.
        loaded: its checkpoint, on the device where it works; None: the small model, on the CPU.
    """
    before = dict(sys.modules)
    own = {f"modules.{m.__name__.rpartition('.')[2]}": m for m in _OFFERED}
    package, nets = ModuleType("modules"), ModuleType("modules.hypernetworks")
    package.__path__, nets.__path__ = [], []
    own |= {"modules": package, "gradio": gradio_double, "modules.hypernetworks": nets,
            "modules.hypernetworks.hypernetwork": hypernetwork}
    shared.reset(loaded or model.small_model())
    shared.sd_model.rows.clear()
    paths.reset(str(folder))
    errors.caught.clear()
    processing.StableDiffusionProcessing.cached_c = [None, None]
    processing.StableDiffusionProcessing.cached_uc = [None, None]
    if change:
        change(own)
    sys.modules.update(own)
    try:
        yield DoubleHost(scripts.load(script))
    finally:
        script_callbacks.clear()
        _forget({name for name in sys.modules if name not in before and _met(name)})
        sys.modules.update({name: before[name] for name in own if name in before})


def _met(name: str) -> bool:
    """The double's modules, and the extension's that met them; `needs` reads FRESCO's source alone,
    which takes long."""
    return name.partition(".")[0] in ("modules", "gradio", "scripts") or (
        name.startswith(("fresco.webui.", "fresco.hosts.webui.")) and name != "fresco.webui.needs"
    )


def _forget(names: set[str]) -> None:
    """As if never imported: out of the table, and off their packages."""
    for name in sorted(names, reverse=True):
        module = sys.modules.pop(name)
        parent, _, own = name.rpartition(".")
        if module and getattr(sys.modules.get(parent), own, None) is module:
            delattr(sys.modules[parent], own)
