"""A real WebUI over HTTP: started from `WEBUI_DIR`, with a data folder of its own.

`WEBUI_PYTHON` names its Python if that is not `WEBUI_DIR/venv`; `WEBUI_KIND` may be `sdxl`, or
`demo` for the trained model of this project.
"""

from __future__ import annotations

import base64
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

from PIL import Image

from tests.helpers.webui.client import REQUEST, Answer, Refused, script_arguments
from tests.helpers.webui.shared import TOLD

ROOT = Path(__file__).resolve().parents[3]
DEMO_MODEL = ROOT / "demo" / "model"
START_SECONDS, ANSWER_SECONDS = 600, 1200
FLAGS = (
    "--skip-prepare-environment", "--api", "--use-cpu", "all", "--no-half", "--no-half-vae",
    "--skip-torch-cuda-test", "--skip-python-version-check", "--skip-version-check",
    "--no-download-sd-model", "--do-not-download-clip", "--opt-sdp-attention", "--no-hashing",
    "--disable-console-progressbars",
)
OFFLINE = {
    "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "GRADIO_ANALYTICS_ENABLED": "False",
    "SD_WEBUI_RESTARTING": "1", "PYTHONUNBUFFERED": "1", "no_proxy": "127.0.0.1",
}
SEEDED = '''"""Torch's own generator begins alike for every request, as in the double.

`__seed__` in a prompt becomes words that depend on the seed, as by scripts with wildcards.
"""

import torch

from modules import scripts


class Seeded(scripts.Script):
    def title(self):
        return "Seeded"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def before_process(self, p, *args):
        torch.manual_seed(0)

    def process(self, p, *args):
        p.all_prompts = [
            text.replace("__seed__", f"number {seed}")
            for text, seed in zip(p.all_prompts, p.all_seeds)
        ]
'''
SECOND = "second"
"""Name of a second checkpoint, beside the one that is selected."""


def given_folder() -> Path | None:
    """The WebUI that tests shall ask, if one is named."""
    named = os.environ.get("WEBUI_DIR")
    return Path(named) if named else None


def given_kind() -> str:
    """The checkpoint it shall have."""
    return os.environ.get("WEBUI_KIND", "sd15")


def _copied_demo_model(models: Path) -> Path:
    """The checkpoint, its tokenizer, and its configuration, which names the tokenizer's place."""
    name = "fresco-demo"
    shutil.copytree(DEMO_MODEL / name, models / name)
    shutil.copyfile(DEMO_MODEL / f"{name}.safetensors", models / f"{name}.safetensors")
    told = (DEMO_MODEL / f"{name}.yaml").read_text("utf-8")
    usual = f"models/Stable-diffusion/{name}"
    assert usual in told
    (models / f"{name}.yaml").write_text(told.replace(usual, str(models / name)), "utf-8")
    return models / f"{name}.safetensors"


def _python(webui: Path) -> str:
    return os.environ.get("WEBUI_PYTHON") or str(webui / "venv" / "bin" / "python")


def text_of(picture: Image.Image) -> str:
    """Base64 of a PNG."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


class HttpHost:
    """A WebUI that runs."""

    def __init__(self, port: int, log: Path) -> None:
        self.address, self.log = f"http://127.0.0.1:{port}", log
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def ask(self, path: str, body: Any = None) -> Any:
        """JSON of a GET, or of a POST if there is something to send."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.address + path, data, {"Content-Type": "application/json"}
        )
        try:
            with self._opener.open(request, timeout=ANSWER_SECONDS) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            said = json.loads(error.read() or b"{}")
            raise Refused(error.code, str(said.get("detail") or said.get("errors"))) from error

    def img2img(
        self, frames: Sequence[Image.Image], options: dict[str, Any] | Sequence[Any] | None = None,
        **payload: Any,
    ) -> Answer:
        """See `client.Host`."""
        told = {
            name: text_of(value) if isinstance(value, Image.Image) else value
            for name, value in payload.items()
        }
        done = self.ask("/sdapi/v1/img2img", REQUEST | told | {
            "init_images": [text_of(frame) for frame in frames], "save_images": False,
            "alwayson_scripts": script_arguments(options),
        })
        files = [io.BytesIO(base64.b64decode(text)) for text in done["images"]]
        pictures = tuple(Image.open(file).convert("RGB") for file in files)
        return Answer(pictures, tuple(json.loads(done["info"])["infotexts"]))


def _prepared(webui: Path, folder: Path) -> list[str]:
    """A data folder with the extension and a checkpoint; the flags that name them."""
    extensions, own = folder / "extensions", folder / "extensions" / "seeded" / "scripts"
    own.mkdir(parents=True)
    (own / "seeded.py").write_text(SEEDED, "utf-8")
    (extensions / "sd-webui-fresco").symlink_to(ROOT)
    models = folder / "models" / "Stable-diffusion"
    models.mkdir(parents=True)
    kind = given_kind()
    if kind == "demo":
        return ["--data-dir", str(folder), "--ckpt", str(_copied_demo_model(models))]
    maker = ROOT / "tests" / "tools" / "make_tiny_checkpoint.py"
    command = [_python(webui), str(maker), str(webui), str(models), "--kind", kind]
    made = subprocess.run(command, capture_output=True, text=True, env=os.environ | OFFLINE)
    assert made.returncode == 0, made.stderr
    for file in list(models.glob(f"tiny-{kind}.*")):
        shutil.copyfile(file, models / f"{SECOND}{file.suffix}")
    return ["--data-dir", str(folder), "--ckpt", str(models / f"tiny-{kind}.safetensors")]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _await(process: subprocess.Popen[bytes], log: Path) -> None:
    """Until it has loaded: a request before may end its start."""
    for _ in range(START_SECONDS):
        said = log.read_text("utf-8", "replace")
        if "Startup time" in said and "Model loaded in" in said:
            return
        if process.poll() is not None:
            break
        time.sleep(1)
    raise AssertionError(f"The WebUI did not start:\n{log.read_text('utf-8', 'replace')[-4000:]}")


@contextmanager
def running_webui(webui: Path, folder: Path) -> Iterator[HttpHost]:
    """Within: the WebUI of a folder runs with the extension; nothing is written into it.

    Args:
        folder: its data, an empty folder
    """
    flags, port, log = _prepared(webui, folder), _free_port(), folder / "log.txt"
    command = [_python(webui), "launch.py", *FLAGS, "--port", str(port), *flags]
    caches = {"PYTHONPYCACHEPREFIX": str(folder / "caches")}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=webui, stdout=output, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, env=os.environ | OFFLINE | caches, start_new_session=True,
        )
    try:
        _await(process, log)
        host = HttpHost(port, log)
        # The WebUI gives a setting back after a request only if it was ever set.
        # SDXL's previews by a network would be downloaded first.
        host.ask("/sdapi/v1/options", TOLD | {"show_progress_type": "Approx cheap"})
        yield host
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)
