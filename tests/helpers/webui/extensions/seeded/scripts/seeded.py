"""Torch's own generator begins alike for every request, as in the double.

`__seed__` in a prompt becomes words that depend on the seed, as by scripts with wildcards.
"""

import torch
from modules import scripts


class Seeded(scripts.Script):
    """Runs in every request, before all that draws."""

    def title(self):
        return "Seeded"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def before_process(self, p, *args):
        torch.manual_seed(0)

    def process(self, p, *args):
        p.all_prompts = [
            text.replace("__seed__", f"number {seed}")
            for text, seed in zip(p.all_prompts, p.all_seeds, strict=False)
        ]
