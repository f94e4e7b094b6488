"""tools/setup_venv.sh: it removes nothing that it did not make, and fails with one sentence."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.shared import ROOT

PYTHON = """#!/bin/sh
case "$*" in
*platform*) echo VERSION ;;
*exit*) exit REFUSED ;;
*_base_executable*) echo "$HOME_OF_VENV" ;;
"- "*) echo "stamp of $0" ;;
*version_info*) echo 3.11 ;;
"-m venv"*)
    MISSING
    mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && touch "$3/pyvenv.cfg" ;;
"-m pip"*) echo "WORDS" && exit 1 ;;
esac
"""
"""An interpreter that makes an environment in which nothing can be installed."""

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")


@pytest.mark.parametrize(("marker", "words"), [
    ("pyvenv.cfg", "did not make"), ("holiday.jpg", "no virtual environment"),
])
def test_a_folder_of_somebody_else_is_left_alone(
    tmp_path: Path, marker: str, words: str
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / marker).write_text("home = /usr")
    (mine / "notes.txt").write_text("kept")
    done = subprocess.run(
        ["bash", "-c", "set -euo pipefail; source tools/setup_venv.sh"], cwd=ROOT, text=True,
        env=os.environ | {"FRESCO_VENV": str(mine), "PYTHON": sys.executable},
        capture_output=True, timeout=60, check=False,
    )
    assert done.returncode == 1
    assert words in done.stderr
    assert sorted(path.name for path in mine.iterdir()) == sorted([marker, "notes.txt"])


def set_up(folder: Path, **environment: str) -> str:
    """What the script says on stderr where it must fail."""
    bash = shutil.which("bash") or ""
    done = subprocess.run(
        [bash, "-c", "set -euo pipefail; source tools/setup_venv.sh"], cwd=ROOT, text=True,
        env=os.environ | {"FRESCO_VENV": str(folder / "venv")} | environment,
        capture_output=True, timeout=60, check=False,
    )
    assert done.returncode == 1
    return done.stderr.strip()


def write_python(
    path: Path, version: str, *, refused: bool, words: str = "", missing: str = ":"
) -> Path:
    """Write an interpreter; `missing` is what it does first when it is asked for a venv."""
    text = PYTHON.replace("VERSION", version).replace("REFUSED", str(int(refused)))
    path.write_text(text.replace("WORDS", words).replace("MISSING", missing))
    path.chmod(0o755)
    return path


def test_a_python_of_another_version_is_named(tmp_path: Path) -> None:
    old = write_python(tmp_path / "python3", "3.9.18", refused=True)
    assert set_up(tmp_path, PYTHON=str(old)) == (
        f"ERROR: PYTHON is '{old}', a Python 3.9.18; this project needs Python 3.10 to 3.13."
    )
    assert "which does not run as a Python." in set_up(tmp_path, PYTHON=str(tmp_path / "none"))
    new = write_python(tmp_path / "python3", "3.14.0", refused=True)
    said = set_up(tmp_path, PYTHON="", PATH=str(new.parent))
    assert said.startswith("ERROR: No Python 3.10 to 3.13 was found (python3 is 3.14.0).")
    assert not (tmp_path / "venv").exists()


@pytest.mark.parametrize(("words", "cause"), [
    ("Failed to establish a new connection: [Errno -3] Temporary failure in name resolution",
     "the package index cannot be reached; check the network"),
    ("OSError: [Errno 28] No space left on device", "the disk is full"),
    ("ERROR: wheel is damaged", "it ended with: ERROR: wheel is damaged"),
])
def test_a_step_that_fails_says_why_in_one_sentence(
    tmp_path: Path, words: str, cause: str
) -> None:
    python = write_python(tmp_path / "python", "3.11.0", refused=False, words=words)
    said = set_up(tmp_path, PYTHON=str(python))
    assert said.startswith(f"ERROR: Step 2 of 4 failed: {cause}")
    assert said.endswith(f"The log is {tmp_path / 'venv' / 'setup.log'}.")
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("missing", [
    'echo "The virtual environment was not created successfully because ensurepip is not";'
    ' echo "available.  On Debian/Ubuntu systems, you need to install the python3-venv";'
    ' echo "package using the following command.";'
    ' mkdir -p "$3"; touch "$3/pyvenv.cfg"; exit 1',
    'echo "$0: No module named venv" >&2; exit 1',
], ids=["debian", "no module"])
def test_a_python_without_venv_names_the_package_to_install(tmp_path: Path, missing: str) -> None:
    python = write_python(tmp_path / "python", "3.11.2", refused=False, missing=missing)
    said = set_up(tmp_path, PYTHON=str(python))
    assert said == (
        "ERROR: Step 1 of 4 failed: Python's module venv is missing (Debian and Ubuntu: "
        f"apt install python3-venv). The log is {tmp_path / 'venv' / 'setup.log'}."
    )
    # A second start, after the package was installed, is not stopped by what is left.
    write_python(python, "3.11.2", refused=False, words="ERROR: wheel is damaged")
    assert "Step 2 of 4" in set_up(tmp_path, PYTHON=str(python))


def test_an_environment_keeps_its_python_unless_another_is_named(tmp_path: Path) -> None:
    made = write_python(tmp_path / "mine", "3.12.1", refused=False, words="made from mine")
    assert "made from mine" in set_up(tmp_path, PYTHON=str(made))
    other = tmp_path / "other"
    other.mkdir()
    for name in ("python3.11", "python3"):
        write_python(other / name, "3.11.0", refused=False, words="made from another")
    known = {"PATH": f"{other}{os.pathsep}{os.environ['PATH']}", "HOME_OF_VENV": str(made)}
    assert "made from mine" in set_up(tmp_path, PYTHON="", **known)
    assert "made from another" in set_up(tmp_path, PYTHON=str(other / "python3"), **known)
    made.unlink()  # the Python was removed since
    assert "made from another" in set_up(tmp_path, PYTHON="", **known)
