"""The command line: what people read, exit codes, stopping, and the program itself."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fresco import __version__
from fresco.cli.flags import options_table
from fresco.cli.main import EXIT_CODES, build_parser, main
from fresco.config.run_file import load_config
from fresco.errors import (
    Cancelled,
    FrescoError,
    HostError,
    OutOfMemoryError,
    PropagationError,
    SettingsError,
    VideoError,
    WeightsError,
    WorkspaceError,
)
from fresco.progress import Progress
from tests.helpers.clips import moving_texture, write_clip
from tests.helpers.recorded_run import Calls, fails

STARTUP_SECONDS = 2.0
"""Bound for `fresco --help` on a busy machine; 0.24 s was measured."""


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls().install(monkeypatch)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "my clip.mp4"
    path.write_bytes(b"clip")
    return path


def test_a_missing_model_command_or_clip_is_named(
    calls: Calls, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "--model is empty" in fails(capsys, 2, "translate", clip)
    assert "No clip is named" in fails(capsys, 2, "translate", "--model", "m")
    assert "no.mp4 does not exist" in fails(capsys, 3, "translate", "no.mp4", "--model", "m")
    assert "invalid choice: 'transalte'" in fails(capsys, 2, "transalte", clip)
    assert main([]) == 2
    assert "usage: fresco" in capsys.readouterr().err
    assert not calls.arguments


def test_a_missing_package_is_named_with_its_cure(
    clip: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_clip(clip, moving_texture(3, 16, 16))
    monkeypatch.setitem(sys.modules, "fresco.hosts.diffusers.load", None)
    assert main(["translate", str(clip), "--model", "m"]) == 4
    assert 'pip install -e ".[cli]"' in capsys.readouterr().err


# What people read


def test_config_shows_a_report_and_writes_a_run_file(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, run_file = tmp_path / "c.yaml", tmp_path / "run.json"
    path.write_text(f"file_path: {clip}\nmininterv: 3\nodd: 1\n")
    assert main(["config", str(path), "-o", str(run_file)]) == 0
    out, _ = capsys.readouterr()
    assert "mininterv: keyframes.min_interval is 3." in out
    assert "odd (1): unknown here." in out
    assert load_config(run_file).settings == load_config(path).settings
    assert load_config(run_file).source == clip
    clip.unlink()
    assert main(["config", str(path)]) == 0
    assert "no such file" in capsys.readouterr().out
    assert main(["config", str(path), "-o", str(run_file)]) == 3


def test_version() -> None:
    with pytest.raises(SystemExit) as caught:
        build_parser().parse_args(["--version"])
    assert caught.value.code == 0
    assert __version__


def test_notes_are_told_and_quiet_keeps_to_the_result(
    calls: Calls, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def act(progress: Progress) -> None:
        with progress.stage("scan", 3) as stage:
            stage.advance(3)

    calls.act = act
    assert main(["translate", str(clip), "--model", "m"]) == 0
    out, err = capsys.readouterr()
    assert out == f"{clip.with_name('my clip_fresco.mp4')}\n"
    assert "scan: 3 of 3 in " in err
    assert "Frame 7 was added." in err
    assert "run file: " in err
    assert main(["translate", str(clip), "--model", "m", "-q"]) == 0
    out, err = capsys.readouterr()
    assert out
    assert "scan" not in err


def test_a_random_seed_is_drawn_kept_until_the_end_and_told(
    calls: Calls, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stopped and started again, the same command has the same seed; then another."""
    words = ["translate", str(clip), "--model", "m", "--seed", "-1"]

    def stop(progress: Progress) -> None:
        raise Cancelled("Stopped.")

    calls.act = stop
    assert main(words) == 130
    first = calls.settings.sampling.seed
    assert 0 <= first < 2**32
    assert f"--seed is {first}, drawn at random" in capsys.readouterr().err
    calls.act = lambda progress: None
    assert main(words) == 0
    assert calls.settings.sampling.seed == first
    assert f"--seed is {first}, of the run that was stopped" in capsys.readouterr().err
    assert load_config(clip.with_name("my clip_fresco.fresco-run.json")).settings == calls.settings
    assert main(words) == 0
    assert calls.settings.sampling.seed != first


