"""The benchmark for graphics cards, on a device that is not there: it must run the first time."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import pytest
import torch

from benchmarks import card
from benchmarks.operators import PARTS
from fresco.hosts.diffusers.host import ModelParts

SIZES = dataclasses.replace(card.TINY, frames=2, steps=2)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> ModelParts:
    return card.make_parts(tmp_path_factory.mktemp("tokenizer"), tiny=True)


@pytest.fixture(autouse=True)
def _few_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part alone is in test_guidance_on_device."""
    few = dataclasses.replace(PARTS["all"], optimization_iterations=1)
    monkeypatch.setattr(card, "PARTS", {"all": few})


def test_it_measures_all_there(
    parts: ModelParts, device: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # torch has no autocast for a device that is made in Python.
    monkeypatch.setattr(card, "measure_autocast", lambda bench, dtype: {})
    # Segments ask for flow in threads of their own, in which the pretended device is not.
    network = card.make_gmflow(tmp_path, torch.device("cpu"))
    propagate = card.measure_propagation
    monkeypatch.setattr(
        card, "measure_propagation", lambda bench, _, folder: propagate(bench, network, folder)
    )
    sent = card.send_parts(copy.deepcopy(parts), device, torch.float16)
    with torch.no_grad():
        found = card.run(sent, device, SIZES, tmp_path)
    calls = found["model call"]
    assert calls["all"]["operators"] > calls["plain"]["operators"] > 500
    assert found["optimisation against the CPU's, mean difference"]["1 iterations"] < 1e-3
    table = card.make_table(found)
    assert table.count("\n") == 1 + len(calls) + 4 + 2 + 2 + 2
    assert "| model call: all |" in table


def test_autocast_as_in_the_webuis(parts: ModelParts) -> None:
    bench = card.Bench.of(parts, torch.device("cpu"), SIZES)
    rows = card.measure_autocast(bench, torch.float32)
    assert [(row["mean_difference"] or 0) < 0.1 for row in rows.values()] == [True, True]


def test_without_a_card_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(card, "find_accelerator", lambda: None)
    for name in ("auto", "cpu"):
        with pytest.raises(SystemExit, match="--device cpu --tiny"):
            card.choose_device(name, tiny=False)
    assert card.choose_device("cpu", tiny=True).type == "cpu"
