"""Jobs whose work does as a test tells it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fresco.server.jobs.engine import JobEngine
from tests.helpers.job_bench import Bench


@pytest.fixture
def bench() -> Bench:
    """Work that does as it is told."""
    return Bench()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Folder of jobs."""
    return tmp_path / "jobs"


@pytest.fixture
def engine(root: Path, bench: Bench) -> Iterator[JobEngine]:
    """Jobs under `root` that `bench` works on."""
    engine = JobEngine(root, bench)
    yield engine
    bench.gate.set()
    engine.close()
