"""The WebUI's syntax of prompts on the command line: read, or refused before the clip is opened."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from fresco.cli.main import main
from fresco.workspace import read_image
from tests.helpers.clips import moving_texture, write_clip
from tests.helpers.recorded_run import fails


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return write_clip(path, moving_texture(4, 64, 64))


@pytest.mark.parametrize(("words", "code", "named"), [
    (["--prompt", "[cat:dog:0.5] <hypernet:x:1>"], 2, ["--prompt", "[cat:dog:0.5]", "<hypernet:x"]),
    (["--prompt", "a", "--negative-prompt", "[a|b]"], 2, ["--negative-prompt", "[a|b]"]),
    (["--prompt", "<lora:style:0.8> [a|b]"], 2, ["[a|b]", "<lora:style", "--lora-dir", "--lora "]),
    (["--prompt", "<lora:style:nan>"], 2, ["<lora:style:nan>", "is not a number"]),
    (["--lora", "style.safetensors:nan"], 2, ["--lora", "'nan' is not a number"]),
    (["--lora", "nowhere.safetensors"], 4, ["nowhere.safetensors", "--lora"]),
])
def test_what_cannot_be_done_is_refused_before_any_work(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: list[str], code: int,
    named: list[str],
) -> None:
    """The clip is not one, which nobody finds out."""
    (tmp_path / "clip.mp4").write_bytes(b"not opened")
    sentence = fails(capsys, code, "translate", tmp_path / "clip.mp4", "--model", "m", *words)
    assert all(word in sentence for word in named)
    assert sorted(tmp_path.iterdir()) == [tmp_path / "clip.mp4"]


def translate(clip: Path, model: Path, out: Path, prompt: str, *more: str) -> np.ndarray:
    """The first keyframe."""
    assert main([
        "translate", str(clip), "--model", str(model), "--prompt", prompt, "--offline", "--flow",
        "dis", "--resolution", "64", "--steps", "2", "--guidance-scale", "12", "--preset", "off",
        "--no-propagate", "--device", "cpu", "-o", str(out), "--quiet", *more,
    ]) == 0
    image = read_image(out.with_name(f"{out.stem}-keys") / "000000.png")
    assert image is not None
    return image


def test_weights_loras_and_embeddings_make_other_images(
    clip: Path, demo_model: Path, tmp_path: Path
) -> None:
    """A weight of 1 makes none, and a resumed run finds what it made."""
    import torch

    unet = load_file(next((demo_model / "unet").glob("*.safetensors")))
    name = "up_blocks.3.attentions.2.transformer_blocks.0.attn2.to_v"
    rows, columns = unet[f"{name}.weight"].shape
    torch.manual_seed(0)
    save_file({f"unet.{name}.lora_A.weight": torch.randn(2, columns),
               f"unet.{name}.lora_B.weight": torch.randn(rows, 2)}, tmp_path / "ink.safetensors")
    save_file({"emb_params": torch.randn(2, columns)}, tmp_path / "gogh.safetensors")
    folders = ("--lora-dir", str(tmp_path), "--embeddings-dir", str(tmp_path))
    plain = translate(clip, demo_model, tmp_path / "a.mp4", "a man")
    assert np.array_equal(plain, translate(clip, demo_model, tmp_path / "b.mp4", "a (man:1.0)"))
    for number, prompt in enumerate(("<lora:ink:2>a man", "a man gogh", "a BREAK man")):
        found = translate(clip, demo_model, tmp_path / f"{number}.mp4", prompt, *folders)
        assert not np.array_equal(plain, found)
        assert np.array_equal(
            found, translate(clip, demo_model, tmp_path / f"{number}.mp4", prompt, *folders)
        )
