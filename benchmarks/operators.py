"""Operators that one guided model call asks a device for: `python -m benchmarks.operators`.

Nothing is computed: Stable Diffusion 1.5's UNet runs on tensors that have a shape and no numbers.
"""

from __future__ import annotations

import collections
from typing import Any

from torch.utils import _python_dispatch

WITHOUT_WORK = frozenset({
    "_unsafe_view", "alias", "as_strided", "detach", "empty", "empty_like", "empty_strided",
    "expand", "new_empty", "new_empty_strided", "permute", "promote_types", "select", "slice",
    "split", "split_with_sizes", "squeeze", "t", "transpose", "unbind", "unsqueeze", "view",
})
"""Operators that look at memory in another way, or ask for memory."""


class CountOperators(_python_dispatch.TorchDispatchMode):
    """Within: counts the operators that give a device something to do."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: collections.Counter[str] = collections.Counter()

    @property
    def total(self) -> int:
        """All of them."""
        return self.counts.total()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.__name__.partition(".")[0]
        if name not in WITHOUT_WORK:
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))
