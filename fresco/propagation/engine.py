"""The engines of propagation: how a keyframe is carried to the frames around it.

The option `propagation.method` names an entry of the registry below. Drafts, for which
`propagation.quality` asks, have an engine of their own. An engine holds only values, so any process
or machine can work on a segment that names it.
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


REVISION = 8
"""Increased when a change of flow, tracks or blending changes the frames; older frames are then
made again.

1: version 0.1. 2: occlusion uses OpenCV's sampling. 3: tracks are aligned by least squares, and a
region where the sides differ is taken from one of them. 4: the synthesis counts how often it uses
each part of the keyframe exactly, and searches less at random. 5: tracks are aligned without the
brightness of the frames. 6: far patches are found by a tree. 7: every pixel of a frame begins with
the better of two fields. 8: random steps come in sets; of a leaf, the most promising are tried."""


DRAFT_REVISION = 2
"""Increased when drafts change. 2: sides are selected as by the other engines since revision 3."""


class Engine(Protocol):
    """Carries keyframes frame by frame in its own way. Picklable."""

    @property
    def name(self) -> str:
        """The value of propagation.method that chooses it."""
        ...

    @property
    def text(self) -> str:
        """The name as shown to people, with the version of the program if it uses one."""
        ...

    @property
    def cache_key(self) -> str:
        """Digest of everything in the engine that changes its images."""
        ...

    @property
    def seam(self) -> float:
        """Cost of a seam between the two sides of a segment, see `blending.selection`."""
        ...

    def digest_options(self, settings: FrescoSettings) -> str:
        """Digest of the engine and of all options that change its images."""
        ...

    def choose_grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the grid on which motion is computed, for frames of this size."""
        ...

    def with_threads(self, threads: int) -> Engine:
        """The same engine with `threads` threads a segment; its images stay the same."""
        ...

    def open_carrier(
        self, image: Image, frame: Image, estimator: FlowEstimator, check: Callable[[], None],
        number: int,
    ) -> AbstractContextManager[Carrier]:
        """Open a carrier that begins at a keyframe.

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
        """See `Engine.digest_options`; the quality concerns patches only and is left out."""
        return _digest_options(settings, self.cache_key, method=self.name, quality="balanced")

    def choose_grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """See `Engine.choose_grid`; pixels move by this flow, so the grid is the frame's own."""
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
    """Digest of the program; a process that finds a different program must not take part."""
    version: str = ""
    """Name and version of the program, as shown to the user."""
    threads: int = 1
    """Threads of each program; the result does not depend on it."""
    guides: tuple[GuideFolder, ...] = ()
    """Guides in addition to those made from the source."""

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
        """See `Engine.choose_grid`; motion only guides patches, so a coarser grid is enough."""
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
    """Moves both keyframes and mixes them, for a quick look; see `draft`."""

    name = "draft"
    text = "draft"
    cache_key = f"draft {DRAFT_REVISION}"

    def digest_options(self, settings: FrescoSettings) -> str:
        """See `Engine.digest_options`; no further option changes a draft."""
        return digest(self.cache_key)

    def with_threads(self, threads: int) -> DraftEngine:
        """See `Engine.with_threads`; it has no threads of its own."""
        return self


AnyEngine = Engine | DraftEngine
"""Any engine that carries keyframes to other frames."""


def _digest_options(settings: FrescoSettings, own: str, **used: str) -> str:
    propagation = dataclasses.replace(settings.propagation, **used)
    changed = dataclasses.replace(settings, propagation=propagation)
    return digest(cache_settings(changed, "propagation", "blend"), own)


def _create_patch_engine(settings: PropagationSettings) -> PatchEngine:
    program = require_program()
    # With a draft, this is the quality that the draft is compared with.
    quality = "balanced" if settings.quality == DRAFT else settings.quality
    return PatchEngine(quality, program.fingerprint, program.version)


ENGINES: Mapping[str, Callable[[PropagationSettings], Engine]] = {
    "patch": _create_patch_engine,
    "flow": lambda settings: FlowEngine(),
}
"""Functions that make each engine, by name; they raise PropagationError if it cannot work here."""


def create_engine(settings: PropagationSettings) -> AnyEngine:
    """Create the engine that the options name; PropagationError if it cannot work here."""
    return DraftEngine() if settings.quality == DRAFT else ENGINES[settings.method](settings)
