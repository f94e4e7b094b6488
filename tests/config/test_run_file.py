"""Run files and files of settings; files that are broken or of no known kind."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from fresco import __version__
from fresco.config.run_file import RUN_FILE, load_config, run_file_of, write_run_file
from fresco.errors import SettingsError
from fresco.options import entries, from_dict, to_dict
from fresco.settings import FrescoSettings


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "old" / "a.mp4"
    path.parent.mkdir()
    path.write_bytes(b"clip")
    return path


def changed_settings() -> FrescoSettings:
    """Settings in which no option has its default value."""
    values: dict[str, dict[str, Any]] = {}
    for entry in entries():
        default, option = entry.default, entry.option
        if entry.type is bool:
            value: Any = not default
        elif option.choices:
            value = next(c for c in reversed(option.choices) if c != default or c == "flow")
        elif entry.type in (int, float):
            value = entry.type(default + (option.high - default) / 2 if option.high else 7)
        else:
            value = {str: "tän", tuple: ("a:0.5",), dict: {"3": "x"}}[entry.type]
        if entry.name == "control_units":
            value = ("canny model=tän weight=0.5",)
        values.setdefault(entry.group, {})[entry.name] = value
    values["output"]["last_frame"] = values["output"]["first_frame"] + 3
    return from_dict(values)


def test_a_run_file_gives_the_run_back(source: Path, tmp_path: Path) -> None:
    settings = changed_settings()
    assert settings != FrescoSettings()
    path = run_file_of(tmp_path / "b.mp4")
    write_run_file(path, settings, source=source, output=tmp_path / "b.mp4", host="tiny: m.ckpt")
    run = load_config(path)
    assert (run.settings, run.source, run.output) == (settings, source, tmp_path / "b.mp4")
    assert path.name == f"b.{RUN_FILE}"
    assert (run.report.defaulted, run.report.ignored) == ((), ())
    assert "host: the result was made by tiny: m.ckpt." in run.report.mapped
    assert json.loads(path.read_text())["version"] == __version__


def test_a_run_file_finds_its_clip_beside_it(source: Path, tmp_path: Path) -> None:
    old, new = source.parent, tmp_path / "new"
    path = old / "r.json"
    write_run_file(path, FrescoSettings(), source=source, output=old / "b.mp4", host="h")
    moved = old.rename(new)
    assert load_config(moved / "r.json").source == new / "a.mp4"
    (new / "a.mp4").unlink()
    run = load_config(moved / "r.json")
    assert run.source is None
    assert run.report.ignored[0].startswith("source (")


def test_groups_of_settings_alone_are_a_file_too(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(to_dict(FrescoSettings()) | {
        "sampling": {"prompt": "a cat", "key_prompts": {"3": "x", 5: "y"}}, "result": "b.mp4"}))
    run = load_config(path)
    assert run.output == tmp_path / "b.mp4"
    assert run.settings.sampling.prompt == "a cat"
    assert run.settings.sampling.key_prompts == {"3": "x", "5": "y"}


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"fresco_run": 2, "version": "9.9", "settings": {}}, "format 2.*version 9.9"),
        ({"fresco_run": 1, "settings": {"sampling": {"promt": ""}}}, "did you mean prompt"),
        ({"fresco_run": 1, "settings": {"samplin": {}}}, "did you mean sampling"),
        ({"fresco_run": 1, "settings": 3}, "settings is 3"),
        ({"fresco_run": 1, "settings": {"sampling": 3}}, "sampling is 3"),
        ({"fresco_run": 1, "source": 3, "settings": {}}, "source is 3"),
        ({"fresco_run": 1, "settings": {"sampling": {"key_prompts": {"x": "y"}}}}, "'x'"),
        ({"fresco_run": 1, "settings": {"sampling": {"lora": [1]}}}, "lora holds 1"),
        ({"a": 1, "b": 2}, "neither.*a, b"),
        ({}, "neither.*none"),
        ([1], "holds list"),
    ],
)
def test_wrong_run_files_are_refused(tmp_path: Path, content: object, named: str) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps(content))
    with pytest.raises(SettingsError, match=named) as caught:
        load_config(path)
    assert str(path) in str(caught.value)


# Broken files


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("a.json", b'{"input": "x",\n oops}', "broken JSON at line 2"),
        ("a.yaml", b"mininterv: 3\nprompt: 'open\n", "broken YAML at line"),
        ("a.yaml", b"mininterv: 3\n\tmaxinterv: 4\n", "broken YAML at line 2"),
        ("a.yaml", b"prompt: a: b\n", "broken YAML at line 1"),
        ("a.yaml", b"", "holds nothing"), ("a.yaml", b"- 1\n", "holds list"),
        ("a.yaml", b"seed: \x00\n", "broken YAML"), ("a.yaml", b"\xff\xfe\xff", "cannot be read"),
        ("a.yaml", b"seed: !!python/object/apply:os.getcwd []\n", "broken YAML at line 1"),
    ],
)
def test_broken_files_name_the_line(tmp_path: Path, name: str, content: bytes, named: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=named) as caught:
        load_config(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


REPEATED = "settings: {}\na0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "\n".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)
)
MERGED = "settings: {}\na0: &a0 {x: 1, y: 2}\n" + "\n".join(
    f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}" for i in range(1, 10)
)


@pytest.mark.parametrize(("content", "named"), [
    (REPEATED, "without aliases"), (MERGED, "without aliases"), ("a: &a [*a]", "holds itself"),
    ("a: &a {b: *a}", "holds itself"), ("a: " + "[" * 5000, "nested too deep"),
    ("a: " + "[" * 300 + "]" * 300, "nested too deep|neither"), ("a: " + "9" * 5000, "be read"),
    ("a: 2026-13-45", "be read"),
])
def test_small_files_without_end_are_refused(tmp_path: Path, content: str, named: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(content)
    begun = time.process_time()
    with pytest.raises(SettingsError, match=named):
        load_config(path)
    assert time.process_time() - begun < 5


def test_aliases_that_end_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("keyframes: {min_interval: &few 3, max_interval: *few}\n"
                    "base: &base {steps: 7}\nsampling:\n  <<: *base\n  prompt: a dog\n")
    settings = load_config(path).settings
    assert (settings.keyframes.min_interval, settings.keyframes.max_interval) == (3, 3)
    assert (settings.sampling.steps, settings.sampling.prompt) == (7, "a dog")


def test_what_is_too_large_to_be_a_configuration_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    with path.open("wb") as file:
        file.truncate(1 << 33)
    with pytest.raises(SettingsError, match="larger than"):
        load_config(path)


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="does not exist"):
        load_config(tmp_path / "no.yaml")
    with pytest.raises(SettingsError, match="cannot be read"):
        load_config(tmp_path)
