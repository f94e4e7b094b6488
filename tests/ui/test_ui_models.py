"""Names of models in the page's lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from fresco.errors import SettingsError
from fresco.ui.models import list_models


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"-")
    return path


def test_named_models_come_first_and_a_folder_is_searched_with_all_in_it(tmp_path: Path) -> None:
    last = put(tmp_path / "b" / "z.safetensors")
    first = put(tmp_path / "b" / "a.ckpt")
    put(tmp_path / "b" / "whole" / "model_index.json")
    put(tmp_path / "b" / "whole" / "unet" / "model.safetensors")
    put(tmp_path / "b" / ".hidden.safetensors")
    put(tmp_path / "b" / "notes.txt")
    listed = list_models(["hub/name", str(last)], str(tmp_path), what="--models-dir")
    assert listed == {
        "name": "hub/name", "z.safetensors": str(last), "a.ckpt": str(first),
        "whole": str(tmp_path / "b" / "whole"),
    }


def test_equal_names_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    one, two = put(tmp_path / "one" / "m.ckpt"), put(tmp_path / "two" / "m.ckpt")
    listed = list_models([], str(tmp_path), what="--models-dir")
    assert listed == {"one/m.ckpt": str(one), "two/m.ckpt": str(two)}
    both = list_models(["one/m.ckpt", "m.ckpt"], "", what="")
    assert list(both) == ["one/m.ckpt", "m.ckpt"]


def test_a_folder_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"--models-dir is .*nowhere.*not a folder"):
        list_models([], str(tmp_path / "nowhere"), what="--models-dir")
