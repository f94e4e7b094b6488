"""The program that patches are made by: a fake one here, the real one in its own tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from fresco.propagation.engine import PatchEngine
from fresco.propagation.program import OVERRIDE, require_program
from tests.helpers.fake_ebsynth import fake_program


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that paints by the position guide, in use for this test."""
    path = fake_program(tmp_path / "program")
    monkeypatch.setenv(OVERRIDE, str(path))
    return path


@pytest.fixture
def engine(fake: Path) -> PatchEngine:
    """Work by patches with the fake program."""
    program = require_program()
    return PatchEngine("balanced", program.fingerprint, program.version)
