"""Where the synthesis program is looked for, and what is said when it cannot run."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from fresco.errors import PropagationError
from fresco.propagation import program
from fresco.propagation.program import (
    OVERRIDE,
    find_program,
    platform_name,
    require_program,
    run_self_test,
)
from tests.helpers.fake_ebsynth import fake_program, starts


@pytest.mark.parametrize(
    ("system", "machine", "name"),
    [("Linux", "x86_64", "x86_64-linux"), ("Linux", "aarch64", "aarch64-linux"),
     ("Windows", "AMD64", "x86_64-windows"), ("Windows", "ARM64", "x86_64-windows"),
     ("Darwin", "x86_64", "x86_64-macos"), ("Darwin", "arm64", "arm64-macos"),
     ("FreeBSD", "riscv64", "riscv64-freebsd")],
)
def test_every_platform_has_its_folder(
    monkeypatch: pytest.MonkeyPatch, system: str, machine: str, name: str
) -> None:
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.delenv(OVERRIDE, raising=False)
    assert platform_name() == name
    if name not in ("x86_64-linux", "riscv64-freebsd"):
        suffix = ".exe" if system == "Windows" else ""
        assert program._locate_bundled().parts[-4:] == ("ebsynth", "bin", name, f"ebsynth{suffix}")
    if system == "FreeBSD":
        with pytest.raises(PropagationError, match="no synthesis program for riscv64-freebsd"):
            find_program()


def test_a_program_without_run_bit_gets_one(fake: Path) -> None:
    fake.chmod(0o644)
    assert find_program() == fake
    assert run_self_test(find_program()) is None


def test_a_variable_that_names_nothing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OVERRIDE, "/no/such program")
    with pytest.raises(PropagationError, match="/no/such program, which FRESCO_EBSYNTH names"):
        find_program()


def test_what_a_program_says_of_itself(fake: Path) -> None:
    known = require_program()
    assert (known.path, known.version, len(known.fingerprint)) == (fake, "fake 1.0", 16)
    before = len(starts(fake))
    assert require_program() is known
    assert len(starts(fake)) == before


def test_reasons_why_a_program_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sick = fake_program(tmp_path / "sick", "sick")
    assert str(run_self_test(sick)).endswith(
        "failed its self-test (exit code 1): this machine lacks what it takes")
    other = tmp_path / "other"
    other.write_bytes(b"\x7fELF, but of another machine")
    other.chmod(0o755)
    assert "cannot be started: Exec format error" in str(run_self_test(other))
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    with monkeypatch.context() as hurry:
        hurry.setattr(program, "SELF_TEST_SECONDS", 0.3)
        assert "did not finish its self-test in 0.3 s" in str(run_self_test(slow))
    monkeypatch.setenv(OVERRIDE, str(sick))
    with pytest.raises(PropagationError, match="lacks what it takes"):
        require_program()
