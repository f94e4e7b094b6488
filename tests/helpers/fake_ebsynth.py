"""A synthesis program in a few lines of Python, which misbehaves as it is told to.

It paints every pixel with the key's pixel that the position guide names, so the true result is
known, and speaks the protocol of ebsynth/README.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

SCRIPT = '''#!{python}
import json, os, struct, sys, time
from pathlib import Path
import numpy as np

here = Path(__file__).resolve().parent
mode = (here / "mode").read_text() if (here / "mode").exists() else ""
with (here / "starts").open("a") as file:
    file.write(json.dumps([os.getpid(), *sys.argv[1:]]) + chr(10))
if sys.argv[1] == "-selftest":
    if mode == "sick":
        sys.exit("this machine lacks what it takes")
    sys.exit(0)
if sys.argv[1] == "-version":
    print("fake 1.0")
    sys.exit(0)
source, sink = sys.stdin.buffer, sys.stdout.buffer


def numbers(form):
    return struct.unpack("<" + form, source.read(struct.calcsize("<" + form)))


def image(height, width, channels):
    data = np.frombuffer(source.read(height * width * channels), np.uint8)
    return data.reshape(height, width, channels).astype(np.float32)


assert source.read(4) == b"EBSQ"
version, w, h, c, weight = numbers("4If")
assert (version, weight) == (1, -1.0)
style = image(h, w, c)
guides = []
for _ in range(numbers("I")[0]):
    channels, weight = numbers("If")
    guides.append((channels, weight, image(h, w, channels)))
tw, th = numbers("2I")
seen = 0
while (tag := source.read(4)) == b"FRAM":
    flags, = numbers("I")
    targets = [image(th, tw, channels) for channels, _, _ in guides]
    flow = source.read(th * tw * 8) if flags & 1 else b""
    track = source.read(th * tw * 8) if flags & 8 else b""
    assert len(track) in (0, th * tw * 8)
    assert not (flags & 1 and flags & 4)
    with (here / "frames").open("a") as file:
        file.write(json.dumps([flags, len(flow)]) + chr(10))
    count = len((here / "frames").read_text().splitlines())
    seen += 1
    if mode.startswith("die") and count in map(int, mode.split()[1:]):
        sys.stderr.write("warming up" + chr(10) + "no memory for so much paint" + chr(10))
        sys.exit(4)
    if mode.startswith("hang") and count == int(mode.split()[1]):
        (here / "hanging").touch()
        time.sleep(600)
    if mode == "slow":
        time.sleep(0.3)
    place = targets[3]
    x = np.rint(place[..., 1] / 255 * (w - 1)).astype(int)
    y = np.rint(place[..., 0] / 255 * (h - 1)).astype(int)
    painted = style[y, x].astype(np.uint8)
    gap = np.square(guides[0][2][y, x] - targets[0]).mean(axis=-1)
    error = (gap * 250).astype("<f4")
    if mode == "endless":
        error[:] = np.nan
    if mode == "loud":
        sys.stderr.write("x" * 2000000 + chr(10))
    data = b"DONE" + painted.tobytes() + error.tobytes()
    data = {{"short": data[:-7], "large": data + b"more", "wrong": b"WHAT" + data}}.get(mode, data)
    sink.write(data)
    sink.flush()
    if mode == "short":
        sys.exit(0)
if mode == "bitter":
    sys.exit("it was all in vain")
'''


def fake_program(folder: Path, mode: str = "") -> Path:
    """Write the program into a folder, with what it is to do wrong."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "ebsynth"
    path.write_text(SCRIPT.format(python=sys.executable), encoding="utf-8")
    path.chmod(0o755)
    (folder / "mode").write_text(mode, encoding="utf-8")
    return path


def starts(program: Path) -> list[str]:
    """A line for every start of the program: its process and words, as JSON."""
    return (program.parent / "starts").read_text().splitlines()
