"""What the WebUI runs at its start: fast, frugal, and never silent about what does not work."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import install
from fresco.errors import PropagationError
from tests.helpers.source import ROOT

HEAVY = {"torch", "diffusers", "transformers", "numpy", "cv2", "av", "scipy", "PIL", "gradio"}


class Launch(ModuleType):
    """The helper of the WebUI that installers call."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__("launch")
        self._error = error
        self.commands: list[str] = []

    def run_pip(self, command: str, desc: str | None = None) -> None:
        self.commands.append(command)
        if self._error:
            raise self._error


@pytest.fixture(autouse=True)
def _program(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that works, unless a test says otherwise."""
    monkeypatch.setattr(install, "find_program", lambda: Path("ebsynth"))
    monkeypatch.setattr(install, "run_self_test", lambda path: None)


THERE = {"numpy": "1.26.2", "torch": "2.1.2+cu121", "opencv-contrib-python": "4.8.0.74",
         "scipy": "1.11.4", "einops": "0.4.1", "safetensors": "0.4.2", "av": "14.1.0"}
"""Distributions of a WebUI."""


def use(
    monkeypatch: pytest.MonkeyPatch, launch: ModuleType | None, **changes: str | None
) -> None:
    """Let the installer find this helper and these versions; None takes a package away."""
    names = {need.module: need.names or (need.module,) for need in install.NEEDS}
    there = {name: version for name, version in (THERE | changes).items() if version}

    def version(name: str) -> str:
        if name not in there:
            raise importlib.metadata.PackageNotFoundError(name)
        return there[name]

    def find(module: str) -> object | None:
        return object() if any(name in there for name in names[module]) else None

    monkeypatch.setitem(sys.modules, "launch", launch)
    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(importlib.util, "find_spec", find)


def no_process(words: list[str], **_options: object) -> None:
    pytest.fail(f"{words} was run")


@pytest.mark.parametrize("version", ["12.3.0", "13", "14.1.0", "19.9.1"])
def test_nothing_is_done_when_satisfied(
    version: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    launch = Launch()
    use(monkeypatch, launch, av=version)
    monkeypatch.setattr(subprocess, "run", no_process)
    assert install.main() == 0
    assert launch.commands == []
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("version", [None, "10.0.0", "12.2.0", "9"])
def test_missing_or_old_pyav_takes_one_pip_call(
    version: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    launch = Launch()
    use(monkeypatch, launch, av=version)
    assert install.main() == 0
    assert launch.commands == ['install --only-binary :all: "av>=12.3,<20" "numpy==1.26.2"']
    assert capsys.readouterr().out == ""


def test_all_that_is_missing_comes_at_once_and_numpy_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    launch = Launch()
    gone = dict.fromkeys(THERE.keys() - {"numpy", "torch"})
    use(monkeypatch, launch, **gone)
    assert install.main() == 0
    (command,) = launch.commands
    assert command.split(" ", 3)[3] == (
        '"opencv-python-headless>=4.8" "scipy>=1.10" "einops>=0.4.1" "safetensors>=0.4.2" '
        '"av>=12.3,<20" "numpy==1.26.2"'
    )


@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_what_all_else_rests_on_is_left_to_the_webui(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    launch = Launch()
    use(monkeypatch, launch, **{name: None, "av": None})
    assert install.main() == 1
    assert launch.commands == []
    (line,) = capsys.readouterr().out.splitlines()
    assert re.search(rf"{name}>=[\d.]+: not installed, .* left to the WebUI", line)


@pytest.mark.parametrize(("name", "version", "words"), [
    ("scipy", "1.9.3", "scipy 1.9 is older than FRESCO needs (scipy>=1.10). It stays"),
    ("opencv-contrib-python", "4.7.0.72", "cv2 4.7 is older"), ("torch", "1.13.1", "torch 1.13 is"),
    ("av", "20", "av 20.0 is newer"), ("av", "20.0.1", "av 20.0 is newer"),
])
def test_another_version_stays_and_is_named(
    name: str, version: str, words: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    launch = Launch()
    use(monkeypatch, launch, **{name: version})
    assert install.main() == 0
    assert launch.commands == []
    (line,) = capsys.readouterr().out.splitlines()
    assert words in line


def test_failing_pip_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch, Launch(RuntimeError("no network\nat all")), av=None)
    assert install.main() == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert "could not be installed" in line
    assert "no network at all" in line


@pytest.mark.parametrize("launch", [None, ModuleType("launch")], ids=["absent", "foreign"])
def test_pip_itself_is_run_without_a_webui(
    launch: ModuleType | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []
    use(monkeypatch, launch, av="11.0.0")
    monkeypatch.setattr(subprocess, "run", lambda words, **_options: commands.append(words))
    assert install.main() == 0
    (words,) = commands
    assert words[:4] == [sys.executable, "-m", "pip", "install"]
    assert words[-2:] == ["av>=12.3,<20", "numpy==1.26.2"]


def test_program_that_cannot_run_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch, Launch())
    monkeypatch.setattr(install, "run_self_test", lambda path: "It was killed\nby a policy.")
    assert install.main() == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert "flow propagator will be used" in line
    assert "It was killed by a policy." in line


def test_missing_program_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent() -> Path:
        raise PropagationError("There is no synthesis program for riscv64-linux.")

    use(monkeypatch, Launch())
    monkeypatch.setattr(install, "find_program", absent)
    assert install.main() == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert "riscv64-linux" in line


def test_any_console_can_show_the_line() -> None:
    code = "import install; install.say('C:/\\u30d3\\u30c7\\u30aa is not there')"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=ROOT, check=True, capture_output=True,
        env={"PYTHONIOENCODING": "cp1252", "PYTHONDONTWRITEBYTECODE": "1"}, timeout=60,
    )
    assert done.stdout.split() == rb"FRESCO: C:/\u30d3\u30c7\u30aa is not there".split()


def test_nothing_heavy_is_imported() -> None:
    code = "import sys, install; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True,
        timeout=60,
    )
    assert not HEAVY & set(done.stdout.split())


def test_requirements_are_those_of_the_project() -> None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    listed = text.partition("\ndependencies = [")[2].partition("]")[0]
    needed = {need.requirement for need in install.NEEDS}
    assert set(re.findall(r'"(.+)"', listed)) == needed
    assert [(need.bound(">="), need.bound("<")) for need in install.NEEDS[-2:]] == [
        ((0, 4), None), ((12, 3), (20, 0)),
    ]


def test_the_modules_of_this_environment_are_found() -> None:
    assert all((need.installed() or (0, 0)) > (0, 0) for need in install.NEEDS)
