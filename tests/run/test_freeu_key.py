"""What is stored of a run with FreeU is named by the version of FreeU; of other runs it is not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from fresco.guidance import freeu
from fresco.options import from_dict
from fresco.run import keyframes
from fresco.run.former import digest_former_keyframes


def keys_named(monkeypatch: pytest.MonkeyPatch, version: int, **guidance: float) -> str:
    settings = from_dict({"guidance": guidance})
    clip = SimpleNamespace(cache_key="clip")
    run: Any = SimpleNamespace(clip=clip, settings=settings, hints=())
    host: Any = SimpleNamespace(fingerprint="host")
    estimator: Any = SimpleNamespace(fingerprint="flow")
    monkeypatch.setattr(freeu, "VERSION", version)
    return keyframes.digest_keyframes(run, (), host, estimator)


@pytest.mark.parametrize("factor", ["freeu_b1", "freeu_b2", "freeu_s1", "freeu_s2"])
def test_keyframes_of_another_freeu_are_not_used_again(
    monkeypatch: pytest.MonkeyPatch, factor: str
) -> None:
    before, now = (keys_named(monkeypatch, version, **{factor: 1.2}) for version in (1, 2))
    assert before != now


@pytest.mark.parametrize("factor", ["freeu_b1", "freeu_b2", "freeu_s1", "freeu_s2"])
def test_keyframes_of_version_0_1_are_not_looked_for(factor: str) -> None:
    run: Any = SimpleNamespace(settings=from_dict({"guidance": {factor: 1.2}}))
    nothing: Any = None
    assert digest_former_keyframes(run, (), nothing, nothing) is None


def test_keyframes_without_freeu_are_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    before, now = (keys_named(monkeypatch, version, freeu_b1=1.0) for version in (1, 2))
    assert before == now
