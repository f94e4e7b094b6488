"""Build the synthesis program for every platform from the one source.

    python ebsynth/build.py                              all platforms, into ebsynth/bin
    python ebsynth/build.py --platform x86_64-linux --check
    python ebsynth/build.py --sanitize address           a test build for this machine

Release builds need the PyPI package `ziglang`, a C++ compiler for all platforms, in the version
below: it makes the same bytes on every machine.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ZIG_VERSION = "0.17.1"
"""Pinned in requirements/ as well; another version makes other bytes."""
HERE = Path(__file__).resolve().parent
RELEASES = HERE / "bin"
TEST_BUILDS = HERE.parent / "build" / "ebsynth"
SANITIZERS = ("address", "thread", "undefined")
CHECKSUM, INPUTS = "ebsynth.sha256", "sources.sha256"
"""Files beside a program: its own hash, and that of all it was built from."""
_COMMON = ("-std=c++17", "-ffp-contract=off", "-fno-math-errno", "-fwrapv", "-Wall", "-Wextra")
_RELEASE = (*_COMMON, "-Werror", "-O3", "-g0", "-s", f"-ffile-prefix-map={HERE}=ebsynth")
_TEST = (*_COMMON, "-O1", "-g", "-fno-omit-frame-pointer", "-pthread")


class BuildError(Exception):
    """The program could not be built; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Platform:
    """What the compiler must know of a platform.

    Files for one instruction set get no option of their own: inline functions of the standard
    library compiled with AVX2 could be the copies that the linker keeps for all. They mark their
    functions with `__attribute__((target))` instead.
    """

    target: str
    """The compiler's name of processor, system and C library; with the oldest macOS served."""
    program: str = "ebsynth"
    """File name; a signature on macOS contains it, so builds never use another."""
    options: tuple[str, ...] = ()
    """What only this platform needs."""


PLATFORMS = {
    "x86_64-linux": Platform("x86_64-linux-musl", options=("-static",)),
    "aarch64-linux": Platform("aarch64-linux-musl", options=("-static",)),
    "x86_64-windows": Platform("x86_64-windows-gnu", "ebsynth.exe", ("-static", "-lshell32")),
    "x86_64-macos": Platform("x86_64-macos.10.15"),
    "arm64-macos": Platform("aarch64-macos.11.0"),
}


def say(text: str) -> None:
    """One line for the person who waits."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def sources() -> list[str]:
    """The files to compile, relative to this folder, always in the same order."""
    found = sorted(path.relative_to(HERE).as_posix() for path in (HERE / "src").glob("*.cpp"))
    if not found:
        raise BuildError(f"There are no sources in {HERE / 'src'}; check the project out anew.")
    return found


def zig() -> list[str]:
    """Command of the pinned compiler."""
    remedy = f"Run: {sys.executable} -m pip install ziglang=={ZIG_VERSION}"
    try:
        version = importlib.metadata.version("ziglang")
    except importlib.metadata.PackageNotFoundError:
        raise BuildError(f"The package ziglang is not installed. {remedy}") from None
    if version != ZIG_VERSION:
        raise BuildError(f"ziglang is {version}, which makes other bytes. {remedy}")
    return [sys.executable, "-m", "ziglang", "c++"]


def compile_with(command: Sequence[str], program: Path) -> None:
    """Run a compiler on all sources."""
    words = [*command, "-isystem", "include", "-Isrc", *sources(), "-o", str(program)]
    done = subprocess.run(
        words, cwd=HERE, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, encoding="utf-8", errors="replace", check=False,
    )
    if done.returncode != 0:
        raise BuildError(f"{' '.join(words)}\n{done.stdout}\nexit code {done.returncode}")


def release_options(name: str) -> tuple[str, ...]:
    """What the compiler is told for a platform."""
    platform = PLATFORMS[name]
    return ("-target", platform.target, *_RELEASE, *platform.options)


def build_release(name: str, folder: Path) -> Path:
    """One platform's program in a folder, unsigned by time or place."""
    program = folder / PLATFORMS[name].program
    compile_with([*zig(), *release_options(name)], program)
    return program


