"""A real WebUI over HTTP: started from `WEBUI_DIR`, with a data folder of its own.

Any kind that `host_kinds.py` knows: A1111, Forge Neo, Forge, reForge. `WEBUI_PYTHON` names its
Python if that is not `WEBUI_DIR/venv`; `WEBUI_MODEL` one of the checkpoints of `checkpoints.py`.
"""

from __future__ import annotations

import base64
import functools
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.helpers.webui.checkpoints import write_checkpoint
from tests.helpers.webui.client import REQUEST, Answer, Refused, script_arguments
from tests.helpers.webui.environment import OFFLINE, ROOT, find_python
from tests.helpers.webui.host_kinds import A1111, ALL, HostKind, find_kind
from tests.helpers.webui.networks import LORA, NETWORK, write_control_network, write_lora
from tests.helpers.webui.shared import TOLD

START_SECONDS, ANSWER_SECONDS = 600, 1200
EXTENSIONS = Path(__file__).parent / "extensions"
FOR_TESTS = ("seeded", "reload_ui")
"""Those of them that every kind gets."""
FRESCO = "sd-webui-fresco"
"""Name of this extension's folder."""
ENDED = ("cancelled", "failed", "done")
"""States in which a job of FRESCO stays."""
DIED = "Exception in thread"
"""In the console of a start that stays without an end."""
SETTINGS = TOLD | {"show_progress_type": "Approx cheap", "CLIP_stop_at_last_layers": 1}
"""The WebUI gives a setting back after a request only if it was ever set.

SDXL's previews by a network would be downloaded first; Neo leaves out a layer of the text model.
"""


def given_folder() -> Path | None:
    """The WebUI that tests shall ask, if one is named."""
    named = os.environ.get("WEBUI_DIR")
    return Path(named) if named else None


def given_kind() -> HostKind | None:
    """Its kind."""
    folder = given_folder()
    return find_kind(folder) if folder else None


def given_model() -> str:
    """The checkpoint it shall have: `WEBUI_MODEL`, or its kind's usual one."""
    kind = given_kind()
    return os.environ.get("WEBUI_MODEL") or (kind.models[0] if kind else "")


