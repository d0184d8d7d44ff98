"""A TCP proxy that makes a network bad: slow, narrow, silent, cut off."""

import asyncio
import random
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, Self

Direction = Literal["up", "down"]  # towards the server, towards the client
_CHUNK_BYTES = 64 << 10
_LOOK_AGAIN_S = 0.02
_IN_FLIGHT_CHUNKS = 256
_RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Weather:
    """What happens to bytes from now on.

    Attributes:
        latency_s, jitter_s: each piece comes so much later, and up to so much more.
        bytes_per_s: of each connection and direction.
        silent: directions in which nothing arrives while the connection stays open.
        closed_after_bytes: a connection is cut once so many bytes went towards the client.
        refusing: new connections are closed at once.
    """

    latency_s: float = 0.0
    jitter_s: float = 0.0
    bytes_per_s: float | None = None
    silent: frozenset[Direction] = frozenset()
    closed_after_bytes: int | None = None
    refusing: bool = False


FAIR = Weather()
DOWN = Weather(refusing=True)
HALF_OPEN = Weather(silent=frozenset({"up", "down"}))


class Proxy:
    """Listens on `port` and leads to `server_port`, both on 127.0.0.1. Set `weather` at any time."""

    def __init__(self, port: int, server_port: int, *, seed: int = 0) -> None:
        self.weather = FAIR
        self.connections = 0
        """How many were ever accepted."""
        self._port = port
        self._server_port = server_port
        self._draw = random.Random(seed)  # noqa: S311 (a network, not a secret)
        self._open: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.reset_all()
        await asyncio.sleep(0)

    @property
    def open_connections(self) -> int:
        """How many clients are connected."""
        return len(self._open) // 2

    def reset_all(self) -> None:
        """Answer every connection with RST."""
        for writer in list(self._open):
            raw = writer.get_extra_info("socket")
            with suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.weather.refusing:
            writer.transport.abort()
            return
        try:
            there, away = await asyncio.open_connection("127.0.0.1", self._server_port)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, away}
        self._open |= ends
        try:
            with suppress(OSError, ExceptionGroup):
                async with asyncio.TaskGroup() as pumps:
                    pumps.create_task(self._pump("up", reader, away, ends))
                    pumps.create_task(self._pump("down", there, writer, ends))
        finally:
            self._open -= ends
            for each in ends:
                each.transport.abort()

    async def _pump(
        self,
        direction: Direction,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        ends: set[asyncio.StreamWriter],
    ) -> None:
        """Carry bytes one way; end both ways when the sender ends."""
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_IN_FLIGHT_CHUNKS)
        async with asyncio.TaskGroup() as both:
            late = both.create_task(self._let_out(direction, pieces, writer))
            now_s: Callable[[], float] = asyncio.get_running_loop().time
            carried = 0
            while data := await self._read(reader):
                weather = self.weather
                delay_s = weather.latency_s + self._draw.uniform(0, weather.jitter_s)
                await pieces.put((now_s() + delay_s, data))
                carried += len(data)
                limit = weather.closed_after_bytes
                if direction == "down" and limit is not None and carried >= limit:
                    break
            late.cancel()
        for each in ends:
            each.transport.abort()

    async def _read(self, reader: asyncio.StreamReader) -> bytes:
        try:
            return await reader.read(_CHUNK_BYTES)
        except OSError:
            return b""

    async def _let_out(
        self,
        direction: Direction,
        pieces: "asyncio.Queue[tuple[float, bytes]]",
        writer: asyncio.StreamWriter,
    ) -> None:
        """Write each piece when it is due. What goes out late delays what follows, as on a wire."""
        now_s = asyncio.get_running_loop().time
        with suppress(OSError):
            while True:
                due_s, data = await pieces.get()
                await asyncio.sleep(max(0.0, due_s - now_s()))
                while direction in self.weather.silent:
                    await asyncio.sleep(_LOOK_AGAIN_S)
                if self.weather.bytes_per_s is not None:
                    await asyncio.sleep(len(data) / self.weather.bytes_per_s)
                writer.write(data)
                await writer.drain()
