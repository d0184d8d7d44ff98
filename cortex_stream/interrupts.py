"""Signals that wait until what must not be cut in two is done.

A handler that raises does so between any two steps of the main thread: a process may have been
started and nobody know it, an object be half made. Blocking signals does not help, since the kernel
then gives them to another thread of the process, for which Python runs the same handler.

Owner: the main thread; elsewhere no handler ever runs.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What ends a command that a person or a supervisor has started."""


@contextmanager
def deferred_signals() -> Iterator[list[int]]:
    """Note signals while the block runs; afterwards let the first have its usual effect.

    Yields the numbers noted so far, for a block that ends early because of them.
    """
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    before = {
        each: signal.signal(each, lambda number, _: caught.append(number)) for each in SIGNALS
    }
    try:
        yield caught
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        if caught:
            signal.raise_signal(caught[0])
