"""The README says what is there."""

from __future__ import annotations

import re

import pytest

from fresco import __version__
from fresco.cli.flags import flag_names
from fresco.settings import PRESETS
from tests.helpers.source import ROOT
from tools.write_options import with_table

README = (ROOT / "README.md").read_text("utf-8")


def test_table_of_options_is_the_one_of_the_settings() -> None:
    assert with_table(README) == README, "run: python -m tools.write_options"


@pytest.mark.parametrize("command", ["bash demo.sh", "bash test.sh"])
def test_both_commands_are_named_and_exist(command: str) -> None:
    assert command in README
    assert (ROOT / command.split()[1]).is_file()


def test_every_flag_named_in_the_text_exists() -> None:
    own = {"--config", "--help", "--preset", "--preview", "--quiet", "--verbose", "--version",
           "--workspace", "--output", "--json", "--index-url"}
    flags = {f"--{name}" for name in flag_names().values()}
    flags |= {f"--no-{name}" for name in flag_names().values()}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", README))
    assert named <= own | flags


def test_every_preset_is_named() -> None:
    assert not [name for name in PRESETS if f"`{name}`" not in README]


def test_every_file_linked_exists() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert not [link for link in links if not (ROOT / link).exists()]


def test_changelog_knows_this_version() -> None:
    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text("utf-8")
