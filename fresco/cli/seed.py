"""Draw a random seed once a run, so that a resumed run has the same one."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fresco.options import draw_seed
from fresco.settings import RANDOM_SEED, FrescoSettings
from fresco.workspace import read_json, write_json

log = logging.getLogger("fresco")

_FILE = "random-seed.json"
"""File of the workspace that holds the seed while the run has not ended well."""


@contextmanager
def drawn_seed(settings: FrescoSettings, workspace: Path) -> Iterator[FrescoSettings]:
    """Within the context, settings whose random seed is replaced by a number.

    The number is stored until the context ends without error, so the same command resumes the run.
    """
    if settings.sampling.seed != RANDOM_SEED:
        yield settings
        return
    path = workspace / _FILE
    kept = read_json(path)
    if isinstance(kept, int) and kept >= 0:
        seed, origin = kept, "of the run that was stopped before"
    else:
        seed, origin = draw_seed(), "drawn at random"
        write_json(path, seed)
    log.info("sampling.seed is %d, %s; give this seed to make the same images again.", seed, origin)
    yield dataclasses.replace(settings, sampling=dataclasses.replace(settings.sampling, seed=seed))
    path.unlink(missing_ok=True)
