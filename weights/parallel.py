"""Bounded parallel work: at most so many threads, and the first failure stops what has not begun."""

from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Self, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def for_each(work: Callable[[Item], Result], items: Iterable[Item], threads: int) -> list[Result]:
    """The results in the order of the items. Returns or raises when no work is running any more."""
    with Lanes(threads) as lanes:
        return lanes.for_each(work, items)


class Lanes:
    """So many threads that several callers share, none of which may itself run in one of them."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="weights")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def for_each(self, work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """The results in the order of the items. Returns or raises when none of this work is running any more."""
        futures = [self._pool.submit(work, item) for item in items]
        try:
            done, rest = wait(futures, return_when=FIRST_EXCEPTION)
        except BaseException:
            _end(futures)
            raise
        if rest:
            _end(rest)
        for future in done:
            future.result()
        return [future.result() for future in futures]


def _end(futures: Iterable[Future[Result]]) -> None:
    wait([future for future in futures if not future.cancel()])
