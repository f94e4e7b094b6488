"""Threads of a segment: order, errors, stopping."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from fresco.errors import Cancelled
from fresco.progress import never_stop
from fresco.propagation.ahead import look_ahead, map_in_order, run_side_by_side


def test_items_come_in_order_and_the_next_is_made_before_it_is_asked_for() -> None:
    made = [threading.Event() for _ in range(4)]

    def items() -> Iterator[int]:
        for number, event in enumerate(made):
            event.set()
            yield number

    for number in look_ahead(items()):
        assert made[min(number + 1, 3)].wait(10)
    assert list(look_ahead([None, 0])) == [None, 0]


def test_what_a_thread_raises_is_raised_where_its_answer_is_taken() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise Cancelled("stop")

    found = look_ahead(items())
    assert next(found) == 1
    with pytest.raises(Cancelled):
        next(found)


@pytest.mark.parametrize("threads", [1, 3])
def test_work_is_answered_in_order(threads: int) -> None:
    assert list(map_in_order(lambda n: n * n, range(20), threads)) == [n * n for n in range(20)]
    with pytest.raises(ZeroDivisionError):
        list(map_in_order(lambda n: 1 // n, [2, 1, 0, 1, 1, 1, 1, 1], threads))


def test_one_side_that_fails_stops_the_other_and_is_what_is_told() -> None:
    begun = threading.Event()

    def fail(check: Callable[[], None]) -> int:
        begun.wait(10)
        raise ValueError("this one")

    def wait_for_ever(check: Callable[[], None]) -> int:
        begun.set()
        while True:
            check()
            threading.Event().wait(0.01)

    for works in ([fail, wait_for_ever], [wait_for_ever, fail]):
        with pytest.raises(ValueError, match="this one"):
            run_side_by_side(works, never_stop, 2)


@pytest.mark.parametrize("threads", [1, 2])
def test_both_sides_answer(threads: int) -> None:
    assert run_side_by_side([lambda _: 1, lambda _: 2], never_stop, threads) == [1, 2]
