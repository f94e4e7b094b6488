"""The command line: `fresco translate | keyframes | propagate | compare | config | options | ui`.

Modules that load a model or read frames are imported when a command needs them, so --help is fast.
"""

from __future__ import annotations

import argparse
import difflib
import errno
import logging
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from fresco import __version__
from fresco.cli import commands
from fresco.cli.console import logging_to_stderr
from fresco.cli.flags import RESERVED, add_flags, flag_names, with_flags
from fresco.cli.ui import add_ui_arguments, ui
from fresco.errors import (
    Cancelled,
    FrescoError,
    HostError,
    PropagationError,
    SettingsError,
    VideoError,
    WeightsError,
    WorkspaceError,
)
from fresco.memory import is_out_of_memory
from fresco.settings import PRESETS
from fresco.writing import explain

EXIT_CODES: tuple[tuple[type[FrescoError], int], ...] = (
    (Cancelled, 130), (SettingsError, 2), (VideoError, 3), (HostError, 4), (WeightsError, 4),
    (PropagationError, 5), (WorkspaceError, 6),
)
"""Exit code of each error. 0 is success, 130 as of any program that Ctrl-C ended."""
UNFORESEEN = 1
"""Exit code of an unexpected error."""
INTERRUPTED = 130
"""Exit code after the second Ctrl-C."""
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES})


class _Parser(argparse.ArgumentParser):
    """A parser whose usage errors are like all others: one sentence, exit code 2."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"{message}; {self.prog} --help lists what there is.")


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = _Parser(
        prog="fresco", description="Video-to-video translation with Stable Diffusion and FRESCO.",
        epilog="Exit codes: 0 done, 1 unexpected error, 2 settings, 3 input, 4 model or weights, "
        "5 propagation, 6 workspace, 130 cancelled (the same command resumes).",
    )
    parser.add_argument("--version", action="version", version=f"fresco {__version__}")
    made = parser.add_subparsers(metavar="COMMAND", parser_class=_Parser)
    _add_translate(made)
    _add_keyframes(made)
    _add_propagate(made)
    _add_compare(made)
    _add_config(made)
    add_ui_arguments(_command(
        made, "ui", ui, "Open the video tab in a browser, without any WebUI.",
        usage="%(prog)s [--model FILE] [options]",
    ))
    _command(made, "options", commands.options, "Print all options as a Markdown table.")
    return parser


def _command(
    made: Any, name: str, run: Any, help: str, *, usage: str | None = None
) -> argparse.ArgumentParser:
    parser = made.add_parser(name, help=help, description=help, usage=usage)
    parser.set_defaults(run=run)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("-q", "--quiet", action="store_true", help="Warnings and errors only.")
    how.add_argument("-v", "--verbose", action="store_true",
                     help="Show more messages, and tracebacks of errors.")
    return parser


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("clip", nargs="?", metavar="CLIP", help="A video, or a folder of images.")
    parser.add_argument("--config", metavar="FILE", help="An official FRESCO YAML, a Rerender "
                        "JSON, a run file, or a result; presets and flags override it.")
    parser.add_argument("--workspace", metavar="DIR", help="Folder of the run's own "
                        "files, from which it resumes [default: beside the result].")


def _add_translate(made: Any) -> None:
    parser = _command(made, "translate", commands.translate, "Translate a video.",
                      usage="%(prog)s CLIP --model MODEL --prompt TEXT [options]")
    _add_common(parser)
    parser.add_argument("-o", "--output", metavar="PATH", help="The result: a video, or a folder "
                        "of images if the name has no suffix [default: CLIP_fresco.mp4, or the "
                        "codec's ending].")
    parser.add_argument("--preset", metavar="{" + ",".join(PRESETS) + "}", help="Named choice of "
                        "the parts of guidance: as published; with the fewest jumps; the fast "
                        "one; none.")
    parser.add_argument("--preview", metavar="N", help="Translate the first N keyframes only.")
    add_flags(parser, "translate")


def _add_keyframes(made: Any) -> None:
    parser = _command(made, "keyframes", commands.keyframes, "Show which frames become keyframes.",
                      usage="%(prog)s CLIP [options]")
    _add_common(parser)
    parser.add_argument("--json", action="store_true", help="Print JSON, which --keys reads.")
    parser.add_argument("-o", "--output", metavar="FILE", help="Also write the JSON to a file.")
    add_flags(parser, "keyframes")


def _add_propagate(made: Any) -> None:
    parser = _command(
        made, "propagate", commands.propagate,
        "Propagate external keyframes to all frames.",
        usage="%(prog)s CLIP --keys FOLDER [options]",
    )
    _add_common(parser)
    parser.add_argument("--keys", metavar="FOLDER", required=True, help="Images whose names "
                        "hold their frame numbers, counted from 0, such as 000012.png; for a "
                        "folder of images as CLIP, the numbers of its images.")
    parser.add_argument("-o", "--output", metavar="PATH", help="The result: a video, or a folder "
                        "of images if the name has no suffix [default: CLIP_fresco.mp4, or the "
                        "codec's ending].")
    add_flags(parser, "propagate")


def _add_compare(made: Any) -> None:
    parser = _command(made, "compare", commands.compare, "Write videos of one clip side by side.")
    parser.add_argument("source", metavar="SOURCE", help="The clip that was translated.")
    parser.add_argument("results", metavar="RESULT", nargs="+", help="Its translations, such as "
                        "the one frame by frame and the one by FRESCO.")
    parser.add_argument("-o", "--output", metavar="PATH",
                        help="The video [default: SOURCE_compared.mp4 beside the first result].")
    parser.add_argument("--first-frame", metavar="N", type=int, default=0, help="Frame of the "
                        "source that is the first one of the results [default 0].")


def _add_config(made: Any) -> None:
    parser = _command(
        made, "config", commands.config,
        "Show the settings in an official YAML, a Rerender JSON, a run file or a result.",
    )
    parser.add_argument("file", metavar="FILE", help="The file to read.")
    parser.add_argument("-o", "--output", metavar="RUNFILE", help="Also write them as a run file.")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; an error is one sentence on stderr."""
    words = list(sys.argv[1:] if argv is None else argv)
    level = logging.INFO
    if {"-q", "--quiet"} & set(words):
        level = logging.WARNING
    elif {"-v", "--verbose"} & set(words):
        level = logging.DEBUG
    with logging_to_stderr(level):
        try:
            arguments = _parsed(words)
            arguments.run(arguments)
        except KeyboardInterrupt:
            return _failed("Stopped at once. What is finished is kept; start the same command "
                           "again to go on.", INTERRUPTED)
        except Exception as error:  # errors that nothing else has caught
            return _explained(error, verbose=level == logging.DEBUG)
    return 0


