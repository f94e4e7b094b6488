"""README and pages of docs/ say what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fresco import __version__
from fresco.cli.flags import flag_names
from tests.helpers.source import ROOT
from tools.write_options import PAGE, options_page

README = (ROOT / "README.md").read_text("utf-8")


PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md"),
                ROOT / "ebsynth" / "README.md"])


def test_page_of_options_is_made_from_the_settings() -> None:
    assert PAGE.read_text("utf-8") == options_page(), "run: python -m tools.write_options"


def test_readme_is_short() -> None:
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize("command", ["bash demo.sh", "bash test.sh"])
def test_both_commands_are_named_and_exist(command: str) -> None:
    assert command in README
    assert (ROOT / command.split()[1]).is_file()


def test_every_flag_named_in_the_text_exists() -> None:
    own = {"--config", "--help", "--preset", "--preview", "--quiet", "--verbose", "--version",
           "--workspace", "--output", "--json"}
    own |= set(re.findall(r'"(--[a-z-]+)"', (ROOT / "fresco" / "cli" / "ui.py").read_text("utf-8")))
    flags = {f"--{name}" for name in flag_names().values()}
    flags |= {f"--no-{name}" for name in flag_names().values()}
    for page in (README, (ROOT / "docs" / "command-line.md").read_text("utf-8")):
        commands = re.findall(r"`(?:fresco [^`]*|--[^`]*)`", page)
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", " ".join(commands)))
        assert named <= own | flags


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_and_heading_linked_exists(page: Path) -> None:
    for link in re.findall(r"\]\((?!http)([^)]+)\)", page.read_text("utf-8")):
        name, _, heading = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        if heading:
            lines = target.read_text("utf-8").splitlines()
            titles = [line.lstrip("#").strip().lower() for line in lines if line.startswith("#")]
            assert heading in [re.sub(r"[^\w -]", "", t).replace(" ", "-") for t in titles], link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_source_file_named_exists(page: Path) -> None:
    named = re.findall(r"`((?:fresco|tests|tools|demo|benchmarks|ebsynth|scripts)/[\w/.-]+)`",
                       page.read_text("utf-8"))
    assert not [name for name in named if not (ROOT / name.rstrip("/")).exists()]


def test_changelog_knows_this_version() -> None:
    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text("utf-8")
