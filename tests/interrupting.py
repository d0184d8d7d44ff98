"""Interrupts a runner from another thread, again and again: no single time is sure to be the right one."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from cortex_stream.inference.runner import Runner


@contextmanager
def interrupting(runner: Runner) -> Iterator[None]:
    """Interrupt `runner` every millisecond until the block has ended."""
    ended = threading.Event()

    def interrupt() -> None:
        while not ended.wait(0.001):
            runner.interrupt()

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
