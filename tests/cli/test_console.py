"""Bars and log lines as a terminal and as a file see them."""

from __future__ import annotations

import contextlib
import io
import logging
import threading
from collections.abc import Iterator

import pytest

from fresco.cli.console import Bars, logging_to_stderr, stopping_on_ctrl_c
from fresco.progress import CancelToken, Progress


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@contextlib.contextmanager
def on_terminal() -> Iterator[Terminal]:
    """Within: stderr is a terminal."""
    with contextlib.redirect_stderr(Terminal()) as stream:
        yield stream


def run_stages(bars: Bars) -> None:
    progress = Progress(bars)
    with progress.stage("keyframes", 4) as outer:
        with progress.stage("batch 1", 15) as inner:
            inner.advance(15, "step 15")
        outer.advance(4)


def test_a_terminal_sees_bars_with_count_rate_and_time() -> None:
    with on_terminal() as terminal, Bars() as bars:
        run_stages(bars)
    text = terminal.getvalue()
    last = [part for part in text.split("\r") if part.startswith("keyframes: 100%")][-1]
    assert "4/4 [" in last
    assert "it/s]" in last or "s/it]" in last
    assert "batch 1:" in text
    assert "15/15" in text
    # Only the outer one stays when both are done.
    assert "batch 1" not in text.rstrip().split("\n")[-1].split("\r")[-1]


def test_an_unknown_total_still_counts() -> None:
    with on_terminal() as terminal, Bars() as bars, Progress(bars).stage("download") as stage:
        stage.advance(3)
    assert "download: 3it [" in terminal.getvalue()


def test_bars_of_a_failed_stage_are_closed() -> None:
    def fail() -> None:
        with Bars() as bars, Progress(bars).stage("scan", 2):
            raise ValueError

    with on_terminal() as terminal, pytest.raises(ValueError, match=r"^$"):
        fail()
    assert terminal.getvalue().endswith("\n")


def test_log_lines_leave_the_bars_in_one_piece() -> None:
    def run(bars: Bars) -> None:
        with Progress(bars).stage("scan", 2) as stage:
            stage.advance()
            logging.getLogger("fresco").info("flow: dis")
            stage.advance()

    with on_terminal() as terminal, logging_to_stderr(logging.INFO), Bars() as bars:
        run(bars)
    shown = [line.split("\r")[-1] for line in terminal.getvalue().split("\n")]
    assert "flow: dis" in shown


def test_a_file_sees_one_line_a_stage(capsys: pytest.CaptureFixture[str]) -> None:
    with Bars() as bars:
        run_stages(bars)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" in ")[0] for line in lines] == ["batch 1: 15 of 15", "keyframes: 4 of 4"]


def test_quiet_is_quiet() -> None:
    with on_terminal() as terminal, Bars(quiet=True) as bars:
        run_stages(bars)
    assert terminal.getvalue() == ""


def test_logging_is_left_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("fresco")
    before = (log.level, list(log.handlers))
    with logging_to_stderr(logging.WARNING):
        log.warning("seen")
        log.info("not seen")
    log.warning("not seen either")
    assert capsys.readouterr().err == "seen\n"
    assert (log.level, list(log.handlers)) == before


def test_a_thread_that_is_not_the_main_one_leaves_signals_alone() -> None:
    token, done = CancelToken(), threading.Event()

    def work() -> None:
        with stopping_on_ctrl_c(token):
            done.set()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done.is_set()
    assert not token.cancelled
