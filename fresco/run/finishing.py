"""Change finished keyframes as the options ask, before they are propagated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fresco.digests import digest, digest_content
from fresco.errors import PropagationError
from fresco.flow.interface import FlowEstimator
from fresco.planning.keyframes import KeyframePlan
from fresco.planning.prompts import compose_prompts
from fresco.run import colours, joining
from fresco.run.context import RunContext, log_stage
from fresco.run.propagate import ORIGIN, read_origin
from fresco.workspace import frame_name, read_image, write_image, write_json

Image = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class _Shot:
    """The keyframes of a shot, read one by one."""

    run: RunContext
    keys: Path
    """Folder of their images."""
    plan: KeyframePlan

    @property
    def prompts(self) -> tuple[str, ...]:
        """Prompt of every keyframe."""
        return compose_prompts(self.plan.keyframes, self.run.settings.sampling)

    @property
    def borders(self) -> frozenset[int]:
        """Positions of keyframes whose batch is not that of the one before."""
        starts = {batch.frames[0] for batch in self.plan.batches[1:]}
        return frozenset(n for n, key in enumerate(self.plan.keyframes) if key in starts)

    def read(self, place: int) -> tuple[Image, Image]:
        """Read a keyframe and its source by position."""
        number = self.plan.keyframes[place]
        image = read_image(self.keys / frame_name(number))
        if image is None:
            raise PropagationError(
                f"The image of keyframe {number} is missing or damaged. Start the same command "
                "again: it makes what is missing."
            )
        return image, self.run.clip.frames.pick([number])[0]


_Change = Callable[[_Shot], Iterator[Image]]
"""Makes the changed keyframes of a shot, in order."""


def finish_keyframes(
    run: RunContext, plans: Sequence[KeyframePlan], keys: Path, estimator: FlowEstimator, *,
    batches: bool = True,
) -> Path:
    """Change all keyframes as the options ask, and return their folder.

    They get one exposure and colour, and are joined, each if its option is on.

    Args:
        keys: folder of the keyframes, at the size of the run's frames; they are not changed.
        batches: whether the keyframes were translated in the batches of the plans.
    """
    wanted, flow = run.settings.propagation, estimator.fingerprint
    if wanted.even_colours:
        made_by = digest(colours.VERSION, keys.name, flow)
        keys = _change(
            run, plans, keys, ("evened", "colours"), made_by,
            lambda shot: colours.even_shot(shot.read, shot.prompts, estimator),
        )
    if wanted.join_keyframes:
        borders = [sorted(_Shot(run, keys, plan).borders) for plan in plans] if batches else []
        made_by = digest(joining.VERSION, keys.name, flow, borders)
        keys = _change(
            run, plans, keys, ("joined", "join"), made_by,
            lambda shot: joining.join_shot(
                shot.read, shot.prompts, shot.borders if batches else (), estimator
            ),
        )
    return keys


def _change(
    run: RunContext, plans: Sequence[KeyframePlan], keys: Path, names: tuple[str, str],
    made_by: str, change: _Change,
) -> Path:
    """Make the folder of changed keyframes, from the first one on, unless it is complete.

    Args:
        names: of the kind of folder, and of the stage.
        made_by: digest of all that the folder depends on besides the images and the prompts.
    """
    folder = run.workspace.folder(names[0], made_by)
    numbers = [number for plan in plans for number in plan.keyframes]
    now = {str(number): digest_content(keys / frame_name(number)) for number in numbers}
    now |= {"prompts": digest(compose_prompts(numbers, run.settings.sampling))}
    whole = all(read_image(folder / frame_name(number)) is not None for number in numbers)
    if whole and read_origin(folder) == now:
        return folder
    (folder / ORIGIN).unlink(missing_ok=True)  # until all exist
    with log_stage(names[1]), run.progress.stage(names[1], len(numbers)) as stage:
        for plan in plans:
            images = change(_Shot(run, keys, plan))
            for number, image in zip(plan.keyframes, images, strict=True):
                write_image(folder / frame_name(number), image)
                stage.advance()
    write_json(folder / ORIGIN, now)
    return folder
