"""Another extension, which only looks: what the WebUI does, iteration by iteration."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from tests.helpers.webui import script_callbacks, scripts


@dataclass
class Iteration:
    """What was seen of one."""

    prompts: list[str]
    negative_prompts: list[str]
    seeds: list[int]
    inputs: list[Tensor] = field(default_factory=list)
    """[N, 4, h, w] of every model call."""
    noise: Tensor | None = None
    """[N, 4, h, w] at the start."""
    samples: Tensor | None = None
    """[N, 4, h, w] at the end."""
    during: tuple[str, ...] = ()
    """Attributes of the processing object while it is sampled."""
    hooks: int = 0
    """Traces on the UNet while it is sampled."""


class Watcher(scripts.Script):
    """Listed behind the extension that is tested."""

    def __init__(self) -> None:
        self.iterations: list[Iteration] = []
        self.attributes: dict[str, tuple[Any, Traces]] = {}
        """Sampler and denoiser of the last iteration, and what they had before its sampling."""
        script_callbacks.on_cfg_denoiser(self._look)

    def title(self) -> str:
        """Its name."""
        return "Watcher"

    def show(self, is_img2img: bool) -> Any:
        """Always."""
        return scripts.AlwaysVisible

    def process_batch(self, p: Any, *args: Any, **kwargs: Any) -> None:
        """An iteration begins."""
        self.iterations.append(Iteration(
            list(p.prompts), list(p.negative_prompts), list(p.seeds)
        ))
        self.attributes = {
            "sampler": (p.sampler, own_attributes(p.sampler)),
            "denoiser": (p.sampler.model_wrap_cfg, own_attributes(p.sampler.model_wrap_cfg)),
        }

    def process_before_every_sampling(
        self, p: Any, *args: Any, noise: Tensor, **kwargs: Any
    ) -> None:
        """Its sampling begins."""
        now = self.iterations[-1]
        now.noise = noise.clone()
        now.during = tuple(vars(p))
        unet = p.sd_model.model.diffusion_model
        now.hooks = sum(len(m._forward_pre_hooks) + ("forward" in vars(m)) for m in unet.modules())

    def post_sample(self, p: Any, ps: Any, *args: Any, **kwargs: Any) -> None:
        """It has ended."""
        self.iterations[-1].samples = ps.samples.clone()

    def _look(self, told: Any) -> None:
        frames = len(told.text_uncond)
        self.iterations[-1].inputs.append(told.x[-frames:].clone())

    def left_behind(self) -> set[str]:
        """What the last iteration's sampler and denoiser have that they had not before."""
        return {
            f"{name}.{key}" for name, (owner, before) in self.attributes.items()
            for key, value in own_attributes(owner).items()
            if key not in before or before[key] != value
        }


Traces = dict[str, Any]
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")


def own_attributes(owner: Any) -> Traces:
    """Of one object: names of its attributes, with functions and numbers of hooks."""
    return {
        name: len(value) if name in _HOOKS else value if callable(value) else None
        for name, value in vars(owner).items()
    }


def traces(network: nn.Module) -> dict[str, Traces]:
    """Of every module of a network."""
    return {name: own_attributes(module) for name, module in network.named_modules()}
