"""The programs in the repository: whole, made from the sources beside them, and needing nothing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import shutil
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest

from tests.helpers.source import ROOT

BUILD = ROOT / "ebsynth" / "build.py"
RUN_SECONDS = 120
PT_DYNAMIC, PT_INTERP = 2, 3
LC_BUILD_VERSION, LC_VERSION_MIN_MACOSX, LC_CODE_SIGNATURE = 0x32, 0x24, 0x1D
X86_64, ARM64 = 0x01000007, 0x0100000C
"""Processors in the header of a macOS program."""


def load() -> ModuleType:
    """build.py, which lies in no package."""
    spec = importlib.util.spec_from_file_location("ebsynth_build", BUILD)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses ask for it
    spec.loader.exec_module(module)
    return module


build = load()


def program(name: str) -> Path:
    return build.RELEASES / name / build.PLATFORMS[name].program


def answer(
    words: list[str], environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, env=environment or {"PATH": ""}, stdin=subprocess.DEVNULL, capture_output=True,
        text=True, encoding="utf-8", check=False, timeout=RUN_SECONDS,
    )


def assert_works(words: list[str], environment: Mapping[str, str] | None = None) -> None:
    tested = answer([*words, "-selftest"], environment)
    assert tested.returncode == 0, tested.stderr + tested.stdout
    named = answer([*words, "-version"], environment)
    assert named.returncode == 0, named.stderr
    assert named.stdout.startswith("ebsynth")


@pytest.mark.parametrize("name", build.PLATFORMS)
def test_program_has_its_recorded_hash(name: str) -> None:
    assert build.recorded(name, build.RELEASES / name)


@pytest.mark.parametrize("name", build.PLATFORMS)
def test_program_names_no_folder_of_its_builder(name: str) -> None:
    data = program(name).read_bytes()
    found = [word for word in ("site-packages", "ziglang", str(ROOT), "/home/", "/root/", "/Users/")
             if word.encode() in data]
    assert not found


def test_no_other_program_lies_there() -> None:
    assert {path.name for path in build.RELEASES.iterdir()} == set(build.PLATFORMS)


@pytest.mark.parametrize("name", build.PLATFORMS)
def test_program_was_built_from_these_sources(name: str) -> None:
    """Who changes a source, an option or the compiler builds every program anew."""
    noted = (build.RELEASES / name / build.INPUTS).read_text("utf-8").split()
    assert noted == [build.inputs_digest(name)], f"run: python ebsynth/build.py --platform {name}"


def test_all_that_decides_the_bytes_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def noted(place: str, name: str = "x86_64-linux", **files: str) -> str:
        monkeypatch.setattr(build, "HERE", tmp_path / place)
        for file, text in ({"src/a.cpp": "1", "include/b/c.h": "2"} | files).items():
            path = tmp_path / place / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return build.inputs_digest(name)

    first = noted("first")
    assert noted("elsewhere") == first
    changes = [
        noted("source", **{"src/a.cpp": "3"}), noted("header", **{"include/b/c.h": "3"}),
        noted("one more", **{"src/d.cpp": ""}), noted("platform", "aarch64-linux"),
    ]
    monkeypatch.setattr(build, "_RELEASE", (*build._RELEASE, "-O2"))
    changes.append(noted("options"))
    monkeypatch.undo()
    monkeypatch.setattr(build, "ZIG_VERSION", "0.17.2")
    changes.append(noted("compiler"))
    assert len({first, *changes}) == 7


@pytest.mark.parametrize("name", ["x86_64-linux", "aarch64-linux"])
def test_linux_programs_need_no_library(name: str) -> None:
    data = program(name).read_bytes()
    assert data[:6] == b"\x7fELF\x02\x01"
    (table,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    kinds = {struct.unpack_from("<I", data, table + i * size)[0] for i in range(count)}
    assert not kinds & {PT_DYNAMIC, PT_INTERP}


def load_commands(data: bytes) -> dict[int, int]:
    """Where each load command of a macOS program begins, by its kind."""
    found = {}
    place = 32
    for _ in range(struct.unpack_from("<I", data, 16)[0]):
        kind, size = struct.unpack_from("<II", data, place)
        found[kind] = place
        place += size
    return found


@pytest.mark.parametrize(
    ("name", "processor", "oldest"),
    [("x86_64-macos", X86_64, (10, 15)), ("arm64-macos", ARM64, (11, 0))],
)
def test_macos_programs_serve_old_systems(
    name: str, processor: int, oldest: tuple[int, int]
) -> None:
    data = program(name).read_bytes()
    assert struct.unpack_from("<II", data) == (0xFEEDFACF, processor)
    commands = load_commands(data)
    if LC_BUILD_VERSION in commands:
        (version,) = struct.unpack_from("<I", data, commands[LC_BUILD_VERSION] + 12)
    else:
        (version,) = struct.unpack_from("<I", data, commands[LC_VERSION_MIN_MACOSX] + 8)
    assert (version >> 16, version >> 8 & 255) == oldest
    if processor == ARM64:  # the kernel kills unsigned programs there
        assert LC_CODE_SIGNATURE in commands


@pytest.mark.skipif(
    (platform.system(), platform.machine()) != ("Linux", "x86_64"),
    reason="only Linux on x86_64 runs this program",
)
def test_linux_program_runs_with_nothing_around_it() -> None:
    assert_works([str(program("x86_64-linux"))])


def test_arm_program_runs() -> None:
    words = [str(program("aarch64-linux"))]
    if (platform.system(), platform.machine()) != ("Linux", "aarch64"):
        emulator = shutil.which("qemu-aarch64-static")
        if not emulator:
            pytest.skip("needs qemu-aarch64-static, of the package qemu-user-static")
        words.insert(0, emulator)
    assert_works(words)


def wine() -> str | None:
    """Wine, which Debian's package wine64 alone puts where no PATH looks."""
    hidden = Path("/usr/lib/wine/wine64")
    return shutil.which("wine64") or shutil.which("wine") or (
        str(hidden) if hidden.is_file() else None
    )


