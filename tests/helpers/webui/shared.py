"""`modules.shared`: options, flags, the job's state, the loaded model."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from tests.helpers.webui import devices

CHECKPOINT = "tiny"
"""Name of the only checkpoint; also a part of the name of the real WebUI's."""
_DEFAULTS: dict[str, Any] = {
    "batch_cond_uncond": True, "pad_cond_uncond": False, "s_min_uncond": 0.0,
    "s_min_uncond_all": False, "skip_early_cond": 0.0, "img2img_color_correction": False,
    "img2img_background_color": "#ffffff", "overlay_inpaint": True, "eta_ddim": 0.0,
    "eta_ancestral": 1.0, "persistent_cond_cache": True, "outdir_img2img_samples": "",
    "return_grid": False, "return_mask": False, "sd_model_checkpoint": CHECKPOINT,
}

TOLD = {name: _DEFAULTS[name] for name in (
    "batch_cond_uncond", "pad_cond_uncond", "s_min_uncond", "skip_early_cond",
    "img2img_color_correction", "return_mask",
)}
"""Settings that tests change for a request."""


class OptionInfo:
    """An option of the settings page."""

    def __init__(self, default: Any = None, label: str = "", *args: Any, **kwargs: Any) -> None:
        self.default, self.label, self.section = default, label, kwargs.get("section")

    def info(self, text: str) -> OptionInfo:
        """A hint behind the label."""
        return self

    needs_restart = needs_reload_ui = info


class Options:
    """Values that were set, over defaults; a fresh installation has set none."""

    def __init__(self) -> None:
        labels = {name: OptionInfo(value) for name, value in _DEFAULTS.items()}
        self.__dict__.update(data={}, data_labels=labels)

    def __getattr__(self, name: str) -> Any:
        if name in self.data:
            return self.data[name]
        if name in self.data_labels:
            return self.data_labels[name].default
        raise AttributeError(name)

    def __setattr__(self, name: str, value: Any) -> None:
        self.data[name] = value

    def add_option(self, name: str, info: OptionInfo) -> None:
        """An extension's own."""
        self.data_labels[name] = info


class State:
    """What is being done, and whether the person wants it to stop."""

    def __init__(self) -> None:
        self.begin("")

    def begin(self, job: str = "") -> None:
        """A job begins."""
        self.skipped = self.interrupted = self.stopping_generation = False
        self.job, self.job_no, self.job_count = job, 0, -1
        self.sampling_step = self.sampling_steps = 0
        self.textinfo: str | None = None

    def end(self) -> None:
        """It is over."""
        self.job, self.job_count = "", 0

    def interrupt(self) -> None:
        """Stop everything."""
        self.interrupted = True

    def skip(self) -> None:
        """Stop this iteration."""
        self.skipped = True

    def nextjob(self) -> None:
        """An iteration is done."""
        self.job_no += 1
        self.sampling_step = 0


device = torch.device("cpu")
opts = Options()
cmd_opts = SimpleNamespace()
state = State()
sd_model: Any = None
sd_upscalers = [SimpleNamespace(name=name) for name in ("None", "Blocks")]
loaded_hypernetworks: list[Any] = []


def reset(model: Any) -> None:
    """As after a start with this model; the objects stay the same, others hold them."""
    global sd_model, device
    sd_model = model
    device = devices.device = model.alphas_cumprod.device
    devices.dtype_unet = devices.dtype_vae = model.model.diffusion_model.dtype
    loaded_hypernetworks.clear()
    opts.__dict__.update(Options().__dict__)
    state.begin("")
    cmd_opts.__dict__.clear()
    cmd_opts.__dict__.update(
        listen=False, share=False, ngrok=None, server_name=None, hide_ui_dir_config=False,
        gradio_allowed_path=[],
    )
