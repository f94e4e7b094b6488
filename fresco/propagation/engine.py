"""The engines of propagation: how a keyframe is carried to the frames around it.

One registry; the option propagation.method names an entry. A draft, which propagation.quality asks
for, has an engine of its own. An engine holds values only, so that a segment that names it can be
worked on by any process or machine.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from fresco.blending.selection import PATCH_SEAM, SEAM
from fresco.digests import digest
from fresco.errors import PropagationError
from fresco.options import cache_settings
from fresco.propagation.carriers import Carrier, FlowCarrier, Image, PatchCarrier
from fresco.propagation.grid import choose_grid
from fresco.propagation.guide_folders import GuideFolder
from fresco.propagation.program import require_program
from fresco.propagation.synthesizer import PatchSynthesizer, SynthesisOptions
from fresco.settings import DRAFT, FrescoSettings, PropagationSettings

if TYPE_CHECKING:
    from fresco.flow.interface import FlowEstimator


REVISION = 7
"""Raised when flow, tracks or blending change the frames: those of before are made anew then.
1 is version 0.1; 2 finds occlusion by OpenCV's sampling; 3 aligns tracks by least squares and
takes regions where the sides differ from one of them; 4 has the synthesis weigh the use of the
source exactly and search less at random; 5 aligns tracks without the light of the frames; 6
finds far patches by a tree; 7 begins every pixel of a frame with the better of two fields."""


DRAFT_REVISION = 2
"""Raised when drafts change; 2 selects as the other engines do since their revision 3."""


class Engine(Protocol):
    """Carries keyframes frame by frame in its own way. Picklable."""

    @property
    def name(self) -> str:
        """The value of propagation.method that chooses it."""
        ...

    @property
    def text(self) -> str:
        """For people: the name, with the version of the program where it uses one."""
        ...

    @property
    def cache_key(self) -> str:
        """Digest of everything in the engine that changes its images."""
        ...

    @property
    def seam(self) -> float:
        """Price of a seam between the sides of a segment, see `blending.selection`."""
        ...

    def digest_options(self, settings: FrescoSettings) -> str:
        """Digest of the engine and of all options that change its images."""
        ...

    def choose_grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the grid on which motion is worked on, for frames of a size."""
        ...

    def with_threads(self, threads: int) -> Engine:
        """The same engine with so many threads for a segment; its images stay the same."""
        ...

    def open_carrier(
        self, image: Image, frame: Image, estimator: FlowEstimator, check: Callable[[], None],
        number: int,
    ) -> AbstractContextManager[Carrier]:
        """A carrier that begins at a keyframe.

        Args:
            image: the keyframe.
            frame: [H, W, 3] the source's frame of the same number, perhaps of another size.
            check: called often; raises to stop.
            number: of the keyframe in the source.
        """
        ...


@dataclass(frozen=True, slots=True)
class FlowEngine:
    """Warps keyframes along the optical flow."""

    name = "flow"
    text = "flow"
    cache_key = f"flow {REVISION}"
    seam = SEAM

    def digest_options(self, settings: FrescoSettings) -> str:
        """See `Engine.digest_options`; the quality is that of patches and changes nothing."""
        return _digest_options(settings, self.cache_key, method=self.name, quality="balanced")

    def choose_grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """See `Engine.choose_grid`; pixels of keyframes move as the motion says, so the frames'."""
        return size

    def with_threads(self, threads: int) -> FlowEngine:
        """See `Engine.with_threads`; it has no threads of its own."""
        return self

    def open_carrier(
        self, image: Image, frame: Image, estimator: FlowEstimator, check: Callable[[], None],
        number: int,
    ) -> AbstractContextManager[Carrier]:
        """See `Engine.open_carrier`."""
        return contextlib.nullcontext(FlowCarrier(image, frame, estimator))


@dataclass(frozen=True, slots=True)
class PatchEngine:
    """Paints frames from patches of the keyframes, by the bundled synthesis program."""

    quality: str
    """`best` or `balanced`."""
    fingerprint: str
    """Digest of the program: a process that finds another one must not take part."""
    version: str = ""
    """What the program says of itself, as shown to the user."""
    threads: int = 1
    """Threads of each program; the result does not depend on it."""
    guides: tuple[GuideFolder, ...] = ()
    """Guides beside those that the source gives."""

    name = "patch"
    seam = PATCH_SEAM

    @property
    def text(self) -> str:
        """See `Engine.text`."""
        return f"{self.name} ({self.version})"

    @property
    def cache_key(self) -> str:
        """See `Engine.cache_key`."""
        guides = [[guide.weight, guide.content] for guide in self.guides]
        return digest(self.quality, self.fingerprint, REVISION, *guides)

    def digest_options(self, settings: FrescoSettings) -> str:
        """See `Engine.digest_options`."""
        return _digest_options(settings, self.cache_key, method=self.name)

    def choose_grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """See `Engine.choose_grid`; motion guides patches only, so a coarser one will do."""
        return choose_grid(size)

    def with_threads(self, threads: int) -> PatchEngine:
        """See `Engine.with_threads`."""
        return dataclasses.replace(self, threads=threads)

    @contextlib.contextmanager
    def open_carrier(
        self, image: Image, frame: Image, estimator: FlowEstimator, check: Callable[[], None],
        number: int,
    ) -> Iterator[Carrier]:
        """See `Engine.open_carrier`."""
        program = require_program()
        if program.fingerprint != self.fingerprint:
            raise PropagationError(
                f"{program.path} is not the program that the run began with; give all machines "
                "and processes the same one, or start again."
            )
        options = SynthesisOptions(self.quality, self.threads)
        with PatchSynthesizer(program.path, image, options, check=check) as synthesizer:
            yield PatchCarrier(image, frame, synthesizer, guides=self.guides, number=number)


@dataclass(frozen=True, slots=True)
class DraftEngine:
    """Moves both keyframes and mixes them, for a quick look: see `draft`."""

    name = "draft"
    text = "draft"
    cache_key = f"draft {DRAFT_REVISION}"

    def digest_options(self, settings: FrescoSettings) -> str:
        """See `Engine.digest_options`; no option changes a draft but that it is one."""
        return digest(self.cache_key)

    def with_threads(self, threads: int) -> DraftEngine:
        """See `Engine.with_threads`; it has no threads of its own."""
        return self


AnyEngine = Engine | DraftEngine
"""What carries keyframes to other frames."""


def _digest_options(settings: FrescoSettings, own: str, **used: str) -> str:
    propagation = dataclasses.replace(settings.propagation, **used)
    changed = dataclasses.replace(settings, propagation=propagation)
    return digest(cache_settings(changed, "propagation", "blend"), own)


def _create_patch_engine(settings: PropagationSettings) -> PatchEngine:
    program = require_program()
    # Beside a draft it is what the draft is compared with.
    quality = "balanced" if settings.quality == DRAFT else settings.quality
    return PatchEngine(quality, program.fingerprint, program.version)


ENGINES: Mapping[str, Callable[[PropagationSettings], Engine]] = {
    "patch": _create_patch_engine,
    "flow": lambda settings: FlowEngine(),
}
"""Makes each engine, by its name; raises PropagationError where it cannot work."""


def create_engine(settings: PropagationSettings) -> AnyEngine:
    """The engine that the options name; PropagationError where it cannot work."""
    return DraftEngine() if settings.quality == DRAFT else ENGINES[settings.method](settings)
