import os
import signal
import threading
from collections.abc import Iterator

import pytest

from cortex_stream.interrupts import deferred_signals


@pytest.fixture
def raising() -> Iterator[None]:
    """Let SIGTERM raise, as commands do."""

    def interrupt(number: int, _frame: object) -> None:
        raise KeyboardInterrupt(number)

    before = signal.signal(signal.SIGTERM, interrupt)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("raising")
def test_a_signal_waits_until_the_block_is_done() -> None:
    done: list[bool] = []

    def interrupted() -> None:
        with deferred_signals() as caught:
            os.kill(os.getpid(), signal.SIGTERM)
            done.append(caught == [signal.SIGTERM])

    with pytest.raises(KeyboardInterrupt):
        interrupted()

    assert done == [True]


@pytest.mark.usefixtures("raising")
def test_without_a_signal_everything_is_as_before() -> None:
    before = signal.getsignal(signal.SIGTERM)

    with deferred_signals():
        assert signal.getsignal(signal.SIGTERM) is not before

    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.usefixtures("raising")
def test_another_thread_has_nothing_to_defer() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen: list[object] = []

    def elsewhere() -> None:
        with deferred_signals():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()

    assert seen == [before]
