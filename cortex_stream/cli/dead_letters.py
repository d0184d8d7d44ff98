"""`cortex-stream dead-letters`: find failed records, read them, and put their requests back.

Exit codes: 0 done; 1 failed, or a letter that was named is left alone; 2 wrong usage.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, BinaryIO, Final

import orjson
import typer

from cortex_stream.cli.dead_letter_view import letters_table, show_letter
from cortex_stream.cli.editor import edited
from cortex_stream.cli.output import console, print_json, show_error, show_hint
from cortex_stream.cli.principal import principal
from cortex_stream.cli.redrive_run import RedriveRun
from cortex_stream.clock import SystemClock
from cortex_stream.dead_letters.filters import LetterFilter, moment_ms
from cortex_stream.dead_letters.letter import Letter, Place, parse_place
from cortex_stream.dead_letters.letterbox import (
    read_letter_at,
    read_letters,
    read_turns,
    with_payload,
)
from cortex_stream.dead_letters.mend import mended
from cortex_stream.dead_letters.redrive import (
    Reason,
    Refusal,
    Turns,
    decide_redrive,
    letter_id,
)
from cortex_stream.dead_letters.view import described, exported, readable
from cortex_stream.errors import BrokerUnavailable, OperatorError, Refused
from cortex_stream.settings.tree import Settings, load_settings

dead_letters_app = typer.Typer(
    help="Look at dead letters, and put their requests back.", no_args_is_help=True
)

MOST_AT_ONCE: Final = 10_000
"""What one redrive takes unless it is told --all: a mistake stays of a size that can be mended."""
_LEFT_ALONE: Final = 1
_NO_TURNS: Final = Turns()
_MENDED_BY_EDITING: Final = (Reason.NO_PAYLOAD, Reason.TOO_LARGE)

Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="LETTER", help="As 0:42; without any the options choose."),
]
Code = Annotated[list[str] | None, typer.Option(help="Only this error code; repeatable.")]
Type = Annotated[
    list[str] | None, typer.Option("--type", help="Only this request type; repeatable.")
]
Tenant = Annotated[list[str] | None, typer.Option(help="Only this tenant; repeatable.")]
Topic = Annotated[list[str] | None, typer.Option(help="Only from this topic; repeatable.")]
Since = Annotated[
    str | None, typer.Option(help="Written since: 90s, 15m, 2h, 7d ago, or a time in UTC.")
]
Until = Annotated[str | None, typer.Option(help="Written before: as --since.")]
Limit = Annotated[int | None, typer.Option(min=1, help="At most so many, the oldest first.")]


@dead_letters_app.command("list")
def list_letters(
    *,
    code: Code = None,
    request_type: Type = None,
    tenant: Tenant = None,
    topic: Topic = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest first.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Show the dead letters that there are, the newest first."""
    settings = load_settings()
    wanted = _filter(
        settings,
        code=code,
        request_type=request_type,
        tenant=tenant,
        topic=topic,
        since=since,
        until=until,
    )
    letters, matched, turns = asyncio.run(_newest(settings, wanted, limit))
    rows = [(letter, _turns_of(letter, turns, settings)) for letter in letters]
    if as_json:
        for row in rows:
            print_json(described(*row))
        return
    stdout = console()
    if not rows:
        stdout.print("no dead letters", style="dim")
        return
    stdout.print(letters_table(rows, columns=stdout.width))
    if matched > len(rows):
        stdout.print(f"{matched - len(rows)} older ones: --limit")


@dead_letters_app.command("show")
def show(
    name: Annotated[str, typer.Argument(metavar="LETTER", help="As `list` names it: 0:42.")],
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object, the record's bytes in base64.")
    ] = False,
) -> None:
    """Show all of one letter: what went wrong, the record, its payload, how to put it back."""
    settings = load_settings()
    letter, turns, missing = asyncio.run(_one(settings, _place(name)))
    if as_json:
        print_json(exported(letter, turns))
    else:
        show_letter(console(), letter, turns, missing=missing)


