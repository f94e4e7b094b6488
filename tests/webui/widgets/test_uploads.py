"""What a page may call an uploaded file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fresco.errors import SettingsError
from fresco.webui.widgets.uploads import check_sent_files, drop_sent_file


@pytest.fixture
def uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Gradio's folder of uploads, and a secret beside it."""
    folder = tmp_path / "uploads"
    (folder / "0123").mkdir(parents=True)
    (folder / "0123" / "clip.mp4").write_bytes(b"clip")
    (tmp_path / "secret.mp4").write_bytes(b"secret")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(folder))
    return folder


def test_uploaded_files_are_taken(uploads: Path) -> None:
    clip = str(uploads / "0123" / "clip.mp4")
    assert check_sent_files(json.dumps([clip, clip])) == [clip, clip]


def test_only_the_copy_of_an_upload_is_dropped(uploads: Path) -> None:
    clip, secret = uploads / "0123" / "clip.mp4", uploads.parent / "secret.mp4"
    for path in (clip, uploads / "gone.mp4", secret):
        drop_sent_file(path)
    assert (clip.exists(), secret.exists()) == (False, True)


@pytest.mark.parametrize("name", [
    "../secret.mp4", "0123/../../secret.mp4", "missing.mp4", "0123", "/etc/passwd", "link.mp4",
])
def test_other_files_are_not(uploads: Path, name: str) -> None:
    (uploads / "link.mp4").symlink_to(uploads.parent / "secret.mp4")
    with pytest.raises(SettingsError, match="not an uploaded file"):
        check_sent_files(json.dumps([str(uploads / name)]))


@pytest.mark.parametrize("text", ["", "7", "[7]", "null", "{", "[]"])
def test_what_is_no_list_of_files(uploads: Path, text: str) -> None:
    with pytest.raises(SettingsError, match=r"not a list of uploaded files|No file was uploaded"):
        check_sent_files(text)
