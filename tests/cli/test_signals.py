"""Signals at random file operations and moments of every command: it goes on to the same bytes.

FRESCO_SIGNALS=200 sends so many to all commands; without it, one to one of them, by chance.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerContext

import numpy as np
import pytest

from fresco.workspace import write_image
from tests.helpers.clips import ClipOptions, moving_texture, write_clip
from tests.helpers.crashes import (
    MODELS,
    Blow,
    Place,
    list_marked,
    open_fork_server,
    run_command,
    strike,
)
from tests.helpers.faulty_files import CUT_EXIT, SIGNALS, Fault
from tests.helpers.job_environment import TinyEnvironment

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals are of POSIX")
MOST = int(os.environ.get("FRESCO_SIGNALS", "0"))
ENDS = {
    Fault.SIGINT: (0, 130, -signal.SIGINT), Fault.SIGTERM: (0, 130, -signal.SIGTERM),
    Fault.SIGKILL: (0, -signal.SIGKILL), Fault.CUT: (0, CUT_EXIT),
}
"""How a command may end; 0: it was done before."""


@dataclass
class Commands:
    """Commands with what they make when nobody disturbs them."""

    place: Place
    context: ForkServerContext
    words: dict[str, list[str]]
    whole: dict[str, dict[str, bytes]] = field(default_factory=dict)
    operations: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def learn(self, name: str) -> None:
        """Run a command undisturbed."""
        self.clear()
        start = time.monotonic()
        assert self.run(name, Blow(Fault.SIGKILL, at=-1)) == 0, self.said
        self.seconds[name] = time.monotonic() - start
        self.operations[name] = int((self.place.notes / "count").read_text())
        self.whole[name] = self.read()
        assert self.find_left() == []

    def clear(self) -> None:
        for folder in (self.place.out, self.place.temporary):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()

    def run(self, name: str, blow: Blow | None) -> int:
        process = self.context.Process(
            target=run_command, args=(self.words[name], self.place, blow)
        )
        return strike(process, blow)

    @property
    def said(self) -> str:
        return (self.place.notes / "stderr").read_text()

    def read(self) -> dict[str, bytes]:
        """All that a command has left, but what names times."""
        return {
            str(path.relative_to(self.place.out)): path.read_bytes()
            for path in sorted(self.place.out.rglob("*")) if path.is_file() and path.name != "seen"
        }

    def find_left(self) -> list[str]:
        """What is half written, or lies in the system's folder of temporary files."""
        hidden = [path for path in self.place.out.rglob(".*") if path.is_file()]
        return [str(path) for path in (*hidden, *self.place.temporary.iterdir())]

    def age(self) -> None:
        """What was left was left a while ago: what is young may be written just now."""
        for path in (*self.place.out.rglob(".*"), *self.place.temporary.iterdir()):
            os.utime(path, (1, 1))


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    models = tmp_path_factory.getbasetemp() / "job-models"
    folder = tmp_path_factory.mktemp("signals")
    clip, keys = folder / "clip.mov", folder / "keys"
    # Sound that must be encoded, into a folder for a while where there is no workspace.
    write_clip(clip, moving_texture(6, 64, 64), ClipOptions(sound=("pcm_s16le",)))
    silent = write_clip(folder / "translated.mp4", moving_texture(6, 64, 64, seed=3))
    for number in (0, 4):
        write_image(keys / f"{number}.png", np.full((64, 64, 3), 90, np.uint8))
    TinyEnvironment(models)
    place = Place(folder / "out", folder / "temporary", folder)
    words = {
        "translate": [
            str(clip), "-o", str(place.out / "result.mp4"), "--model", str(models / "tiny"),
            "--prompt", "a painting", "--resolution", "64", "--steps", "4", "--strength", "0.25",
            "--optimization-iterations", "1", "--keys", "0,2,5", "--batch-size", "3",
            "--flow", "dis", "--compare", "--offline", "--device", "cpu", "--workers", "1",
        ],
        "propagate": [
            str(clip), "--keys", str(keys), "-o", str(place.out / "result.mp4"),
            "--resolution", "64", "--flow", "dis", "--workers", "2" if MOST else "1",
        ],
        "keyframes": [str(clip), "-o", str(place.out / "keys.json"), "--min-interval", "1"],
        "compare": [str(clip), str(silent), "-o", str(place.out / "compared.mp4")],
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MODELS, str(models))
        yield Commands(place, open_fork_server(models), {
            name: [name, *rest, "--quiet"] for name, rest in words.items()
        })


def choose_blow(chance: random.Random, operations: int, seconds: float) -> Blow:
    if chance.random() < 0.6:
        fault = chance.choice((*SIGNALS, Fault.SIGKILL, Fault.CUT))
        return Blow(fault, at=chance.randrange(operations))
    return Blow(chance.choice(SIGNALS), after=chance.uniform(0, seconds))


def test_whatever_ends_a_command_it_goes_on_to_the_same_bytes(commands: Commands) -> None:
    chance = random.Random()
    told: Counter[str] = Counter()
    names = chance.sample(list(commands.words), 4 if MOST else 1)
    for turn in range(10**6):
        name = names[turn % len(names)] if not MOST else chance.choice(["translate", *names])
        if told["signals"] >= MOST and turn >= len(names):
            break
        if name not in commands.whole:
            commands.learn(name)
        commands.clear()
        blows = []
        for _ in range(chance.randint(1, 3) if MOST else 1):
            # What is left to do becomes less and less.
            share = 1 / (1 + len(blows))
            blow = choose_blow(
                chance, int(commands.operations[name] * share) or 1,
                commands.seconds[name] * share,
            )
            blows.append(blow)
            code = commands.run(name, blow)
            assert code in ENDS[blow.fault], (name, blows, code, commands.said)
            told.update(["runs"])
            if code:  # else it was done before
                told.update(["signals", name, blow.fault.name, f"{name} exit {code}"])
            assert list_marked(commands.place) == [], (name, blows)
            found = commands.read()
            for result in ("result.mp4", "compared.mp4", "keys.json"):
                if result in found:
                    assert found[result] == commands.whole[name][result], (name, blows)
        commands.age()
        assert commands.run(name, None) == 0, (name, blows, commands.said)
        assert commands.find_left() == [], (name, blows)
        found, whole = commands.read(), commands.whole[name]
        unlike = {key for key in found.keys() | whole if found.get(key) != whole.get(key)}
        assert unlike == set(), (name, blows)
        assert list_marked(commands.place) == [], (name, blows)
        told.update(["runs", "undisturbed"])
        if MOST:
            sys.__stderr__.write(f"{dict(told)}\n")
