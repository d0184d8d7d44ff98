"""The pages of dead letters: browse, show, and, behind the token, mend and redrive.

Kafka is read in a thread with an event loop of its own, by one page at a time and within seconds:
decoding what others wrote must not hold up the worker's loop.
"""

import asyncio
import socket
from collections.abc import Coroutine, Mapping
from typing import Any, Final, TypeVar
from urllib.parse import urlencode

import jinja2
from aiohttp import web

from cortex_stream.clock import Clock, SystemClock
from cortex_stream.dead_letters.filters import LetterFilter, moment_ms
from cortex_stream.dead_letters.letter import Letter, Place
from cortex_stream.dead_letters.letterbox import (
    Window,
    read_letter_at,
    read_newest,
    read_turns,
    with_payload,
)
from cortex_stream.dead_letters.mend import mended
from cortex_stream.dead_letters.redrive import Redrive, Refusal, Turns, decide_redrive, letter_id
from cortex_stream.dead_letters.redriver import Redriver
from cortex_stream.dead_letters.view import moment, readable, redriven
from cortex_stream.errors import BrokerUnavailable, CortexError, TopicsMismatch
from cortex_stream.kafka.producer import KafkaProducer
from cortex_stream.settings.tree import Settings
from cortex_stream.web.guard import TOKEN_FIELD, Form, FormActions, guarded
from cortex_stream.web.html import Style, environment

MOST_LETTERS: Final = 100
MOST_SHOWN_BYTES: Final = 64 << 10
"""Of a payload, on the page. As a form it may be three times as large, and aiohttp takes 1 MiB."""
_TIMEOUT_S: Final = 10.0
_STYLE: Final = Style.of("status.css", "dead_letters.css", forms=True)
# Without it a browser calls the origin of the form `null`, which is refused.
_REFERRER_POLICY: Final = "same-origin"
_FILTERS: Final = ("code", "type", "tenant", "since")
_NO_TURNS: Final = Turns()

R = TypeVar("R")


def dead_letter_routes(settings: Settings) -> list[web.RouteDef]:
    """Return the pages, guarded; all methods arrive at the guard."""
    pages = _Pages(settings, SystemClock())
    form = FormActions(carry_out=pages.redrive, show_again=pages.show_again)
    one = "/dead-letters/{partition:[0-9]{1,9}}/{offset:[0-9]{1,15}}"
    return [
        web.route("*", "/dead-letters", guarded(pages.browse, settings.web)),
        web.route("*", one, guarded(pages.show, settings.web, form=form)),
    ]