def inputs_digest(name: str) -> str:
    """Hex sha256 of all that decides a program's bytes: compiler, options, sources, headers."""
    told = [ZIG_VERSION, *(word.replace(str(HERE), "") for word in release_options(name))]
    sha = hashlib.sha256("\n".join(told).encode())
    for path in sorted(path for part in ("include", "src") for path in (HERE / part).rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            sha.update(f"\n{path.relative_to(HERE).as_posix()} {len(data)}\n".encode() + data)
    return sha.hexdigest()


def digest(path: Path) -> str:
    """Hex sha256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def install(program: Path, folder: Path, inputs: str) -> str:
    """Put a fresh program and both checksums where they belong; its hash."""
    folder.mkdir(parents=True, exist_ok=True)
    value = digest(program)
    checksum, sources = program.with_name(CHECKSUM), program.with_name(INPUTS)
    checksum.write_bytes(f"{value}  {program.name}\n".encode())
    sources.write_bytes(f"{inputs}\n".encode())
    program.chmod(0o755)
    for path in (program, checksum, sources):
        path.replace(folder / path.name)
    return value


def recorded(name: str, folder: Path) -> str:
    """The hash that lies beside a platform's program, once the program has it too."""
    program = folder / PLATFORMS[name].program
    checksum = folder / CHECKSUM
    for path in (program, checksum):
        if not path.is_file():
            raise BuildError(f"{path} does not exist. {_remedy(name)}")
    words = checksum.read_text("utf-8").split()
    if words != [digest(program), program.name]:
        raise BuildError(f"{program} has not the hash of {checksum}. {_remedy(name)}")
    return words[0]


def _remedy(name: str) -> str:
    return f"Run: python ebsynth/build.py --platform {name}"


def release(name: str, output: Path, check: bool) -> None:
    """Build a platform's program, and keep it or compare it with the one there."""
    start = time.monotonic()
    say(f"{name}: compiling (seconds, or minutes the first time)")
    if not check:
        output.mkdir(parents=True, exist_ok=True)
    # The same disk, so that the finished program is moved in one step.
    with tempfile.TemporaryDirectory(prefix=".build-", dir=None if check else output) as folder:
        program = build_release(name, Path(folder))
        made = digest(program) if check else install(
            program, output / name, inputs_digest(name)
        )
    if check and made != recorded(name, output / name):
        raise BuildError(
            f"The sources of {name} give {made}, but {output / name} holds "
            f"{recorded(name, output / name)}. {_remedy(name)}"
        )
    say(f"{name}: {made}{', as recorded' if check else ''}, {time.monotonic() - start:.0f} s")


def sanitized(sanitizer: str, output: Path) -> Path:
    """A test build for this machine, with the system's compiler or else with zig."""
    system = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
    system = os.environ.get("CXX") or system
    if system is None and sanitizer == "address":
        raise BuildError(
            "zig has no address sanitizer, and no c++, g++ or clang++ was found. Install one, or "
            "name it in CXX."
        )
    folder = output / sanitizer
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / ("ebsynth.exe" if os.name == "nt" else "ebsynth")
    say(f"{sanitizer}: compiling with {system or 'zig'}")
    options = (f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all")
    compile_with([*([system] if system else zig()), *_TEST, *options], program)
    say(f"{sanitizer}: {program}")
    return program


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    words = argparse.ArgumentParser(prog="build.py", description=(__doc__ or "").splitlines()[0])
    words.add_argument(
        "--platform", action="append", choices=PLATFORMS, metavar="NAME",
        help=f"build this one only, more than once if wanted: {', '.join(PLATFORMS)}",
    )
    words.add_argument(
        "--check", action="store_true",
        help="write nothing; end with 1 if the sources give another program than the one there",
    )
    words.add_argument(
        "--sanitize", choices=SANITIZERS, metavar="NAME",
        help=f"test build for this machine instead: {', '.join(SANITIZERS)}",
    )
    words.add_argument(
        "--output", type=Path, metavar="FOLDER",
        help="folder of the results (default: ebsynth/bin, or build/ebsynth with --sanitize)",
    )
    return words


def failed(error: BuildError) -> int:
    """Say what went wrong; the exit code."""
    sys.stderr.write(f"ERROR: {error}\n")
    return 1


def main(words: Sequence[str] | None = None) -> int:
    """Build what the command line asks for; the exit code."""
    options = parser().parse_args(words)
    if options.sanitize and (options.check or options.platform):
        parser().error("--sanitize goes with neither --platform nor --check")
    try:
        if options.sanitize:
            sanitized(options.sanitize, (options.output or TEST_BUILDS).absolute())
            return 0
        zig()
    except BuildError as error:
        return failed(error)
    codes = []
    for name in options.platform or PLATFORMS:
        try:
            release(name, (options.output or RELEASES).absolute(), options.check)
        except BuildError as error:
            codes.append(failed(error))
    return max(codes, default=0)


if __name__ == "__main__":
    sys.exit(main())
