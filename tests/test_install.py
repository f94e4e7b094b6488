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
    """The two helpers of the WebUI that installers call."""

    def __init__(self, installed: bool, error: Exception | None = None) -> None:
        super().__init__("launch")
        self._installed = installed
        self._error = error
        self.asked: list[str] = []
        self.commands: list[str] = []

    def is_installed(self, package: str) -> bool:
        self.asked.append(package)
        return self._installed

    def run_pip(self, command: str, desc: str | None = None) -> None:
        self.commands.append(command)
        if self._error:
            raise self._error


@pytest.fixture(autouse=True)
def _program(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that works, unless a test says otherwise."""
    monkeypatch.setattr(install, "find_program", lambda: Path("ebsynth"))
    monkeypatch.setattr(install, "run_self_test", lambda path: None)


def use(
    monkeypatch: pytest.MonkeyPatch, launch: ModuleType | None, version: str = "14.1.0"
) -> None:
    """Let the installer find these helpers, and this version of PyAV."""
    monkeypatch.setitem(sys.modules, "launch", launch)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)


def no_process(words: list[str], **_options: object) -> None:
    pytest.fail(f"{words} was run")


@pytest.mark.parametrize("version", ["12.3.0", "13", "14.1.0", "19.9.1"])
def test_nothing_is_done_when_satisfied(
    version: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    launch = Launch(installed=True)
    use(monkeypatch, launch, version)
    monkeypatch.setattr(subprocess, "run", no_process)
    assert install.main() == 0
    assert launch.asked == ["av"]
    assert launch.commands == []
    assert capsys.readouterr() == ("", "")


def test_missing_package_takes_one_pip_call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    launch = Launch(installed=False)
    use(monkeypatch, launch)
    assert install.main() == 0
    assert launch.commands == ['install --only-binary av --no-deps "av>=12.3,<20"']
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("version", ["10.0.0", "12.2.0", "9"])
def test_old_package_is_renewed(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    launch = Launch(installed=True)
    use(monkeypatch, launch, version)
    assert install.main() == 0
    assert len(launch.commands) == 1


@pytest.mark.parametrize("version", ["20", "20.0.1"])
def test_newer_package_stays_and_is_named(
    version: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    launch = Launch(installed=True)
    use(monkeypatch, launch, version)
    assert install.main() == 0
    assert launch.commands == []
    assert "PyAV 20.0 is newer" in capsys.readouterr().out


def test_failing_pip_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch, Launch(installed=False, error=RuntimeError("no network\nat all")))
    assert install.main() == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert "could not be installed" in line
    assert "no network at all" in line


@pytest.mark.parametrize("launch", [None, ModuleType("launch")], ids=["absent", "foreign"])
def test_pip_itself_is_run_without_a_webui(
    launch: ModuleType | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []
    use(monkeypatch, launch, "11.0.0")
    monkeypatch.setattr(subprocess, "run", lambda words, **_options: commands.append(words))
    assert install.main() == 0
    (words,) = commands
    assert words[:4] == [sys.executable, "-m", "pip", "install"]
    assert words[-1] == install.REQUIREMENT


def test_program_that_cannot_run_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch, Launch(installed=True))
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

    use(monkeypatch, Launch(installed=True))
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


def test_bounds_are_those_of_the_project() -> None:
    assert f'"{install.REQUIREMENT}"' in (ROOT / "pyproject.toml").read_text("utf-8")
    bounds = re.findall(r"\d+(?:\.\d+)?", install.REQUIREMENT)
    assert bounds == [".".join(map(str, install.LOWEST)), str(install.BELOW[0])]