def test_a_controlnet_that_is_named_and_not_used_is_told(
    calls: Calls, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["translate", str(clip), "--model", "m", "--control-model", "canny"]
    told = "--control-model is 'canny', but --control is 'none': no ControlNet is used."
    assert main(words) == 0
    assert told in capsys.readouterr().err
    assert main([*words, "--control", "canny"]) == 0
    assert told not in capsys.readouterr().err


def test_propagate_and_compare_pass_their_paths_on(
    calls: Calls, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = tmp_path / "keys.d"
    space = str(tmp_path / "space")
    words = ["--keys", str(keys), "--workspace", space, "-o", str(tmp_path / "o.mp4")]
    assert main(["propagate", str(clip), *words, "--workers", "2"]) == 0
    assert calls.arguments[:3] == [clip, keys, tmp_path / "o.mp4"]
    assert calls.settings.propagation.workers == 2
    assert calls.options["workspace"] == Path(space)
    assert calls.options["device"]
    results = [tmp_path / "alone.mp4", tmp_path / "fresco.mp4"]
    for path in results:
        path.write_bytes(b"")
    assert main(["compare", str(clip), *map(str, results)]) == 0
    assert calls.arguments[:3] == [
        [clip, *results], ["source", "alone", "fresco"], tmp_path / "my clip_compared.mp4"]
    assert "one of the videos" in fails(capsys, 2, "compare", clip, results[0], "-o", results[0])
    assert "no.mp4 does not exist" in fails(capsys, 3, "compare", clip, "no.mp4")


# Errors and stopping


@pytest.mark.parametrize(
    ("error", "code"),
    [(SettingsError("x."), 2), (VideoError("x."), 3), (HostError("x."), 4), (WeightsError("x."), 4),
     (OutOfMemoryError("x."), 4), (PropagationError("x."), 5), (WorkspaceError("x."), 6),
     (Cancelled("x."), 130), (KeyboardInterrupt(), 130), (MemoryError(), 1), (KeyError("x."), 1),
     (OSError(28, "No space left on device", "a.png"), 6), (FrescoError("x."), 1)],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_every_error_is_one_sentence_with_its_code(
    error: BaseException, code: int, calls: Calls, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def act(progress: Progress) -> None:
        raise error

    calls.act = act
    words = ["translate", str(clip), "--model", "m"]
    text = fails(capsys, code, *words)
    assert text == "fresco: x.\n" or not isinstance(error, FrescoError)
    assert not clip.with_name("my clip_fresco.fresco-run.json").exists()
    assert main([*words, "-v"]) == code
    traced = "Traceback (most recent call last)" in capsys.readouterr().err
    assert traced == isinstance(error, Exception)


def test_unforeseen_errors_say_where_to_report(
    calls: Calls, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def act(progress: Progress) -> None:
        raise ZeroDivisionError("division by zero")

    calls.act = act
    text = fails(capsys, 1, "translate", clip, "--model", "m")
    assert "ZeroDivisionError: division by zero" in text
    assert "report" in text
    assert "--verbose" in text


def test_every_error_has_an_exit_code() -> None:
    def kinds(kind: type[FrescoError]) -> Iterator[type[FrescoError]]:
        for below in kind.__subclasses__():
            yield below
            yield from kinds(below)

    known = tuple(kind for kind, _ in EXIT_CODES)
    assert all(issubclass(kind, known) for kind in kinds(FrescoError)
               if kind.__module__ == "fresco.errors")


def test_ctrl_c_asks_once_and_leaves_signals_as_they_were(
    calls: Calls, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reached: list[str] = []

    def act(progress: Progress) -> None:
        with progress.stage("keyframes", 9) as stage:
            os.kill(os.getpid(), signal.SIGINT)
            reached.append("after the signal")
            stage.advance()
            reached.append("never")

    calls.act = act
    before = signal.getsignal(signal.SIGINT)
    assert main(["translate", str(clip), "--model", "m"]) == 130
    assert reached == ["after the signal"]
    err = capsys.readouterr().err
    assert "Ctrl-C again stops at once" in err
    assert "The run was cancelled" in err
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_ctrl_c_stops_at_once(
    calls: Calls, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reached: list[str] = []

    def act(progress: Progress) -> None:
        with contextlib.suppress(Cancelled):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            reached.append("never")

    calls.act = act
    assert main(["translate", str(clip), "--model", "m"]) == 130
    assert not reached
    assert "Stopped at once" in capsys.readouterr().err


# The program itself


def test_help_comes_at_once_without_the_heavy_packages() -> None:
    code = ("import sys, time; start = time.perf_counter(); from fresco.cli.main import main\n"
            "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
            "heavy = {'torch', 'numpy', 'cv2', 'diffusers', 'av', 'yaml', 'tqdm'}\n"
            "sys.stderr.write(f'{time.perf_counter() - start} {sorted(heavy & set(sys.modules))}')")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, heavy = done.stderr.split(" ", 1)
    assert heavy == "[]"
    assert float(seconds) < STARTUP_SECONDS
    assert "translate" in done.stdout


def test_it_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fresco", "translate", "no.mp4"], capture_output=True, text=True,
        check=False,
    )
    assert done.returncode == 3
    assert done.stderr == (
        "fresco: no.mp4 does not exist; give a video or a folder of images.\n")
    table = subprocess.run(
        [sys.executable, "-m", "fresco", "options"], capture_output=True, text=True, check=True)
    assert table.stdout == options_table()