@dead_letters_app.command("export")
def export(
    names: Names = None,
    *,
    code: Code = None,
    request_type: Type = None,
    tenant: Tenant = None,
    topic: Topic = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="A file; `-` is standard output.")
    ] = Path("-"),
) -> None:
    """Write letters as JSON lines: what went wrong, and key, value and headers in base64.

    What was too large to be copied is read from where it came from; its value is null where it is
    kept no longer.
    """
    settings = load_settings()
    wanted = _filter(
        settings,
        code=code,
        request_type=request_type,
        tenant=tenant,
        topic=topic,
        since=since,
        until=until,
    )
    letters = _chosen(settings, [_place(name) for name in names or ()], wanted, limit)
    if output == Path("-"):
        asyncio.run(_export(settings, letters, sys.stdout.buffer))
        return
    if output.exists():
        raise OperatorError(
            f"writing {output}: File exists", repair="name a file that does not exist yet"
        )
    part = output.with_name(f"{output.name}.part")  # what was cut off must not look whole
    try:
        with part.open("wb") as file:
            written = asyncio.run(_export(settings, letters, file))
        part.rename(output)
    except OSError as error:
        raise OperatorError(f"writing {output}: {error.strerror}") from error
    console().print(f"{written} letters written to {output}", markup=False, soft_wrap=True)


@dead_letters_app.command("redrive")
def redrive(
    names: Names = None,
    *,
    code: Code = None,
    request_type: Type = None,
    tenant: Tenant = None,
    topic: Topic = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = None,
    everything: Annotated[
        bool, typer.Option("--all", help=f"All that match, even more than {MOST_AT_ONCE}.")
    ] = False,
    edit: Annotated[
        bool, typer.Option("--edit", help="Mend the payload of one letter in $EDITOR first.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Also what was redriven, or failed after 3 redrives.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Send. Without it nothing is changed.")
    ] = False,
    rate: Annotated[float, typer.Option(min=0.1, max=1000, help="Letters a second.")] = 100.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a letter.")] = False,
) -> None:
    """Put the requests of dead letters back: the same bytes, with an outcome of their own.

    Says what would be sent; `--yes` sends it. A redrive that was interrupted goes on when the
    command is repeated: what was sent is left alone.

    Exit codes: 0 done; 1 failed, or a letter that was named is left alone.

    cortex-stream dead-letters redrive 0:42 --edit

    cortex-stream dead-letters redrive --code stuck_run --since 2h --yes
    """
    settings = load_settings()
    places = [_place(name) for name in names or ()]
    if edit and len(places) != 1:
        raise typer.BadParameter("needs one letter, by its name", param_hint="--edit")
    if not (places or everything or any((code, request_type, tenant, topic, since, until, limit))):
        raise typer.BadParameter("name letters, choose by an option, or --all", param_hint="LETTER")
    wanted = _filter(
        settings,
        code=code,
        request_type=request_type,
        tenant=tenant,
        topic=topic,
        since=since,
        until=until,
    )
    most = limit if everything else min(limit or MOST_AT_ONCE, MOST_AT_ONCE)
    if edit:
        letters = _alone(_mended(settings, _editable(settings, places[0], again=again)))
        yes = yes or typer.confirm("Send it?", err=True)
    else:
        letters = _chosen(settings, places, wanted, None)
    run = RedriveRun(settings, send=yes, again=again, edited=edit, as_json=as_json)
    asyncio.run(run.over(letters, most=most, rate_per_s=rate, principal=principal()))
    if not as_json:
        run.show(console())
        if most == MOST_AT_ONCE and run.taken == most:
            console().print(
                f"{MOST_AT_ONCE} are the most at once: repeat it for the rest, or --all"
            )
    if places and run.refusals:
        raise typer.Exit(_LEFT_ALONE)


def _filter(
    settings: Settings,
    *,
    code: Sequence[str] | None,
    request_type: Sequence[str] | None,
    tenant: Sequence[str] | None,
    topic: Sequence[str] | None,
    since: str | None,
    until: str | None,
) -> LetterFilter:
    return LetterFilter(
        codes=frozenset(code or ()),
        types=frozenset(request_type or ()),
        tenants=frozenset(tenant or ()),
        topics=frozenset(each for name in topic or () for each in (name, settings.topic(name))),
        since_ms=_moment(since, "--since"),
        until_ms=_moment(until, "--until"),
    )


