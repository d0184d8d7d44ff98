"""Bookmarks: how far a reader has come, kept as the committed offsets of a group without members.

Each offset carries a note. Kafka forgets them 7 days after the last one (`offsets.retention.minutes`).

Owner: the event loop that entered the object.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    NotCoordinatorForGroupError,
)
from aiokafka.protocol.commit import OffsetFetchRequest

from cortex_stream.kafka.commits import Commit, Place, commits_told
from cortex_stream.kafka.connection import connected, connection_arguments, reaching_brokers
from cortex_stream.kafka.reader import Position
from cortex_stream.settings.tree import Settings

_TIMEOUT_S: Final = 30.0  # a commit is tried again for ever; a broker's restart takes 20 s

_ASK_AGAIN_S: Final = 0.2
_NOT_YET: Final = (
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    NotCoordinatorForGroupError,
)


class Bookmark(NamedTuple):
    """An offset to go on from, and what was noted with it."""

    offset: int
    note: str


class Bookmarks:
    """Reads the bookmarks of any group; use it as an async context manager.

    Raises:
        BrokerUnavailable: no broker answers; from every method as well.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._admin: Any = None
        self._opened = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Connect."""
        client = AIOKafkaAdminClient(
            **connection_arguments(self._settings), request_timeout_ms=10_000
        )
        self._admin = await self._opened.enter_async_context(connected(self._settings, client))
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Disconnect."""
        await self._opened.aclose()

    async def groups(self, beginning: str) -> list[str]:
        """Return the names of all groups that begin so, in order; without the prefix."""
        wanted = self._settings.topic(beginning)
        found = await self._patiently(self._admin.list_consumer_groups)
        names = sorted(group[0] for group in found if group[0].startswith(wanted))
        return [beginning + name.removeprefix(wanted) for name in names]

    async def read(self, group: str) -> dict[Position, Bookmark]:
        """Return the bookmarks of a group (without the prefix), by catalogue name and partition."""
        prefix = self._settings.topic("")
        commits = await self._patiently(partial(self._ask, self._settings.topic(group)))
        return {
            (topic.removeprefix(prefix), partition): Bookmark(*commit)
            for (topic, partition), commit in commits.items()
        }

    async def _ask(self, group: str) -> dict[Place, Commit]:
        """Do as `AIOKafkaAdminClient.list_consumer_group_offsets`, which overlooks errors."""
        coordinator = await self._admin.find_coordinator(group)
        request = OffsetFetchRequest(group, None)
        return commits_told(await self._admin._send_request(request, coordinator))  # noqa: SLF001

    async def _patiently(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        """Return the answer; a group that nobody looks after yet has somebody in a moment."""
        with reaching_brokers(self._settings):
            async with asyncio.timeout(_TIMEOUT_S):
                while True:
                    try:
                        return await ask()
                    except _NOT_YET:
                        await asyncio.sleep(_ASK_AGAIN_S)


class BookmarkWriter:
    """Writes bookmarks of one group; use it as an async context manager.

    Raises:
        BrokerUnavailable: no broker answers; from every method as well.
    """

    def __init__(self, settings: Settings, group: str, positions: Iterable[Position]) -> None:
        """Write to `positions`, and to no others, of `group` (without the prefix)."""
        self._settings = settings
        self._group = settings.topic(group)
        self._at = {
            place: TopicPartition(settings.topic(place[0]), place[1]) for place in positions
        }
        self._client: Any = None
        self._opened = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Connect."""
        client = AIOKafkaConsumer(
            **connection_arguments(self._settings), group_id=self._group, enable_auto_commit=False
        )
        self._client = await self._opened.enter_async_context(connected(self._settings, client))
        self._client.assign(list(self._at.values()))
        self._client.pause(*self._at.values())  # it commits only, and reads nothing
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Disconnect."""
        await self._opened.aclose()

    async def write(self, bookmarks: Mapping[Position, Bookmark]) -> None:
        """Replace the bookmarks of the given positions; return once they are durable."""
        commits = {self._at[place]: tuple(bookmark) for place, bookmark in bookmarks.items()}
        with reaching_brokers(self._settings):
            async with asyncio.timeout(_TIMEOUT_S):
                await self._client.commit(commits)
