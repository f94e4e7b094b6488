"""Weights: found, checked, fetched from a real server on this machine, and loaded safely."""

from __future__ import annotations

import hashlib
import http.server
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fresco.errors import Cancelled, WeightsError
from fresco.progress import CancelToken, Progress, StageStatus
from fresco.weights import (
    BLOCK,
    GMFLOW_SINTEL,
    U2NETP,
    WeightFile,
    ensure_weights,
    find_weights,
    is_offline,
    load_state,
    weights_folder,
)

CONTENT = bytes(range(256)) * 4096  # 1 MiB: several blocks


@dataclass
class Site:
    """A server whose manners a test sets."""

    address: str = ""
    content: bytes = CONTENT
    ranges: bool = True
    cut: int | None = None
    """Bytes after which every answer breaks off."""
    asked: list[str | None] = field(default_factory=list)
    """The Range header of every request."""

    def weight(self, name: str = "net.pth") -> WeightFile:
        digest = hashlib.sha256(CONTENT).hexdigest()
        return WeightFile(name, len(CONTENT), digest, f"{self.address}/{name}", "MIT")


def answer(site: Site, request: http.server.BaseHTTPRequestHandler) -> None:
    wanted = request.headers.get("Range")
    site.asked.append(wanted)
    if "absent" in request.path:
        request.send_error(404)
        return
    start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and site.ranges else 0
    if start >= len(site.content):
        request.send_error(416)
        return
    body = site.content[start:]
    request.send_response(206 if start else 200)
    if start:
        end = len(site.content)
        request.send_header("Content-Range", f"bytes {start}-{end - 1}/{end}")
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body if site.cut is None else body[: site.cut])


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    state = Site()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(state, self)

        def log_message(self, format: str, *args: object) -> None:
            """Tests have no use for a log of requests."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    state.address = f"http://127.0.0.1:{server.server_port}"
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_file_is_fetched_checked_and_kept(site: Site, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    seen: list[StageStatus] = []
    path = ensure_weights(site.weight(), folder, progress=Progress(seen.append))
    assert path == folder / "net.pth"
    assert path.read_bytes() == CONTENT
    assert [item.name for item in folder.iterdir()] == ["net.pth"]
    assert seen[-1].finished
    assert seen[-1].done == seen[-1].total == len(CONTENT)
    assert len(seen) > len(CONTENT) // BLOCK
    assert ensure_weights(site.weight(), folder) == path
    assert len(site.asked) == 1


def test_a_broken_download_goes_on_where_it_stopped(site: Site, tmp_path: Path) -> None:
    site.cut = 100_000
    with pytest.raises(WeightsError, match=r"net\.pth .*1048576 bytes.*300000 of 1048576 bytes.*"
                                           r"goes on where it stopped"):
        ensure_weights(site.weight(), tmp_path)
    assert (tmp_path / "net.pth.part").stat().st_size == 300_000
    site.cut = None
    assert ensure_weights(site.weight(), tmp_path).read_bytes() == CONTENT
    assert site.asked == [None, "bytes=100000-", "bytes=200000-", "bytes=300000-"]


def test_a_server_without_ranges_starts_anew(site: Site, tmp_path: Path) -> None:
    site.ranges = False
    (tmp_path / "net.pth.part").write_bytes(b"old and wrong")
    assert ensure_weights(site.weight(), tmp_path).read_bytes() == CONTENT


def test_a_finished_part_needs_no_server(tmp_path: Path, site: Site) -> None:
    (tmp_path / "net.pth.part").write_bytes(CONTENT)
    assert ensure_weights(site.weight(), tmp_path).read_bytes() == CONTENT
    assert site.asked == []


@pytest.mark.parametrize("content", [CONTENT[:-1] + b"x", CONTENT + b"more"],
                         ids=["other bytes", "too long"])
def test_a_wrong_file_is_thrown_away(site: Site, tmp_path: Path, content: bytes) -> None:
    site.content = content
    with pytest.raises(WeightsError, match=r"not the published file: it.*expected.*thrown away"):
        ensure_weights(site.weight(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_part_of_another_file_heals_at_the_second_try(site: Site, tmp_path: Path) -> None:
    (tmp_path / "net.pth.part").write_bytes(b"x" * 1000)
    with pytest.raises(WeightsError, match="sha256"):
        ensure_weights(site.weight(), tmp_path)
    assert ensure_weights(site.weight(), tmp_path).read_bytes() == CONTENT


def test_a_part_longer_than_the_file_is_dropped(site: Site, tmp_path: Path) -> None:
    (tmp_path / "net.pth.part").write_bytes(CONTENT * 2)
    assert ensure_weights(site.weight(), tmp_path).read_bytes() == CONTENT


def test_a_part_longer_than_the_servers_file_begins_anew(site: Site, tmp_path: Path) -> None:
    (tmp_path / "net.pth.part").write_bytes(CONTENT[:5000])
    site.content = CONTENT[:2000]
    with pytest.raises(WeightsError, match="the file there ends before byte 2000"):
        ensure_weights(site.weight(), tmp_path)
    assert site.asked == ["bytes=5000-", None, "bytes=2000-"]
    assert list(tmp_path.iterdir()) == []


def test_an_absent_file_names_address_and_folder(site: Site, tmp_path: Path) -> None:
    weight = site.weight("absent.pth")
    with pytest.raises(WeightsError, match=r"absent\.pth.*Not Found") as caught:
        ensure_weights(weight, tmp_path)
    assert weight.address in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_cancelling_keeps_what_was_fetched(site: Site, tmp_path: Path) -> None:
    token = CancelToken()

    def stop(status: StageStatus) -> None:
        if status.done >= 2 * BLOCK:
            token.cancel()

    with pytest.raises(Cancelled):
        ensure_weights(site.weight(), tmp_path, progress=Progress(stop, token))
    assert (tmp_path / "net.pth.part").stat().st_size >= 2 * BLOCK
    assert ensure_weights(site.weight(), tmp_path).read_bytes() == CONTENT


def test_offline_says_what_to_fetch_and_where_to_put_it(site: Site, tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        ensure_weights(site.weight(), tmp_path, offline=True)
    for part in ("net.pth", "1048576 bytes", site.address, str(tmp_path)):
        assert part in str(caught.value)
    assert site.asked == []


def test_the_hubs_own_switch_means_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert is_offline()
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert not is_offline()
    assert is_offline(True)


@pytest.mark.parametrize("content", [b"short", b"x" * len(CONTENT)], ids=["size", "bytes"])
def test_a_damaged_file_is_named_with_both_values(tmp_path: Path, content: bytes) -> None:
    weight = Site("https://example.org").weight()
    (tmp_path / weight.name).write_bytes(content)
    actual = "5 bytes" if content == b"short" else hashlib.sha256(content).hexdigest()
    expected = str(weight.size) if content == b"short" else weight.sha256
    with pytest.raises(WeightsError) as caught:
        find_weights(weight, tmp_path)
    for part in (str(tmp_path / weight.name), actual, expected, "Delete it", weight.address):
        assert part in str(caught.value)


def test_a_folder_that_is_a_file_is_said(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(WeightsError, match="file"):
        ensure_weights(site.weight(), tmp_path / "file")


def test_the_folder_is_the_option_then_the_environment_then_the_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FRESCO_WEIGHTS", str(tmp_path))
    assert weights_folder("~/nets") == Path.home() / "nets"
    assert weights_folder() == tmp_path
    monkeypatch.delenv("FRESCO_WEIGHTS")
    assert weights_folder() == Path.home() / ".cache" / "fresco"


def test_known_files_are_described_in_full() -> None:
    assert (GMFLOW_SINTEL.size, U2NETP.size) == (18_768_907, 4_574_861)
    for weight in (GMFLOW_SINTEL, U2NETP):
        assert len(bytes.fromhex(weight.sha256)) == 32
        assert weight.address.startswith("https://")
        assert weight.address.endswith(weight.name)
        assert weight.licence == "Apache-2.0"


STATE = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.ones(2)}


@pytest.mark.parametrize("nest", [None, "model", "state_dict"])
def test_tensors_come_back(tmp_path: Path, nest: str | None) -> None:
    path = tmp_path / "net.pth"
    torch.save({nest: STATE, "epoch": 3} if nest else STATE, path)
    state = load_state(path)
    assert state.keys() == STATE.keys()
    assert all(torch.equal(state[name], STATE[name]) for name in STATE)


def test_safetensors_come_back(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "net.safetensors")
    state = load_state(tmp_path / "net.safetensors")
    assert all(torch.equal(state[name], STATE[name]) for name in STATE)


class Malicious:
    """Makes a folder when unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"model": STATE, "extra": Malicious(tmp_path / "mark")}, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match=r"net\.pth is refused.*run code"):
        load_state(tmp_path / "net.pth")
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("name", ["net.pth", "net.safetensors"])
@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 cut off"],
                         ids=["empty", "text", "cut"])
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=name):
        load_state(tmp_path / name)


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"none\.pth"):
        load_state(tmp_path / "none.pth")


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}], ids=["list", "numbers"])
def test_a_checkpoint_without_tensors_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match="tensors"):
        load_state(tmp_path / "net.pth")
