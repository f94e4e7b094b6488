"""What the WebUI runs at every start, in its own environment, before extensions are loaded.

Installs what the WebUI lacks, usually PyAV alone, and says what it cannot: packages of the WebUI
that are absent or too old, and a synthesis program that cannot run here. Nothing heavy is imported,
and nothing that is there is replaced, but a PyAV that is too old.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import re
import subprocess
import sys
from types import ModuleType
from typing import NamedTuple

from fresco.errors import PropagationError
from fresco.propagation.program import find_program, run_self_test

Version = tuple[int, int]
OPENCV = tuple(f"opencv{contrib}-python{headless}"
               for contrib in ("", "-contrib") for headless in ("", "-headless"))


class Need(NamedTuple):
    """A package that FRESCO imports."""

    module: str
    requirement: str
    """The line of pyproject.toml."""
    names: tuple[str, ...] = ()
    """Distributions that bring the module, where its name is not that of the only one."""
    kind: str = "added"
    """added: installed where it is absent; ours: renewed as well; host: never installed."""

    def bound(self, sign: str) -> Version | None:
        """The lowest version (>=) or the first one that is too new (<)."""
        found = re.search(rf"{sign}([\d.]+)", self.requirement)
        return numbers(found[1]) if found else None

    def installed(self) -> Version | None:
        """The version that is there; None without the module. (0, 0) if nobody tells it."""
        if importlib.util.find_spec(self.module) is None:
            return None
        told = (version_of(name) for name in self.names or (self.module,))
        return numbers(next(filter(None, told), ""))


NEEDS = (
    Need("numpy", "numpy>=1.23", kind="host"),
    Need("torch", "torch>=2.0", kind="host"),
    Need("cv2", "opencv-python-headless>=4.8", OPENCV),
    Need("scipy", "scipy>=1.10"),
    Need("einops", "einops>=0.4.1"),
    Need("safetensors", "safetensors>=0.4.2"),
    Need("av", "av>=12.3,<20", kind="ours"),
)


def numbers(version: str) -> Version:
    """The first two numbers of a version; (0, 0) if it begins with none."""
    found = re.match(r"(\d+)(?:\.(\d+))?", version)
    return (int(found[1]), int(found[2] or 0)) if found else (0, 0)


def version_of(distribution: str) -> str:
    """Its version as installed; empty if it is not."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


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
    return launch if hasattr(launch, "run_pip") else None


def pip_install(requirements: list[str]) -> None:
    """Install packages, never by compiling them, and never with another numpy."""
    options = ["install", "--only-binary", ":all:"]
    numpy = version_of("numpy")
    words = [*requirements, *([f"numpy=={numpy}"] if numpy else [])]
    launch = webui()
    if launch:
        quoted = (f'"{word}"' for word in words)
        launch.run_pip(" ".join([*options, *quoted]), f"{', '.join(requirements)} for FRESCO")
    else:
        subprocess.run([sys.executable, "-m", "pip", *options, *words], check=True,
                       stdin=subprocess.DEVNULL)


def is_missing(need: Need) -> bool:
    """Whether a package must be installed; one line about a version that stays as it is."""
    version = need.installed()
    if version is None:
        return True
    lowest, below = need.bound(">="), need.bound("<")
    named = f"{need.module} {version[0]}.{version[1]}"
    if below and version >= below:
        say(f"{named} is newer than FRESCO was tested with ({need.requirement}); it stays. If "
            "videos cannot be read or written, install an older one.")
    elif lowest and (0, 0) < version < lowest:
        if need.kind == "ours":
            return True
        say(f"{named} is older than FRESCO needs ({need.requirement}). It stays, since the WebUI "
            "uses it too; without a newer one FRESCO may fail.")
    return False


def ensure_packages() -> bool:
    """Whether all packages are there; installs what may be installed."""
    missing = [need for need in NEEDS if is_missing(need)]
    absent = [need.requirement for need in missing if need.kind == "host"]
    wanted = [need.requirement for need in missing if need.kind != "host"]
    if absent:
        say(f"{', '.join(absent)}: not installed, and installing it is left to the WebUI, whose "
            "other packages depend on the build. FRESCO cannot run without it.")
        return False
    if not wanted:
        return True
    try:
        pip_install(wanted)
    except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
        named = " ".join(f'"{word}"' for word in wanted)
        say(f"{', '.join(wanted)} could not be installed, and FRESCO cannot run without. Activate "
            f"the WebUI's environment and run: python -m pip install {named}. The reason: {error}")
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
    return 0 if ensure_packages() else 1


if __name__ == "__main__":
    sys.exit(main())
