"""One small model for all tests of hosts."""

from __future__ import annotations

from pathlib import Path

import pytest

from demo.ldm_layout import write_ldm_file
from fresco.hosts.diffusers.host import DiffusersHost
from tests.helpers.tiny_models import build_tiny_pipeline, tiny_host
from tests.helpers.tiny_xl import build_tiny_sd2, build_tiny_xl, write_original


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


@pytest.fixture(scope="session")
def xl_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers folder of SDXL's kind."""
    return build_tiny_xl(tmp_path_factory.mktemp("xl") / "model")


@pytest.fixture(scope="session")
def xl_file(xl_model: Path) -> Path:
    """The same as one file of the original layout, its tokenizer beside it."""
    return write_original(xl_model, xl_model.parent / "xl.safetensors")


@pytest.fixture(scope="session")
def xl_host(xl_model: Path) -> DiffusersHost:
    """The folder of SDXL's kind, loaded."""
    return tiny_host(xl_model)


@pytest.fixture(scope="session")
def sd2_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers folder of Stable Diffusion 2's kind."""
    return build_tiny_sd2(tmp_path_factory.mktemp("sd2") / "model")


@pytest.fixture(scope="session")
def sd2_file(sd2_model: Path) -> Path:
    """The same as one file of the original layout."""
    return write_original(sd2_model, sd2_model.parent / "sd2.safetensors")
