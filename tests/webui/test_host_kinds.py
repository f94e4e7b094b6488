"""A WebUI's kind is found by what lies in its folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.webui.host_kinds import (
    A1111,
    FORGE,
    NEO,
    REFORGE,
    HostKind,
    find_kind,
    read_version,
)


def lay_out(folder: Path, *names: str) -> Path:
    """A folder with these files (with a dot) and folders."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch() if "." in path.name else path.mkdir()
    return folder


BASE = ("launch.py", "modules")


@pytest.mark.parametrize(("names", "kind"), [
    ((), A1111),
    (("modules_forge", "ldm_patched"), REFORGE),
    (("modules_forge", "backend"), FORGE),
    (("modules_forge/packages", "backend"), NEO),
])
def test_a_kind_is_found_by_its_folders(
    tmp_path: Path, names: tuple[str, ...], kind: HostKind
) -> None:
    assert find_kind(lay_out(tmp_path, *BASE, *names)) is kind


@pytest.mark.parametrize("names", [(), ("launch.py",), ("modules",)])
def test_a_folder_without_a_webui_is_named(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=str(tmp_path)):
        find_kind(lay_out(tmp_path, *names))


def test_versions_are_read_where_each_kind_has_them(tmp_path: Path) -> None:
    forge = lay_out(tmp_path / "forge", "modules_forge/forge_version.py")
    (forge / "modules_forge" / "forge_version.py").write_text(
        "# of the fork\nversion = 'neo'\nrelease = \"2.26\"\n", "utf-8"
    )
    assert read_version(forge) == "neo 2.26"
    a1111 = lay_out(tmp_path / "a1111", "modules")
    (a1111 / "CHANGELOG.md").write_text("## 1.10.1\n\ntext\n\n## 1.10.0\n", "utf-8")
    assert read_version(a1111) == "1.10.1"
