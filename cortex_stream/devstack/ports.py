"""TCP ports on 127.0.0.1."""

import secrets
import socket
from collections.abc import Collection
from time import sleep
from typing import Final

from cortex_stream.clock import SystemClock
from cortex_stream.errors import StackFailed

HOST: Final = "127.0.0.1"
# Below the range from which systems draw the local ports of outgoing connections. A client that
# retries a port of that range while the service is down can connect to itself.
_OURS: Final = range(20_000, 30_000)
_TRIES: Final = 200
_LOOK_AGAIN_S: Final = 0.05


def is_free(port: int) -> bool:
    """Tell whether a service could listen on the port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen()
        except OSError:
            return False
    return True


def becomes_free(port: int, *, within_s: float) -> bool:
    """Wait until a service could listen on the port; return False when it stays taken.

    The system keeps the port of a killed process until it has taken all of it apart.
    """
    clock = SystemClock()
    give_up_s = clock.monotonic_s() + within_s
    while not is_free(port):
        if clock.monotonic_s() > give_up_s:
            return False
        sleep(_LOOK_AGAIN_S)
    return True


def choose(*, preferred: int | None, avoid: Collection[int]) -> int:
    """Return a free port that is not in `avoid`: the preferred one if possible."""
    drawn = (secrets.choice(_OURS) for _ in range(_TRIES))
    for port in (preferred, *drawn):
        if port is not None and port not in avoid and is_free(port):
            return port
    raise StackFailed(f"looking for a free port from {_OURS.start} to {_OURS.stop}: none is free")
