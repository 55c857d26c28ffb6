"""The same done to many items by processes that share what this one holds, for plain Python, which threads slow down.

Workers are forked, so they see the task and all that it refers to without any of it being sent; only items and results
are. They must not touch an accelerator, which a forked process cannot use.
"""

import gc
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

_task: Any = None
"""What this worker was forked to do."""


def in_order(task: Callable[[Item], Result], items: Iterable[Item], n_workers: int) -> Iterator[Result]:
    """Yield what the task makes of every item, in the items' order, with a few items under way at a time.

    Args:
        task: what to do; an exception of its comes up here.
        items: made one at a time, here, as workers become free.
        n_workers: 1, or a system that cannot fork, does everything in this process.
    """
    if n_workers < 2 or "fork" not in multiprocessing.get_all_start_methods():
        yield from map(task, items)
        return
    pool = ProcessPoolExecutor(n_workers, multiprocessing.get_context("fork"), initializer=_begin, initargs=(task,))
    under_way: deque[Future[Result]] = deque()
    try:
        for item in items:
            under_way.append(pool.submit(_do, item))
            if len(under_way) > n_workers:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def usable_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def without_cycle_search() -> Iterator[None]:
    """Keep Python from searching for cycles: among millions of lists without any it takes as long as making them."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _begin(task: Any) -> None:
    global _task
    _task = task
    # The threads of the process that this one was forked from are not here.
    torch.set_num_threads(1)


def _do(item: Any) -> Any:
    return _task(item)
