import socket
import threading
from collections.abc import Iterator

import pytest

from cortex_stream.devstack import ports


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_a_port_that_somebody_listens_on_is_not_free(taken_port: int) -> None:
    assert not ports.is_free(taken_port)


def test_the_preferred_port_is_chosen_when_it_is_free() -> None:
    free = ports.choose(preferred=None, avoid=())

    assert ports.choose(preferred=free, avoid=()) == free


def test_a_taken_preferred_port_is_passed_over(taken_port: int) -> None:
    assert ports.choose(preferred=taken_port, avoid=()) != taken_port


def test_a_port_to_avoid_is_passed_over() -> None:
    free = ports.choose(preferred=None, avoid=())

    assert ports.choose(preferred=free, avoid={free}) != free


def test_chosen_ports_are_never_local_ports_of_outgoing_connections() -> None:
    chosen = {ports.choose(preferred=None, avoid=()) for _ in range(20)}

    assert max(chosen) < 32_768  # Linux; the others begin at 49152


def test_a_port_that_stays_taken_does_not_become_free(taken_port: int) -> None:
    assert not ports.becomes_free(taken_port, within_s=0.0)


def test_a_port_that_is_released_becomes_free() -> None:
    with socket.socket() as holder:
        holder.bind((ports.HOST, 0))
        holder.listen()
        port = holder.getsockname()[1]
        released = threading.Timer(0.1, holder.close)
        released.start()

        assert ports.becomes_free(port, within_s=10.0)
        released.join()
