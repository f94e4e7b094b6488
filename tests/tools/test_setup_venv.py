"""tools/setup_venv.sh: it removes nothing that it did not make."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.shared import ROOT

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
