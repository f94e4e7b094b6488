"""Run files of version 0.1 are read as they were meant."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fresco.cli.main import main
from fresco.config.run_file import load_config, write_run_file
from fresco.hosts.diffusers.host import ModelParts, compute_former_fingerprint
from fresco.options import entries, to_dict
from fresco.settings import SamplingSettings
from tests.helpers.old_samples import Samples, holds
from tests.helpers.recorded_run import Calls

FILES = {
    "everything.fresco-run.json": "result.mp4",
    "finished/result.fresco-run.json": "finished/result.mp4",
    "propagated/result.fresco-run.json": "propagated/result.mp4",
}
"""Run file -> the result that it names."""
NEWER = {
    ("sampling", "lora_dir"), ("sampling", "embeddings_dir"), ("sampling", "prediction"),
    ("sampling", "timesteps"), ("output", "codec"), ("output", "compare_frames"),
    ("output", "name"), ("propagation", "resolution"), ("propagation", "guides"),
    ("propagation", "even_colours"), ("sampling", "ranges"), ("output", "background"),
    ("sampling", "control_units"), ("propagation", "join_keyframes"),
    ("flow", "path"), ("guidance", "consensus"),
    *(("mask", name) for name in ("source", "path", "invert", "feather")),
}
"""Options that version 0.1 did not have."""


def as_json(value: object) -> object:
    return json.loads(json.dumps(value))


@pytest.mark.parametrize("name", FILES)
def test_a_run_file_gives_its_settings_its_clip_and_its_result(
    samples: Samples, name: str
) -> None:
    stored = json.loads((samples.root / name).read_text("utf-8"))
    imported = load_config(samples.root / name)
    assert holds(as_json(to_dict(imported.settings)), stored["settings"])
    assert imported.source == samples.root / "clip.mp4"
    assert imported.output == samples.root / FILES[name]
    assert imported.report.ignored == ()
    assert [line.split()[0] for line in imported.report.defaulted] == [
        f"{entry.group}.{entry.name}" for entry in entries() if entry.place in NEWER
    ]


def test_the_file_of_everything_has_no_default(samples: Samples) -> None:
    """So that an option which arrives elsewhere, or not at all, is seen above."""
    settings = load_config(samples.root / "everything.fresco-run.json").settings
    for entry in (entry for entry in entries() if entry.place not in NEWER):
        assert getattr(getattr(settings, entry.group), entry.name) != entry.default


@pytest.mark.parametrize("name", FILES)
def test_a_run_file_written_now_says_the_same(samples: Samples, name: str) -> None:
    path = samples.root / name
    stored = json.loads(path.read_text("utf-8"))
    imported = load_config(path)
    assert imported.source
    assert imported.output
    write_run_file(path, imported.settings, source=imported.source, output=imported.output,
                   host=stored["host"])
    written = json.loads(path.read_text("utf-8"))
    assert holds({**written, "version": stored["version"]}, stored)


@pytest.mark.parametrize("command", ["translate", "propagate"])
def test_the_command_line_runs_it(
    samples: Samples, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = {"translate": "finished", "propagate": "propagated"}[command]
    words = ["--keys", str(samples.root / "keys")] if command == "propagate" else []
    run_file = samples.root / name / "result.fresco-run.json"
    calls = Calls().install(monkeypatch)
    assert main([command, "--config", str(run_file), *words, "--quiet"]) == 0
    assert calls.settings == load_config(run_file).settings
    paths = [argument for argument in calls.arguments if isinstance(argument, Path)]
    assert paths[0] == samples.root / "clip.mp4"
    assert samples.root / name / "result.mp4" in paths


def test_the_fingerprint_of_a_model_is_computed_as_before(recorded: SimpleNamespace) -> None:
    layer = torch.nn.Linear(3, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.arange(6.0).reshape(2, 3))
        layer.bias.copy_(torch.tensor([0.5, -0.5]))
    parts = ModelParts(layer, layer, layer, None, {"beta_start": 0.00085, "beta_end": 0.012})
    found = compute_former_fingerprint(parts, SamplingSettings(), torch.device("cpu"))
    assert found == recorded.small_parts
