"""Keeps gradio from serving files of jobs and uploads."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any


def close_folders(blocks: Any, folders: Iterable[Path]) -> None:
    """Keep gradio's route `/file=` from serving files in some folders.

    It serves whatever lies in its working folder, to everybody where the page has no login; the
    routes of the API ask who it is (docs/webui-hosts.md, section 2.10).

    Args:
        blocks: the page that was launched; gradio asks its list at every request.
    """
    for folder in folders:
        # As it is written and as it lies on disk: gradio resolves some paths and not others.
        for path in dict.fromkeys((str(folder.absolute()), str(folder.resolve()))):
            if path not in blocks.blocked_paths:
                blocks.blocked_paths.append(path)
