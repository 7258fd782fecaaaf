"""Work on many things by several processes, which end when they are interrupted."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

from threadpoolctl import threadpool_limits

from bob.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")

_FEW = 16  # items that one process is done with before others would have started
_CHUNK = 4  # items given to a process at a time


def each(
    function: Callable[[Item], Result], items: Sequence[Item], jobs: int, advance: Callable[[int], None]
) -> Iterator[Result]:
    """Apply a function to items that each take a moment, in as many processes as are worth starting, in order.

    Raises:
        UserError: If a process dies.
    """
    jobs = min(jobs, len(items) // _FEW)
    if jobs < 2:
        for item in items:
            yield function(item)
            advance(1)
        return
    chunks = [items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK)]
    with _workers(jobs) as pool:
        with _interrupts_held():  # what starts now inherits it, so that Ctrl-C reaches this process alone
            futures = [pool.submit(_all, function, chunk) for chunk in chunks]
        for future in futures:
            done = future.result()
            advance(len(done))
            yield from done


def _all(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    return [function(item) for item in items]


@contextmanager
def _workers(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that end when the block does, also when it is interrupted.

    Raises:
        UserError: If one dies.
    """
    # Started afresh: a fork would copy locks that the threads of a progress bar or of a library may hold.
    context = multiprocessing.get_context("spawn")
    # Each with one thread: the processes have all cores already.
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=threadpool_limits, initargs=(1,))
    try:
        yield pool
    except BrokenProcessPool as error:
        hint = "Free some; `bob results verify` and `merge` take --jobs 1."
        raise UserError("A process that read records died, perhaps of too little memory.", hint) from error
    except BaseException:
        for child in multiprocessing.active_children():
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