def text_of(picture: Image.Image) -> str:
    """Base64 of a PNG."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


class HttpHost:
    """A WebUI that runs."""

    def __init__(
        self, port: int, log: Path, kind: HostKind, process: subprocess.Popen[bytes], seconds: float
    ) -> None:
        self.address, self.log, self.kind = f"http://127.0.0.1:{port}", log, kind
        self.started_in = seconds
        """Seconds from the command to the first answer."""
        self._process = process
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def ask(self, path: str, body: Any = None) -> Any:
        """JSON of a GET, or of a POST if there is something to send."""
        return json.loads(self.read(path, body))

    def read(self, path: str, body: Any = None) -> bytes:
        """As `ask`, whatever the answer is."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.address + path, data, {"Content-Type": "application/json"}
        )
        try:
            with self._opener.open(request, timeout=ANSWER_SECONDS) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            raise Refused(error.code, _find_reason(error.read())) from error

    @functools.cached_property
    def _settings(self) -> dict[str, Any]:
        """Those that this kind has; another one is an error to it."""
        return self.ask("/sdapi/v1/options")

    def change_settings(self, values: dict[str, Any]) -> None:
        """Of the settings that this kind has."""
        known = {name: value for name, value in values.items() if name in self._settings}
        self.ask("/sdapi/v1/options", known)

    def find_model(self, name: str) -> str:
        """The title of a checkpoint, by the name of its file without the suffix."""
        models = self.ask("/sdapi/v1/sd-models")
        found = [model["title"] for model in models if Path(model["filename"]).stem == name]
        assert found, f"{name} is not among {models}"
        return found[0]

    def finish_job(self, body: dict[str, Any], job: str = "") -> str:
        """Run a job of FRESCO, or resume one, until it is done; its id."""
        path = f"/fresco/jobs/{job}/resume" if job else "/fresco/jobs"
        identity, end = self.ask(path, body)["id"], time.monotonic() + ANSWER_SECONDS
        while (status := self.ask(f"/fresco/jobs/{identity}"))["state"] not in ENDED:
            assert time.monotonic() < end, status
            time.sleep(0.2)
        assert status["state"] == "done", status
        return identity

    def read_memory(self) -> dict[str, int]:
        """Megabytes of main memory, now and at most: `VmRSS` and `VmHWM` of Linux."""
        told = Path(f"/proc/{self._process.pid}/status").read_text("utf-8").splitlines()
        fields = dict(line.split(":", 1) for line in told)
        return {name: int(fields[name].split()[0]) // 1024 for name in ("VmRSS", "VmHWM")}

    def img2img(
        self, frames: Sequence[Image.Image], options: dict[str, Any] | Sequence[Any] | None = None,
        **payload: Any,
    ) -> Answer:
        """See `client.Host`. A test skips that changes a setting which this kind does not have."""
        unknown = set(payload.get("override_settings", ())) - self._settings.keys()
        if unknown:
            pytest.skip(f"{self.kind.name} has no setting {', '.join(sorted(unknown))}")
        told = {
            name: text_of(value) if isinstance(value, Image.Image) else value
            for name, value in payload.items()
        }
        scripts = script_arguments(options) | told.pop("alwayson_scripts", {})
        done = self.ask("/sdapi/v1/img2img", REQUEST | told | {
            "init_images": [text_of(frame) for frame in frames], "save_images": False,
            "alwayson_scripts": scripts,
        })
        files = [io.BytesIO(base64.b64decode(text)) for text in done["images"]]
        pictures = tuple(Image.open(file).convert("RGB") for file in files)
        info = json.loads(done["info"])
        return Answer(pictures, tuple(info["infotexts"]), info["extra_generation_params"])


def _find_reason(answer: bytes) -> str:
    """What an error's answer says; the kinds have several fields for it."""
    try:
        said = json.loads(answer)
    except ValueError:
        return answer.decode("utf-8", "replace")[:500]
    fields = (said.get(name) for name in ("detail", "errors", "message", "error"))
    return next((str(text) for text in fields if text), str(said))


def _prepare(webui: Path, folder: Path, kind: HostKind, model: str, fresco: bool) -> Path:
    """Write a data folder with extensions and networks; the checkpoint's file.

    A1111 gets the ControlNet that `CONTROLNET_DIR` names, other kinds have one.
    """
    extensions = folder / "extensions"
    for name in (*FOR_TESTS, *kind.extensions):
        shutil.copytree(EXTENSIONS / name, extensions / name)
    if fresco:
        (extensions / FRESCO).symlink_to(ROOT)
    if (control := os.environ.get("CONTROLNET_DIR")) and kind is A1111:
        shutil.copytree(control, extensions / "sd-webui-controlnet")
    models = folder / "models"
    made = write_checkpoint(webui, models / "Stable-diffusion", model)
    write_control_network(made, models / "ControlNet" / f"{NETWORK}.safetensors")
    write_lora(made, models / "Lora" / f"{LORA}.safetensors")
    return made


def _find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _await(process: subprocess.Popen[bytes], log: Path, signs: Sequence[str]) -> None:
    """Until its console has said all of that."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        said = log.read_text("utf-8", "replace")
        if all(sign in said for sign in signs):
            return
        if DIED in said:
            break
        time.sleep(0.5)
    raise AssertionError(f"The WebUI did not start:\n{log.read_text('utf-8', 'replace')[-4000:]}")


@contextmanager
def running_webui(
    webui: Path, folder: Path, *, model: str | None = None, fresco: bool = True,
    flags: Sequence[str] = (),
) -> Iterator[HttpHost]:
    """Within: the WebUI of a folder runs with the extension; nothing is written into it.

    Args:
        folder: its data, an empty folder
        model: of `checkpoints.py`; the kind's usual one if not given
        fresco: whether it has the extension
        flags: more flags for it
    """
    kind = find_kind(webui)
    made = _prepare(webui, folder, kind, model or kind.models[0], fresco)
    port, log = _find_free_port(), folder / "log.txt"
    command = [
        find_python(webui), "launch.py", *ALL, *kind.flags, "--port", str(port),
        "--data-dir", str(folder), *flags,
    ]
    if kind.checkpoint_flag:
        command += [kind.checkpoint_flag, str(made)]
    caches = {"PYTHONPYCACHEPREFIX": str(folder / "caches")}
    begin = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=webui, stdout=output, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, env=os.environ | OFFLINE | caches, start_new_session=True,
        )
    try:
        _await(process, log, kind.ready)
        host = HttpHost(port, log, kind, process, time.monotonic() - begin)
        host.change_settings(SETTINGS | {"sd_model_checkpoint": host.find_model(made.stem)})
        yield host
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)
