"""Compute digests of inputs. Files of a run are named by them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

_HASH_BLOCK = 1 << 20
"""Bytes read at once."""
_MOST_DIGESTS = 64
"""Number of sources whose digests are remembered."""
State = tuple[tuple[str, int, int], ...]
"""Names of files, with their sizes and times of change."""
_digests: dict[tuple[Path, State], str] = {}
"""Digests of sources by path and state."""


def digest(*values: Any) -> str:
    """Hex sha256 of JSON-like values: the cache key of a stage's inputs."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def digest_content(path: Path) -> str:
    """Hex sha256 of a file's bytes, or of the names and bytes of a folder's files."""
    sha = hashlib.sha256()
    for item in sorted(path.iterdir()) if path.is_dir() else [path]:
        if item.is_dir():
            continue
        if path.is_dir():
            sha.update(item.name.encode())
        with item.open("rb") as file:
            while block := file.read(_HASH_BLOCK):
                sha.update(block)
    return sha.hexdigest()


def list_state(path: Path) -> State:
    """Facts that show quickly whether a file, or a folder's files, may have changed."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    states = [(file.name, file.stat()) for file in files]
    return tuple((name, state.st_size, state.st_mtime_ns) for name, state in states)


def digest_source(path: Path) -> str:
    """`digest_content` of a source; it is read again only if size or time of a file changed."""
    state = list_state(path)  # before it is read: a file that changes meanwhile is another one
    content = _digests.get((path.absolute(), state))
    if content is None:
        content = digest_content(path)
        _remember(path, state, content)
    return content


def remember_digest(path: Path, content: str) -> None:
    """Store the digest of a source that was already read completely, such as an upload."""
    _remember(path, list_state(path), content)


def _remember(path: Path, state: State, content: str) -> None:
    while len(_digests) >= _MOST_DIGESTS:
        _digests.pop(next(iter(_digests)), None)
    _digests[path.absolute(), state] = content