def _moment(text: str | None, option: str) -> int | None:
    try:
        return None if text is None else moment_ms(text, now_unix_ms=SystemClock().unix_ms())
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error


def _place(name: str) -> Place:
    try:
        return parse_place(name)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="LETTER") from error


def _turns_of(letter: Letter, turns: dict[str, Turns], settings: Settings) -> Turns:
    return turns.get(letter_id(letter, prefix=settings.kafka.topic_prefix), _NO_TURNS)


def _editable(settings: Settings, place: Place, *, again: bool) -> Letter:
    """Return the letter that a person is about to edit; refuse first what would be refused then."""
    letter, turns, missing = asyncio.run(_one(settings, place))
    decided = decide_redrive(
        letter, turns, prefix=settings.kafka.topic_prefix, again=again, edited=True
    )
    if isinstance(decided, Refusal) and decided.reason not in _MENDED_BY_EDITING:
        raise OperatorError(f"editing dead letter {place}: {decided.text}")
    if missing is not None:
        show_hint(f"its payload is not there: {missing}")
    return letter


def _mended(settings: Settings, letter: Letter) -> Letter:
    """Return the letter with the payload that the user's editor gives it, once it is valid."""
    original = text = readable(letter.value, parse=not letter.harmful)
    while True:
        text = edited(text).strip()
        if text == original.strip():
            raise OperatorError(
                f"editing dead letter {letter.place}: nothing was changed",
                repair=f"send the original: cortex-stream dead-letters redrive {letter.place} --yes",
            )
        try:
            return mended(letter, text.encode(), limits=settings.limits)
        except Refused as error:
            show_error(error)
        if not typer.confirm("Edit it again?", default=True, err=True):
            raise typer.Exit(_LEFT_ALONE)


async def _alone(letter: Letter) -> AsyncIterator[Letter]:
    yield letter


async def _chosen(
    settings: Settings, places: Sequence[Place], wanted: LetterFilter, limit: int | None
) -> AsyncIterator[Letter]:
    """Yield the named letters, or those that match."""
    for place in places:
        yield await read_letter_at(settings, place)
    if places:
        return
    count = 0
    async with aclosing(read_letters(settings, wanted)) as letters:
        async for letter in letters:
            yield letter
            count += 1
            if count == limit:
                return


async def _newest(
    settings: Settings, wanted: LetterFilter, limit: int
) -> tuple[list[Letter], int, dict[str, Turns]]:
    """Return the newest letters that match, how many match in all, and the turns of letters."""
    newest: list[Letter] = []
    matched = 0

    def cut() -> None:
        newest.sort(key=lambda letter: (letter.written_ms, letter.place), reverse=True)
        del newest[limit:]

    async for letter in read_letters(settings, wanted):
        newest.append(letter.without_payload())
        matched += 1
        if len(newest) > 2 * limit:
            cut()
    cut()
    return newest, matched, await read_turns(settings, since_ms=wanted.since_ms)


async def _one(settings: Settings, place: Place) -> tuple[Letter, Turns, str | None]:
    """Return the letter with its payload, its turns, and why the payload is missing if it is."""
    letter = await read_letter_at(settings, place)
    turns = _turns_of(letter, await read_turns(settings, since_ms=letter.written_ms), settings)
    try:
        return await with_payload(settings, letter), turns, None
    except OperatorError as error:
        return letter, turns, str(error)


async def _export(settings: Settings, letters: AsyncIterator[Letter], output: BinaryIO) -> int:
    """Write the letters; return how many there were."""
    turns, written = await read_turns(settings), 0
    async for letter in letters:
        try:
            whole = await with_payload(settings, letter)
        except BrokerUnavailable:  # not gone: a backup without it would look as if it were
            raise
        except OperatorError:
            whole = letter
        line = exported(whole, _turns_of(letter, turns, settings))
        output.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
        written += 1
    output.flush()
    return written
