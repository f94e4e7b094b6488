"""`modules.sd_samplers_cfg_denoiser`: one model call of a sampler, both conditionings."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tests.helpers.webui import prompt_parser, script_callbacks, sd_samplers_common, shared
from tests.helpers.webui.script_callbacks import AfterCFGCallbackParams, CFGDenoiserParams

Kinds = list[list[tuple[int, float]]]


class CFGDenoiser(nn.Module):
    """Classifier-free guidance around a denoiser; rows: conditional first."""

    def __init__(self, sampler: Any) -> None:
        super().__init__()
        self.sampler = sampler
        self.model_wrap: Any = None
        self.mask: Any = None
        self.nmask: Any = None
        self.init_latent: Any = None
        self.steps = self.total_steps = 0
        self.step = 0
        self.p: Any = None

    @property
    def inner_model(self) -> Any:
        """The denoiser below."""
        raise NotImplementedError

    def estimate(self, x: Tensor, output: Tensor, sigma: Tensor) -> Tensor:
        """x0 of an output."""
        return output

    def forward(self, x: Tensor, sigma: Tensor, uncond: Any, cond: Any, cond_scale: float,
                s_min_uncond: float, image_cond: Tensor) -> Tensor:
        """Called by samplers, once for every model call."""
        if shared.state.interrupted or shared.state.skipped:
            raise sd_samplers_common.InterruptedException
        kinds, text = prompt_parser.reconstruct_multicond_batch(cond, self.step)
        negative = prompt_parser.reconstruct_cond_batch(uncond, self.step)
        order = [place for place, parts in enumerate(kinds) for _ in parts]
        told = CFGDenoiserParams(
            torch.cat([x[order], x]), torch.cat([image_cond[order], image_cond]),
            torch.cat([sigma[order], sigma]), shared.state.sampling_step,
            shared.state.sampling_steps, text, negative, self,
        )
        script_callbacks.tell("cfg_denoiser", told)
        skipped = self._skips_uncond(sigma, s_min_uncond)
        if skipped:
            told.x, told.sigma = told.x[:-len(kinds)], told.sigma[:-len(kinds)]
        output = self._output(told, len(kinds), skipped=skipped)
        result = _combined(output, kinds, 1.0 if skipped else cond_scale)
        if self.mask is not None:
            result = result * self.nmask + self.init_latent * self.mask
        first = [parts[0][0] for parts in kinds]
        self.sampler.last_latent = self.estimate(told.x[first], output[first], sigma)
        after = AfterCFGCallbackParams(
            result, shared.state.sampling_step, shared.state.sampling_steps
        )
        script_callbacks.tell("cfg_after_cfg", after)
        self.step += 1
        return after.x

    def _skips_uncond(self, sigma: Tensor, s_min_uncond: float) -> bool:
        opts = shared.opts
        if opts.skip_early_cond and self.step / self.total_steps <= opts.skip_early_cond:
            return True
        turn = self.step % 2 or opts.s_min_uncond_all
        return bool(turn and s_min_uncond > 0 and sigma[0] < s_min_uncond)

    def _output(self, told: CFGDenoiserParams, frames: int, *, skipped: bool) -> Tensor:
        """All rows; uncond's, if skipped, are those of cond."""
        text, negative = told.text_cond, told.text_uncond
        both = shared.opts.batch_cond_uncond
        if skipped:
            output = self._called(told, text, 0, size=len(told.x) if both else frames)
            return torch.cat([output, output])
        if text.shape[1] == negative.shape[1]:
            rows = torch.cat([text, negative])
            return self._called(told, rows, 0, size=len(rows) if both else frames)
        size = 2 * frames if both else frames
        return torch.cat([
            self._called(told, text, 0, size=size),
            self._called(told, negative, len(text), size=len(negative)),
        ])

    def _called(self, told: CFGDenoiserParams, text: Tensor, start: int, *, size: int) -> Tensor:
        """Rows from `start` on, so many in a call."""
        outputs = []
        for first in range(0, len(text), size):
            part = text[first:first + size]
            rows = slice(start + first, start + first + len(part))
            condition = {"c_crossattn": [part], "c_concat": [told.image_cond[rows]]}
            outputs.append(self.inner_model(told.x[rows], told.sigma[rows], cond=condition))
        return torch.cat(outputs)


def _combined(output: Tensor, kinds: Kinds, scale: float) -> Tensor:
    negative = output[-len(kinds):]
    rows = []
    for place, parts in enumerate(kinds):
        row = negative[place].clone()
        for index, weight in parts:
            row += (output[index] - negative[place]) * (weight * scale)
        rows.append(row)
    return torch.stack(rows)
