"""One small model for all tests of hosts."""

from __future__ import annotations

from pathlib import Path

import pytest

from demo.ldm_layout import write_ldm_file
from fresco.hosts.diffusers.host import DiffusersHost
from tests.helpers.tiny_models import build_tiny_pipeline, tiny_host


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers folder."""
    return build_tiny_pipeline(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def tiny_file(tiny_model: Path) -> Path:
    """The same as one file of the original layout, its tokenizer beside it."""
    path = write_ldm_file(tiny_model, tiny_model.parent / "tiny.safetensors")
    (path.parent / "tokenizer").symlink_to(tiny_model / "tokenizer")
    return path


@pytest.fixture(scope="session")
def host(tiny_model: Path) -> DiffusersHost:
    """The folder, loaded."""
    return tiny_host(tiny_model)
