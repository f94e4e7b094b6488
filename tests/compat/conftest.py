"""The samples of version 0.1, copied and at home in a folder of the test."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from fresco.flow.dis import DisEstimator
from fresco.propagation.program import Program
from tests.helpers.old_samples import SAMPLES, Samples, place_samples


@pytest.fixture
def samples(tmp_path: Path) -> Samples:
    """A copy that may be changed."""
    return place_samples(tmp_path / "samples")


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What the hashes depend on besides the samples, as it was when they were made."""
    facts = SimpleNamespace(**json.loads((SAMPLES / "facts.json").read_text("utf-8")))
    for name in ("fingerprint", "former_fingerprint"):  # with another OpenCV the flow is another
        monkeypatch.setattr(DisEstimator, name, facts.estimator)
    program = Program(Path("absent"), facts.program["version"], facts.program["fingerprint"])
    monkeypatch.setattr("fresco.propagation.engine.require_program", lambda: program)
    return facts
