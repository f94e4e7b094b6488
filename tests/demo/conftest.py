"""The clip of the demo, which the model was not trained on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.clips import package_clip


@pytest.fixture(scope="session")
def demo_clip() -> Path:
    return package_clip("bigbuckbunny.mp4")
