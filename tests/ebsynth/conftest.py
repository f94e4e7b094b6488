"""One small scene for all tests of the synthesis program."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.synthesis import Guide, blocks, command


@pytest.fixture
def small(tmp_path: Path) -> list[str]:
    """Words that name a style of 36 x 32 pixels and two guides to paint 40 x 34 with."""
    style = blocks(1, 32, 36)
    guides = [
        Guide(blocks(2, 32, 36), blocks(3, 34, 40)),
        Guide(blocks(4, 32, 36, 1), blocks(5, 34, 40, 1)),
    ]
    return command(tmp_path, style, guides)