def _parsed(words: list[str]) -> argparse.Namespace:
    parser = build_parser()
    if not words:
        parser.print_help(sys.stderr)
        raise SettingsError("No command is given; name one, such as translate.")
    arguments, unknown = parser.parse_known_args(words)
    if not hasattr(arguments, "run"):
        raise SettingsError("No command is given; name one, such as translate.")
    if unknown:
        raise SettingsError(_unknown(unknown[0], words[0]))
    return arguments


def _unknown(word: str, command: str) -> str:
    flags = [f"--{name}" for name in (*flag_names().values(), *RESERVED)]
    close = difflib.get_close_matches(word.split("=")[0], flags, 1)
    hint = f"did you mean {close[0]}?" if close else f"fresco {command} --help lists what there is."
    return f"{word!r} is not an argument of fresco {command}; {hint}"


def _explained(error: Exception, *, verbose: bool) -> int:
    if verbose:
        traceback.print_exception(error)
    if isinstance(error, FrescoError):
        code = next((code for kind, code in EXIT_CODES if isinstance(error, kind)), UNFORESEEN)
        return _failed(with_flags(str(error)), code)
    if isinstance(error, OSError) and error.errno in _FULL:
        return _failed(str(explain(error, Path(error.filename or "."))), 6)
    if is_out_of_memory(error):
        return _failed("The memory is used up. Lower --resolution, --batch-size or --workers; "
                       "what is finished is kept.", UNFORESEEN)
    kind = type(error).__name__
    return _failed(f"{kind}: {error}. This is a fault of fresco {__version__}: run the command "
                   "again with --verbose and report its last lines in the project's issues.",
                   UNFORESEEN)


def _failed(sentence: str, code: int) -> int:
    sys.stderr.write(f"fresco: {sentence}\n")
    return code
