"""The command `fresco ui`: its flags, and what it refuses before anything is loaded."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pytest

from fresco.cli.main import main
from fresco.cli.ui import DEMO_MODEL
from fresco.ui import serve as served
from fresco.ui.environment import Choices
from fresco.ui.serve import Place
from tests.helpers.recorded_run import fails


class Started:
    """What would be served."""

    place: Place
    jobs: Path
    choices: Choices
    more: dict[str, Any]

    def serve(self, place: Place, jobs: Path, choices: Choices, **more: Any) -> None:
        self.place, self.jobs, self.choices, self.more = place, jobs, choices, more
        more["started"]("http://127.0.0.1:1")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    found = Started()
    monkeypatch.setattr(served, "serve", found.serve)
    monkeypatch.delenv("FRESCO_LOGIN", raising=False)
    return found


def test_without_flags_it_is_the_demo_on_this_machine(
    started: Started, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ui"]) == 0
    assert capsys.readouterr().out == "http://127.0.0.1:1\n"
    assert started.place == Place("127.0.0.1", None, "", ())
    assert started.jobs == Path.home() / "fresco-jobs"
    assert started.choices.models == (str(DEMO_MODEL),)
    assert started.choices.only_own
    assert started.more["browser"]


def test_flags_reach_the_page_and_its_jobs(started: Started, tmp_path: Path) -> None:
    words = [
        "ui", "--model", "a.safetensors", "--model", "hub/name", "--models-dir", "models",
        "--control-model", "c", "--control-dir", "controls", "--lora-dir", str(tmp_path),
        "--device", "cpu", "--dtype", "float32", "--offline", "--workers", "3", "--port", "0",
        "--jobs-dir", str(tmp_path), "--no-browser", "--listen", "--login", "me:secret",
        "--origin", "https://x.example.org", "--allow", str(tmp_path), "--upload-megabytes", "9",
        "--most-frames", "50", "--most-resolution", "768",
    ]
    assert main(words) == 0
    chosen = started.choices
    assert started.place == Place("0.0.0.0", 0, "me:secret", ("https://x.example.org",))
    assert started.jobs == tmp_path
    assert (chosen.models, chosen.models_dir) == (("a.safetensors", "hub/name"), "models")
    assert (chosen.control_models, chosen.control_dir) == (("c",), "controls")
    assert (chosen.sampling.lora_dir, chosen.sampling.device) == (str(tmp_path), "cpu")
    assert chosen.flow.offline
    limits = chosen.limits
    assert (limits.upload_megabytes, limits.frames, limits.resolution, limits.workers) == (
        9, 50, 768, 3)
    assert (chosen.open_folders, chosen.only_own) == ((tmp_path,), False)
    assert not started.more["browser"]


def test_the_login_may_come_as_a_variable(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRESCO_LOGIN", "me:secret")
    assert main(["ui", "--listen"]) == 0
    assert started.place.login == "me:secret"


@pytest.mark.usefixtures("started")
@pytest.mark.parametrize(("words", "sentence"), [
    (("--listen",), "give a password too, by --login USER:PASSWORD"),
    (("--host", "192.168.0.7"), "--host is '192.168.0.7', which others can reach"),
    (("--listen", "--host", "127.0.0.1"), "give one of them"),
    (("--port", "70000"), "--port is '70000'; give a whole number from 0 to 65535"),
    (("--most-frames", "many"), "--most-frames is 'many'"),
    (("--dtype", "float8"), "--dtype is 'float8'"),
    (("--prompt", "a cat"), "'--prompt' is not an argument of fresco ui"),
])
def test_what_cannot_be_is_one_sentence(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], sentence: str
) -> None:
    assert sentence in fails(capsys, 2, "ui", *words)


def test_without_gradio_it_says_how_to_install_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: Any, **named: Any) -> Any:
        if name == "gradio":
            raise ModuleNotFoundError("No module named 'gradio'", name="gradio")
        return real(name, *rest, **named)

    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "")
    monkeypatch.setattr(builtins, "__import__", refuse)
    said = fails(capsys, 4, "ui", "--jobs-dir", tmp_path, "--port", "0")
    assert 'gradio is not installed, and the page needs it; install it by pip install -e' in said
    assert said.strip().endswith('".[ui]".')
