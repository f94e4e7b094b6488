"""Work on segments on the machines of a dask.distributed cluster.

Scheduler and workers need this package installed, and see the same folders under the same paths.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Executor
from typing import Any

from fresco.errors import PropagationError

CONNECT_SECONDS = 10.0
"""Seconds after which a scheduler that does not answer counts as absent."""
WORKER_SECONDS = 30.0
"""Seconds that a cluster without a worker has to start one."""


def _connect(address: str) -> Any:
    try:
        import distributed
    except ImportError as error:
        raise PropagationError(
            f"propagation.cluster is {address!r}, but the package distributed is not installed; "
            "pip install distributed, here and on the cluster, or leave the cluster out."
        ) from error
    try:
        try:
            return distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
        except AssertionError:
            # On a busy machine about one start in ten fails so; a second start works.
            return distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, AssertionError) as error:
        raise PropagationError(
            f"The scheduler at {address} does not answer ({error}); start one with `dask "
            "scheduler`, correct propagation.cluster, or leave it empty."
        ) from error


@contextlib.contextmanager
def open_cluster(address: str) -> Iterator[Executor]:
    """The workers of a cluster as an executor.

    Args:
        address: of the scheduler, such as tcp://host:8786.
    """
    client = _connect(address)
    try:
        try:
            client.wait_for_workers(1, timeout=WORKER_SECONDS)
        except TimeoutError as error:
            raise PropagationError(
                f"The scheduler at {address} has no workers; start some with `dask worker "
                f"{address}`, each with one thread."
            ) from error
        from distributed import KilledWorker

        try:
            # Not pure: a segment is worked on each time, even if the same call was made before.
            yield client.get_executor(pure=False)
        except KilledWorker as error:
            raise BrokenExecutor(str(error)) from error
    finally:
        client.close()
