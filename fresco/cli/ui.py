"""The command `fresco ui`: serve the tab in a browser without a WebUI."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fresco.cli.flags import add_flags, given_flags
from fresco.errors import HostError, SettingsError
from fresco.options import from_dict
from fresco.server.ports import Limits
from fresco.settings import FrescoSettings

if TYPE_CHECKING:
    from fresco.ui.environment import Choices

DEMO_MODEL = Path(__file__).resolve().parents[2] / "demo" / "model" / "fresco-demo.safetensors"
"""The small model of this project, used if no model is named."""
LOGIN = "FRESCO_LOGIN"
"""Variable with users and passwords, which other users of the machine cannot read."""
WEBHOOKS = "FRESCO_WEBHOOKS"
"""Variable with addresses that jobs may tell of their end."""
_JOBS = "fresco-jobs"
_OPEN = "0.0.0.0"
_MOST = 1 << 20
_MOST_PORT = 65535
_USUAL = Limits()


def add_ui_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    models = parser.add_argument_group("models", "What the page offers.")
    models.add_argument("--model", action="append", default=[], metavar="FILE", help="Checkpoint: "
                        "a file, a diffusers folder, or a hub name [default: the demo's; may be "
                        "repeated].")
    models.add_argument("--models-dir", metavar="DIR", default="", help="Folder of checkpoints.")
    models.add_argument("--control-model", action="append", default=[], metavar="FILE",
                        help="ControlNet: a file, a diffusers folder, or a hub name [may be "
                        "repeated].")
    models.add_argument("--control-dir", metavar="DIR", default="", help="Folder of ControlNets.")
    page = parser.add_argument_group("page", "Its address, and who may open it.")
    page.add_argument("--host", metavar="ADDRESS", help="Address of this machine to serve it at "
                      "[default 127.0.0.1: only this machine can open it].")
    page.add_argument("--listen", action="store_true", help="Serve it to other machines: the same "
                      f"as --host {_OPEN}.")
    page.add_argument("--port", metavar="N", help="Its port [default: the first from 7860 that is "
                      "free].")
    page.add_argument("--login", metavar="USER:PASSWORD", help="Who may use page and API, several "
                      f"with commas between them; better given as the variable {LOGIN}.")
    page.add_argument("--origin", action="append", default=[], metavar="URL", help="Further "
                      "address of the page, such as that of a proxy [may be repeated].")
    page.add_argument("--allow", action="append", default=[], metavar="DIR", help="Folder whose "
                      "videos other machines may name [may be repeated].")
    page.add_argument("--no-browser", action="store_true", help="Do not open it in a browser.")
    jobs = parser.add_argument_group("jobs", "The folder and the limits of jobs.")
    jobs.add_argument("--jobs-dir", metavar="DIR", help="Folder of jobs and uploaded videos "
                      f"[default: ~/{_JOBS}].")
    for name, value, text in (
        ("upload-megabytes", _USUAL.upload_megabytes, "Largest video to upload"),
        ("most-frames", _USUAL.frames, "Most frames of a job; 0: any number"),
        ("most-resolution", _USUAL.resolution, "Largest short side of a job's frames"),
    ):
        jobs.add_argument(f"--{name}", metavar="N", default=str(value),
                          help=f"{text} [default {value}].")
    add_flags(parser, "ui")


def ui(arguments: argparse.Namespace) -> None:
    """Serve the page until Ctrl-C."""
    from fresco.ui.serve import Place, check_place, serve

    host, port = _find_host(arguments), arguments.port
    place = Place(
        host, None if port is None else _parse("port", port, _MOST_PORT),
        arguments.login or os.environ.get(LOGIN, ""), tuple(arguments.origin),
    )
    check_place(place)
    jobs = Path(arguments.jobs_dir or Path.home() / _JOBS).expanduser()

    def tell(address: str) -> None:
        sys.stdout.write(f"{address}\n")
        sys.stdout.flush()

    serve(place, jobs, _gather_choices(arguments, only_own=place.is_own), started=tell,
          browser=not arguments.no_browser)


def _gather_choices(arguments: argparse.Namespace, *, only_own: bool) -> Choices:
    try:
        from fresco.ui.environment import Choices
    except ImportError as error:
        raise HostError(
            f"{error.name or error} is not installed, and a translation needs it; install it by "
            'pip install -e ".[ui]".'
        ) from error
    settings = from_dict(given_flags(arguments), FrescoSettings())
    return Choices(
        _find_models(arguments.model, arguments.models_dir), arguments.models_dir,
        tuple(arguments.control_model), arguments.control_dir, settings.sampling, settings.flow,
        Limits(
            _parse("upload-megabytes", arguments.upload_megabytes),
            _parse("most-frames", arguments.most_frames),
            _parse("most-resolution", arguments.most_resolution),
            settings.propagation.workers, settings.propagation.cluster,
            webhooks=os.environ.get(WEBHOOKS, ""),
        ),
        tuple(Path(folder).expanduser() for folder in arguments.allow), only_own,
    )


def _find_models(named: Sequence[str], folder: str) -> tuple[str, ...]:
    if named or folder:
        return tuple(named)
    if not DEMO_MODEL.is_file():
        raise SettingsError("No model is named; give one by --model FILE.")
    return (str(DEMO_MODEL),)


def _find_host(arguments: argparse.Namespace) -> str:
    if arguments.listen and arguments.host not in (None, _OPEN):
        raise SettingsError(
            f"--listen means --host {_OPEN}, but --host is {arguments.host!r}; give one of them."
        )
    return _OPEN if arguments.listen else arguments.host or "127.0.0.1"


def _parse(name: str, text: str, most: int = _MOST) -> int:
    if not text.isdecimal() or int(text) > most:
        raise SettingsError(f"--{name} is {text!r}; give a whole number from 0 to {most}.")
    return int(text)
