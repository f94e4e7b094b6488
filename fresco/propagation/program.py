"""Find our synthesis program, and check that it runs on this machine."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

from fresco.digests import digest_content
from fresco.errors import PropagationError

OVERRIDE = "FRESCO_EBSYNTH"
"""Environment variable that names another program."""
SELF_TEST_SECONDS = 60.0
"""Time limit of a self-test, which usually takes a second."""
_SYSTEMS = {"Linux": "linux", "Windows": "windows", "Darwin": "macos"}
_MACHINES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
_BUILT = ("x86_64-linux", "aarch64-linux", "x86_64-windows", "x86_64-macos", "arm64-macos")


@dataclass(frozen=True, slots=True)
class Program:
    """A program that passed its self-test."""

    path: Path
    """The file."""
    version: str
    """The version that it reports."""
    fingerprint: str
    """Digest of its bytes, because another program may paint other images."""


def platform_name() -> str:
    """Name of the folder in `ebsynth/bin` with the program for this machine."""
    system = _SYSTEMS.get(platform.system(), platform.system().lower())
    machine = _MACHINES.get(platform.machine().lower(), platform.machine().lower())
    if (system, machine) == ("macos", "aarch64"):
        machine = "arm64"
    if (system, machine) == ("windows", "aarch64"):
        machine = "x86_64"  # Windows on ARM runs it by emulation
    return f"{machine}-{system}"


def find_program() -> Path:
    """Find the program for this machine and make it executable.

    Raises PropagationError with the reason if that is not possible.
    """
    given = os.environ.get(OVERRIDE)
    path = Path(given).expanduser() if given else _locate_bundled()
    if not path.is_file():
        raise PropagationError(
            f"{path}, which {OVERRIDE} names, does not exist; correct or unset the variable."
            if given else _explain_missing(path)
        )
    _make_runnable(path)
    return path.absolute()


def _locate_bundled() -> Path:
    name = "ebsynth.exe" if platform.system() == "Windows" else "ebsynth"
    return Path(__file__).resolve().parents[2] / "ebsynth" / "bin" / platform_name() / name


def _explain_missing(path: Path) -> str:
    if platform_name() not in _BUILT:
        return (
            f"There is no synthesis program for {platform_name()}; build one from ebsynth/src and "
            f"name it in {OVERRIDE}, or use the flow propagator."
        )
    return (
        f"{path} does not exist; fetch it again with the project, build it with "
        f"`python ebsynth/build.py`, or name another program in {OVERRIDE}."
    )


def _make_runnable(path: Path) -> None:
    """Make a file executable: archives and some ways of copying lose that permission."""
    if os.access(path, os.X_OK):
        return
    try:
        path.chmod(path.stat().st_mode | 0o111)
    except OSError as error:
        raise PropagationError(
            f"{path} may not be run, and its run bit cannot be set ({error.strerror}); run "
            f"chmod +x on it, or name a copy in {OVERRIDE}."
        ) from error


def creation_flags() -> int:
    """Flags for starting the program on Windows: no window, and a process group of its own.

    The group keeps Ctrl-C away from the program, as a session does on other systems. The process
    that started it decides when it ends.
    """
    if os.name == "nt":
        return subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP  # pyright: ignore
    return 0


def _ask(path: Path, option: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(path), option], stdin=subprocess.DEVNULL, capture_output=True, text=True,
        encoding="utf-8", errors="replace", timeout=SELF_TEST_SECONDS, check=False,
        creationflags=creation_flags(), start_new_session=True,
    )


def run_self_test(path: Path) -> str | None:
    """Run the program's self-test; None if it passed, otherwise why the program cannot be used."""
    try:
        done = _ask(path, "-selftest")
    except subprocess.TimeoutExpired:
        return f"{path} did not finish its self-test in {SELF_TEST_SECONDS:g} s."
    except OSError as error:
        return f"{path} cannot be started: {error.strerror or error}."
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        return f"{path} failed its self-test (exit code {done.returncode}): {said}"
    return None


@functools.lru_cache(maxsize=4)
def _test_once(path: Path, size: int, modified: int) -> Program:
    """Test a program once in this process; a file that has changed is tested again."""
    if reason := run_self_test(path):
        raise PropagationError(reason)
    words = _ask(path, "-version").stdout.split()
    return Program(path, " ".join(words) or "unnamed", digest_content(path)[:16])


def require_program() -> Program:
    """Find the program and run its self-test; PropagationError if it cannot be used."""
    path = find_program()
    status = path.stat()
    return _test_once(path, status.st_size, status.st_mtime_ns)
