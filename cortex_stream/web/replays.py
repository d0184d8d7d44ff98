"""The page of replays: what runs, what is finished, how far each is.

Read from Kafka, at most once in five seconds however many people look.

Owner: the event loop that serves the pages.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from aiohttp import web

from cortex_stream.clock import Clock
from cortex_stream.errors import BrokerUnavailable
from cortex_stream.replay.journal import Condition, Standing, find_replays
from cortex_stream.settings.sections import WebSettings
from cortex_stream.settings.tree import Settings
from cortex_stream.web.figures import share
from cortex_stream.web.guard import error_response, guarded, json_response
from cortex_stream.web.html import Style, environment

_REFRESH_S: Final = 5
_READ_TIMEOUT_S: Final = 5.0
_STYLE: Final = Style.of("status.css")

Find = Callable[[], Awaitable[Sequence[Standing]]]


class ReplayBoard:
    """Remembers for a while what `find` found."""

    def __init__(self, find: Find, clock: Clock) -> None:
        self._find = find
        self._clock = clock
        self._found: Sequence[Standing] = ()
        self._fresh_until_s = clock.monotonic_s()
        self._reading = asyncio.Lock()

    async def rows(self) -> list[dict[str, Any]]:
        """Return the replays, newest first, as the page shows them.

        Raises:
            BrokerUnavailable: Kafka does not answer.
        """
        async with self._reading:
            if self._clock.monotonic_s() >= self._fresh_until_s:
                try:
                    async with asyncio.timeout(_READ_TIMEOUT_S):
                        self._found = await self._find()
                except TimeoutError as error:
                    raise BrokerUnavailable("reading the replays: Kafka does not answer") from error
                self._fresh_until_s = self._clock.monotonic_s() + _REFRESH_S
        return [self._row(each) for each in self._found]

    def _row(self, standing: Standing) -> dict[str, Any]:
        plan, now_unix_ms = standing.plan, self._clock.unix_ms()
        condition = standing.condition(now_unix_ms=now_unix_ms)
        return {
            "id": standing.replay_id,
            "state": condition.value,
            "topic": plan.topic,
            "model": plan.model,
            "publish_to": plan.publish_to,
            "done_offsets": standing.done_offsets,
            "offsets": plan.offsets,
            "done": share(standing.done_offsets, plan.offsets),
            "records": standing.put_back,
            "per_s": standing.per_s if condition is Condition.RUNNING else 0.0,
            "age_s": max(0.0, (now_unix_ms - plan.started_unix_ms) / 1000),
        }


def replay_routes(settings: Settings, clock: Clock) -> list[web.RouteDef]:
    """Return the page and the same as JSON, guarded."""
    return board_routes(ReplayBoard(lambda: find_replays(settings), clock), settings.web)


def board_routes(board: ReplayBoard, settings: WebSettings) -> list[web.RouteDef]:
    """Return the routes that show `board`."""
    page = environment().get_template("replays.html")

    async def replays_page(_: web.Request) -> web.Response:
        problem, rows = None, []
        try:
            rows = await board.rows()
        except BrokerUnavailable as error:
            problem = str(error)
        html = page.render(rows=rows, problem=problem, refresh_s=_REFRESH_S, css=_STYLE.css)
        return _STYLE.response(html, status=503 if problem else 200)

    async def replays_json(_: web.Request) -> web.Response:
        try:
            return json_response({"replays": await board.rows()})
        except BrokerUnavailable as error:
            return error_response(503, error.code, str(error))

    return [
        web.route("*", "/replays", guarded(replays_page, settings)),
        web.route("*", "/replays.json", guarded(replays_json, settings)),
    ]