def prepare_wine(folder: Path) -> dict[str, str]:
    """Variables for Wine with a folder of its own, in which no more than its libraries lie.

    A complete folder, which Wine makes where there is none, takes 700 MB and 10 s.
    """
    for libraries in Path("/usr/lib").glob("*/wine/x86_64-windows"):
        windows, drives = folder / "drive_c" / "windows", folder / "dosdevices"
        windows.mkdir(parents=True)
        drives.mkdir()
        (windows / "system32").symlink_to(libraries)
        (drives / "c:").symlink_to("../drive_c")
        (drives / "z:").symlink_to("/")
        return {"WINEDLLOVERRIDES": "wineboot.exe="}  # which would complete it
    return {}


def test_windows_program_runs(tmp_path: Path) -> None:
    words = [str(program("x86_64-windows"))]
    if platform.system() == "Windows":
        assert_works(words)
        return
    emulator = wine()
    if not emulator:
        pytest.skip("needs Wine, such as the package wine64")
    assert_works([emulator, *words], {
        "HOME": str(tmp_path), "WINEPREFIX": str(tmp_path / "wine"), "WINEDEBUG": "-all",
        "PATH": "/usr/bin:/bin", **prepare_wine(tmp_path / "wine"),
    })


def test_missing_compiler_is_named_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    assert build.main(["--check"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "ziglang is not installed" in line
    assert f"pip install ziglang=={build.ZIG_VERSION}" in line


def test_another_compiler_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.16.0")
    assert build.main(["--check"]) == 1
    assert "ziglang is 0.16.0, which makes other bytes" in capsys.readouterr().err


@pytest.mark.parametrize("lock", ["test.in", *(f"lock-py3.{n}.txt" for n in range(10, 14))])
def test_compiler_is_the_locked_one(lock: str) -> None:
    lines = (ROOT / "requirements" / lock).read_text("utf-8").splitlines()
    assert f"ziglang=={build.ZIG_VERSION}" in lines


def make(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the compiler make a file of this content."""

    def built(name: str, folder: Path) -> Path:
        path = folder / build.PLATFORMS[name].program
        path.write_bytes(content)
        return path

    monkeypatch.setattr(build, "build_release", built)


def test_release_is_installed_with_its_checksum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(b"program", monkeypatch)
    build.release("x86_64-windows", tmp_path, check=False)
    (folder,) = tmp_path.iterdir()
    assert sorted(path.name for path in folder.iterdir()) == [
        "ebsynth.exe", "ebsynth.sha256", "sources.sha256",
    ]
    value = build.digest(folder / "ebsynth.exe")
    assert (folder / "ebsynth.sha256").read_bytes() == f"{value}  ebsynth.exe\n".encode()
    inputs = build.inputs_digest("x86_64-windows")
    assert (folder / "sources.sha256").read_text("utf-8") == f"{inputs}\n"
    assert (folder / "ebsynth.exe").stat().st_mode & 0o777 == 0o755


def test_check_tells_changed_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--platform", "arm64-macos", "--output", str(tmp_path)]
    make(b"program", monkeypatch)
    assert build.main(words) == 0
    assert build.main([*words, "--check"]) == 0
    make(b"another", monkeypatch)
    capsys.readouterr()
    assert build.main([*words, "--check"]) == 1
    assert "Run: python ebsynth/build.py --platform arm64-macos" in capsys.readouterr().err
    assert (tmp_path / "arm64-macos" / "ebsynth").read_bytes() == b"program"


def test_check_tells_a_damaged_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--platform", "x86_64-linux", "--output", str(tmp_path)]
    make(b"program", monkeypatch)
    assert build.main(words) == 0
    (tmp_path / "x86_64-linux" / "ebsynth").write_bytes(b"damaged")
    assert build.main([*words, "--check"]) == 1
    assert "has not the hash" in capsys.readouterr().err


def test_address_sanitizer_needs_the_systems_compiler(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.delenv("CXX", raising=False)
    assert build.main(["--sanitize", "address"]) == 1
    assert "zig has no address sanitizer" in capsys.readouterr().err