class _Pages:
    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._prefix = settings.kafka.topic_prefix
        templates = environment()
        self._list = templates.get_template("dead_letters.html")
        self._one = templates.get_template("dead_letter.html")
        self._reading = asyncio.Lock()

    async def browse(self, request: web.Request) -> web.Response:
        """Show the newest letters, or those before `before`, as far as they match the filters."""
        asked = {name: request.query.get(name, "").strip() for name in _FILTERS}
        try:
            wanted = self._filter(asked)
            before = _parse_offsets(request.query.get("before", ""))
            window, turns = await self._read(self._window(before))
        except (ValueError, CortexError, TimeoutError) as error:
            return self._render(
                self._list, status=_status(error), asked=asked, problem=_text(error)
            )
        older = None
        if window.older is not None:
            offsets = ",".join(f"{part}:{offset}" for part, offset in window.older.items())
            older = "?" + urlencode({**_given(asked), "before": offsets})
        return self._render(
            self._list,
            asked=asked,
            problem=None,
            rows=[
                (letter, moment(letter.written_ms), redriven(self._turns(letter, turns)))
                for letter in window.letters
                if wanted.matches(letter)
            ],
            looked_at=len(window.letters),
            older=older,
            newest="?" + urlencode(_given(asked)) if before else None,
        )

    async def show(self, request: web.Request) -> web.Response:
        """Show one letter, and the form if there is a token."""
        return await self._show(request)

    async def show_again(
        self, request: web.Request, form: Form, problem: str, status: int
    ) -> web.Response:
        """Show the letter with the form as it was filled in."""
        return await self._show(request, form=form, problem=problem, status=status)

    async def redrive(self, request: web.Request, form: Form) -> web.Response:
        """Send the letter as it is, or with the payload of the form once a worker would accept it."""
        edited = form.get("send") == "edited"
        try:
            sent = await self._read(self._redrive(_place(request), form, edited=edited))
        except (CortexError, TimeoutError) as error:
            return await self._show(request, form=form, problem=_text(error), status=_status(error))
        if isinstance(sent, Refusal):
            return await self._show(request, form=form, problem=sent.text, status=409)
        return await self._show(request, sent=sent)

    async def _show(
        self,
        request: web.Request,
        *,
        form: Form | None = None,
        problem: str | None = None,
        sent: Redrive | None = None,
        status: int = 200,
    ) -> web.Response:
        place = _place(request)
        try:
            letter, turns, missing = await self._read(self._letter(place))
        except (CortexError, TimeoutError) as error:
            return self._render(
                self._one, status=_status(error), place=place, letter=None, problem=_text(error)
            )
        payload = readable((letter.value or b"")[:MOST_SHOWN_BYTES], parse=not letter.harmful)
        whole = len(letter.value or b"") <= MOST_SHOWN_BYTES and not letter.truncated
        return self._render(
            self._one,
            status=status,
            place=place,
            letter=letter,
            problem=problem,
            missing=missing,
            sent=sent,
            written=moment(letter.written_ms),
            first=moment(letter.first_ms),
            last=moment(letter.last_ms),
            redriven=redriven(turns),
            needs_again=bool(turns.done and not turns.cut),
            key=readable((letter.key or b"")[:MOST_SHOWN_BYTES], parse=False),
            headers=[
                (name, readable((data or b"")[:MOST_SHOWN_BYTES], parse=False))
                for name, data in letter.original_headers
            ],
            payload=payload,
            whole=whole,
            edited=payload if form is None else form.get("payload", payload),
            token_set=bool(self._settings.web.token),
            token_field=TOKEN_FIELD,
        )

    def _filter(self, asked: Mapping[str, str]) -> LetterFilter:
        since = asked["since"]
        return LetterFilter(
            codes=_one_of(asked["code"]),
            types=_one_of(asked["type"]),
            tenants=_one_of(asked["tenant"]),
            since_ms=moment_ms(since, now_unix_ms=self._clock.unix_ms()) if since else None,
        )

    def _turns(self, letter: Letter, turns: Mapping[str, Turns]) -> Turns:
        return turns.get(letter_id(letter, prefix=self._prefix), _NO_TURNS)

    def _render(self, page: jinja2.Template, *, status: int = 200, **shown: Any) -> web.Response:
        response = _STYLE.response(page.render(css=_STYLE.css, **shown), status=status)
        response.headers["Referrer-Policy"] = _REFERRER_POLICY
        return response

    async def _read(self, reading: Coroutine[Any, Any, R]) -> R:
        """Return what `reading` finds.

        Raises:
            TimeoutError: it takes too long.
        """

        async def in_time() -> R:
            async with asyncio.timeout(_TIMEOUT_S):
                return await reading

        async with self._reading:
            return await asyncio.to_thread(asyncio.run, in_time())

    # ---- in the thread ---------------------------------------------------------------------------

    async def _window(self, before: Mapping[int, int]) -> tuple[Window, dict[str, Turns]]:
        window = await read_newest(self._settings, before=before, most_letters=MOST_LETTERS)
        if not window.letters:
            return window, {}
        oldest_ms = min(letter.written_ms for letter in window.letters)
        return window, await read_turns(self._settings, since_ms=oldest_ms)

    async def _letter(self, place: Place) -> tuple[Letter, Turns, str | None]:
        """Return the letter with its payload, its turns, and why the payload is missing."""
        letter = await read_letter_at(self._settings, place)
        turns = self._turns(letter, await read_turns(self._settings, since_ms=letter.written_ms))
        try:
            return await with_payload(self._settings, letter), turns, None
        except CortexError as error:
            return letter, turns, str(error)

    async def _redrive(self, place: Place, form: Form, *, edited: bool) -> Redrive | Refusal:
        letter = await read_letter_at(self._settings, place)
        turns = self._turns(letter, await read_turns(self._settings, since_ms=letter.written_ms))
        letter = await with_payload(self._settings, letter)
        if edited:
            payload = form.get("payload", "").replace("\r\n", "\n").encode()
            letter = mended(letter, payload, limits=self._settings.limits)
        decision = decide_redrive(
            letter, turns, prefix=self._prefix, again="again" in form, edited=edited
        )
        if isinstance(decision, Refusal):
            return decision
        principal = f"web-token@{socket.gethostname()}"
        async with KafkaProducer(self._settings, delivery_timeout_s=_TIMEOUT_S) as producer:
            redriver = Redriver(producer, principal=principal, clock=self._clock, rate_per_s=1.0)
            await redriver.add(decision)
        return decision


def _place(request: web.Request) -> Place:
    return Place(int(request.match_info["partition"]), int(request.match_info["offset"]))


def _parse_offsets(text: str) -> dict[int, int]:
    """Return the offsets by partition in `0:12,1:4`.

    Raises:
        ValueError: the text is none of ours.
    """
    pairs = [pair.split(":") for pair in text.split(",") if pair]
    return {int(part): int(offset) for part, offset in pairs}


def _one_of(value: str) -> frozenset[str]:
    return frozenset({value} if value else ())


def _given(asked: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in asked.items() if value}


def _status(error: Exception) -> int:
    match error:
        case BrokerUnavailable() | TopicsMismatch() | TimeoutError():
            return 503
        case CortexError(code="operator"):
            return 404
        case CortexError():
            return 422
        case _:
            return 400


def _text(error: Exception) -> str:
    return str(error) or f"Kafka did not answer within {_TIMEOUT_S:g} s."
