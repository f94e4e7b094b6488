"""What the WebUI runs at every start, in its own environment, before extensions are loaded.

Installs the one package that the WebUI lacks, PyAV, and says so when the synthesis program cannot
run here. Nothing heavy is imported, and nothing that is there is replaced by something older.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import re
import subprocess
import sys
from types import ModuleType

from fresco.errors import PropagationError
from fresco.propagation.program import find_program, run_self_test

PACKAGE = "av"
LOWEST = (12, 3)
BELOW = (20, 0)
REQUIREMENT = "av>=12.3,<20"
"""The bounds of pyproject.toml."""


def say(text: str) -> None:
    """One line in the WebUI's console, whatever letters it can show."""
    encoding = sys.stdout.encoding or "utf-8"
    line = " ".join(f"FRESCO: {text}".split())
    sys.stdout.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")


def webui() -> ModuleType | None:
    """The WebUI's own helpers, or None where there is no WebUI."""
    try:
        launch = importlib.import_module("launch")
    except ImportError:
        return None
    return launch if hasattr(launch, "run_pip") and hasattr(launch, "is_installed") else None


def installed_version(launch: ModuleType | None) -> tuple[int, int] | None:
    """PyAV's version, or None if it is not installed."""
    if launch:
        there = launch.is_installed(PACKAGE)
    else:
        there = importlib.util.find_spec(PACKAGE) is not None
    if not there:
        return None
    numbers = re.match(r"(\d+)(?:\.(\d+))?", importlib.metadata.version(PACKAGE))
    return (int(numbers[1]), int(numbers[2] or 0)) if numbers else (0, 0)


def pip_install(launch: ModuleType | None) -> None:
    """Install PyAV alone, never by compiling it."""
    options = ["--only-binary", PACKAGE, "--no-deps"]
    if launch:
        command = f'install {" ".join(options)} "{REQUIREMENT}"'
        launch.run_pip(command, f"{REQUIREMENT} for FRESCO")
    else:
        words = [sys.executable, "-m", "pip", "install", *options, REQUIREMENT]
        subprocess.run(words, check=True, stdin=subprocess.DEVNULL)


def ensure_package() -> bool:
    """Whether PyAV serves; installs it where it is missing or too old."""
    launch = webui()
    version = installed_version(launch)
    if version and version >= BELOW:
        say(f"PyAV {version[0]}.{version[1]} is newer than FRESCO was tested with ({REQUIREMENT}); "
            "it stays. If videos cannot be read or written, install an older one.")
        return True
    if version and version >= LOWEST:
        return True
    try:
        pip_install(launch)
    except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
        say(f"{REQUIREMENT} could not be installed, so no video can be read. Activate the WebUI's "
            f'environment and run: python -m pip install "{REQUIREMENT}". The reason: {error}')
        return False
    return True


def check_program() -> None:
    """Set the program's run bit and run its own test; one line if it does not work here."""
    try:
        reason = run_self_test(find_program())
    except PropagationError as error:
        reason = str(error)
    if reason:
        say(f"the synthesis program cannot run here, so the flow propagator will be used. {reason}")


def main() -> int:
    """Everything that is done at a start; the exit code."""
    check_program()
    return 0 if ensure_package() else 1


if __name__ == "__main__":
    sys.exit(main())
