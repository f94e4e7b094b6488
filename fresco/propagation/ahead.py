"""Run the work of one segment on several threads.

Threads help because OpenCV, numpy and waiting for programs release Python's lock. An exception in
a thread is raised where its result is taken.
"""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import TypeVar

T = TypeVar("T")
Given = TypeVar("Given")


def look_ahead(items: Iterable[T]) -> Iterator[T]:
    """Yield the same items; while one is used, a thread makes the next."""
    iterator = iter(items)
    with ThreadPoolExecutor(1, "fresco-ahead") as pool:
        following = pool.submit(_take_next, iterator)
        while found := following.result():
            following = pool.submit(_take_next, iterator)
            yield from found


def _take_next(iterator: Iterator[T]) -> list[T]:
    """The next item, or none at the end."""
    for item in iterator:
        return [item]
    return []


def map_in_order(
    work: Callable[[Given], T], items: Iterable[Given], threads: int
) -> Iterator[T]:
    """Yield `work(item)` for every item, in order; each thread holds at most two items."""
    if threads == 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(threads, "fresco-work") as pool:
        waiting: collections.deque[Future[T]] = collections.deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) == 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


class _OtherFailed(Exception):  # noqa: N818 - the user is told what the other one raised
    """The work beside this one has failed."""


def run_side_by_side(
    works: Sequence[Callable[[Callable[[], None]], T]], check: Callable[[], None], threads: int
) -> list[T]:
    """Run several functions at once and return their results.

    Args:
        works: run at once if there are at least as many `threads`, otherwise one after another.
            Each receives a check, which it must call often.
        check: raises to stop.
    """
    if threads < len(works):
        return [work(check) for work in works]
    failed = threading.Event()

    def check_both() -> None:
        if failed.is_set():
            raise _OtherFailed
        check()

    with ThreadPoolExecutor(len(works), "fresco-side") as pool:
        futures = [pool.submit(work, check_both) for work in works]
        if any(future.exception() for future in wait(futures, None, FIRST_EXCEPTION).done):
            failed.set()
    errors = [error for future in futures if (error := future.exception())]
    for error in sorted(errors, key=lambda error: isinstance(error, _OtherFailed)):
        raise error
    return [future.result() for future in futures]
