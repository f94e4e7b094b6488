"""A server of the API, for tests that need no other one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.api_server import ApiServer, make_environment, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """A server with a tiny model; its jobs run."""
    with serving(tmp_path_factory.mktemp("root"), make_environment(tmp_path_factory)) as running:
        yield running


@pytest.fixture(scope="module")
def video(server: ApiServer, clip: Path) -> str:
    """Id of the uploaded `clip` of the module."""
    return server.upload(clip)
