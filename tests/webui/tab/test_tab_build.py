"""The tab's components as gradio builds them, in the program that serves the page."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from fresco.options import entries
from fresco.webui.tab.values import list_entries
from tests.helpers.source import ROOT

SAVED = {"Slider", "Radio", "Checkbox", "Textbox", "Number", "Dropdown"}
"""Kinds whose values the WebUI keeps as defaults, by their labels."""


@pytest.fixture(scope="module")
def built(address: str, folder: Path) -> list[list[dict[str, Any]]]:
    """The tab, built twice; it is served at `address`."""
    return json.loads((folder / "components.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def components(built: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return built[0]


def test_every_option_has_one_control(components: list[dict[str, Any]]) -> None:
    for entry in list_entries():
        identity = f"fresco_{entry.group}_{entry.name}"
        found = [each for each in components if each["id"] == identity]
        assert len(found) == 1, identity
        control, = found
        assert control["label"] == entry.label
        assert control["info"] == entry.option.help
        if entry.type is not dict:
            assert control["value"] == ("" if entry.type is tuple else entry.default)
        assert control["choices"] == [] or set(entry.option.choices) <= set(
            re.findall(r"[\w+-]+", " ".join(control["choices"]))
        )
    identities = {each["id"] for each in components}
    assert not {f"fresco_{e.group}_{e.name}" for e in entries() if e.option.instead} & identities


def test_labels_and_ids_are_unique_and_stable(built: list[list[dict[str, Any]]]) -> None:
    first, second = built
    for components in built:
        identities = [each["id"] for each in components if each["id"]]
        assert len(set(identities)) == len(identities)
        assert all(identity.startswith("fresco_") for identity in identities)
        shown = [each["label"] for each in components
                 if each["kind"] in SAVED and each["visible"] and each["label"]]
        assert len(set(shown)) == len(shown)
    names = [[(each["kind"], each["label"], each["id"]) for each in tab] for tab in built]
    assert names[0] == names[1], "the same again after a reload"
    assert len(first) == len(second)


def test_what_belongs_to_a_job_is_nobodys_default(components: list[dict[str, Any]]) -> None:
    names = {f"fresco_{entry.group}_{entry.name}" for entry in list_entries()
             if entry.option.one_clip}
    names |= {"fresco_path", "fresco_own_path", "fresco_host_model", "fresco_preset"}
    for each in components:
        if each["id"] in names or (each["kind"] == "Textbox" and not each["visible"]):
            assert each["unsaved"], each
    saved = {each["id"] for each in components if each["kind"] in SAVED and not each["unsaved"]}
    assert {"fresco_sampling_prompt", "fresco_keyframes_batch_size"} <= saved


def test_every_style_is_for_our_own_elements() -> None:
    style = re.sub(r"/\*.*?\*/", "", (ROOT / "style.css").read_text("utf-8"), flags=re.DOTALL)
    selectors = re.findall(r"(?:^|[{}])\s*([^{}@]+)\{", style)
    assert len(selectors) > 80
    for group in selectors:
        if re.fullmatch(r"(from|to|\d+%)", group.strip()):
            continue
        # A comma inside brackets parts no selectors.
        for selector in re.split(r",(?![^(]*\))", group):
            assert re.match(r"(\.dark )?[#.]fresco_", selector.strip()), selector


def test_the_page_has_one_global_object() -> None:
    found: list[str] = []
    scripts = [path.read_text("utf-8") for path in sorted((ROOT / "javascript").glob("*.js"))]
    for script in scripts:
        found += re.findall(r"^(?:var|let|const|function)\s+(\w+)", script, re.MULTILINE)
    assert found == ["fresco"]
    script = "".join(scripts)
    identities = re.findall(r"""\bid: ["'](\w+)["']|class: ["'`](\w+)""", script)
    assert all(name.startswith("fresco_") for pair in identities for name in pair if name)
