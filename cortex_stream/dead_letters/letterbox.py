"""Dead letters as they lie in Kafka, the records they point to, and the audit of redrives.

Reads only, without a consumer group, and never holds more than one letter's payload beside what the
client has fetched.
"""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Final

from cortex_stream.dead_letters.filters import EVERYTHING, LetterFilter
from cortex_stream.dead_letters.letter import Letter, Place, read_letter, with_original
from cortex_stream.dead_letters.redrive import Turns, remember, source_topic
from cortex_stream.errors import OperatorError, TopicsMismatch
from cortex_stream.kafka.reader import Position, ReadRecord, TopicReader
from cortex_stream.settings.tree import Settings
from topics.names import AUDIT, DEAD_LETTERS

_SKEW_MS: Final = 60 * 60_000
"""By how much the clock of who redrives may be behind that of the worker."""
_STEP_LETTERS: Final = 20
_STOP_BYTES: Final = 32 << 20


@dataclass(frozen=True, slots=True)
class Window:
    """The newest letters before some place, without their payloads, newest first.

    Attributes:
        older: from where the next window goes on, by partition; None where nothing is older.
    """

    letters: tuple[Letter, ...]
    older: Mapping[int, int] | None


async def read_letters(
    settings: Settings, wanted: LetterFilter = EVERYTHING
) -> AsyncGenerator[Letter]:
    """Yield the letters that are there now, oldest first within a partition.

    Raises:
        BrokerUnavailable: no broker answers.
        TopicsMismatch: the topic does not exist.
    """
    async with TopicReader(settings, [DEAD_LETTERS], start="end") as reader:
        ranges = await _since(reader, wanted.since_ms)
        async for record in reader.between(ranges):
            letter = _letter(record, settings)
            if wanted.matches(letter):
                yield letter


async def read_letter_at(settings: Settings, place: Place) -> Letter:
    """Return the letter at `place`.

    Raises:
        OperatorError: there is none, or not any more.
        BrokerUnavailable, TopicsMismatch: as for `read_letters`.
    """
    record = await _record_or_none(settings, (DEAD_LETTERS, place.partition), place.offset)
    if record is None:
        raise OperatorError(
            f"reading dead letter {place}: there is none at this place, or it is kept no longer",
            repair="cortex-stream dead-letters list",
        )
    return _letter(record, settings)


async def with_payload(settings: Settings, letter: Letter) -> Letter:
    """Return the letter with its payload, read from where a letter in pointer form points to.

    Raises:
        OperatorError: the original is kept no longer, or lies where workers of this system do not
            read.
        BrokerUnavailable: no broker answers.
    """
    if not letter.truncated:
        return letter
    topic, origin = source_topic(letter, prefix=settings.kafka.topic_prefix), letter.origin
    if topic is None or origin is None:
        raise OperatorError(
            f"reading the original of dead letter {letter.place}: its headers name no topic that"
            " workers of this system read"
        )
    where = f"{origin.topic}, partition {origin.partition}, offset {origin.offset}"
    try:
        record = await _record_or_none(settings, (topic, origin.partition), origin.offset)
    except TopicsMismatch:
        record = None
    if record is None:
        raise OperatorError(
            f"reading the original of dead letter {letter.place}: it was too large to be copied, and"
            f" is kept no longer where it came from: {where}"
        )
    if (record.timestamp_ms, len(record.value or b"")) != (origin.timestamp_ms, letter.size_bytes):
        raise OperatorError(
            f"reading the original of dead letter {letter.place}: another record is now at {where}"
        )
    return with_original(
        letter,
        key=record.key,
        value=record.value,
        headers=record.headers,
        limits=settings.limits,
    )


async def read_turns(settings: Settings, *, since_ms: int | None = None) -> dict[str, Turns]:
    """Return how often letters were redriven, by `letter_id`; of letters since then at least.

    Raises:
        BrokerUnavailable, TopicsMismatch: as for `read_letters`.
    """
    turns: dict[str, Turns] = {}
    async with TopicReader(settings, [AUDIT], start="end") as reader:
        ranges = await _since(reader, None if since_ms is None else since_ms - _SKEW_MS)
        async for record in reader.between(ranges):
            remember(turns, record.value)
    return turns


async def read_newest(
    settings: Settings, *, before: Mapping[int, int], most_letters: int
) -> Window:
    """Return about `most_letters` of the newest letters; fewer where they are large.

    `before` are offsets by partition, as `Window.older` gives them; without one, from the end. From
    one window to the next each letter is in one, though not in the order of time over all of them.

    Raises:
        BrokerUnavailable, TopicsMismatch: as for `read_letters`.
    """
    letters: list[Letter] = []
    read_bytes = 0
    async with TopicReader(settings, [DEAD_LETTERS], start="end") as reader:
        begins, ends = await reader.begins(), await reader.ends()
        at = {part: min(before.get(part[1], end), end) for part, end in ends.items()}
        while len(letters) < most_letters and read_bytes < _STOP_BYTES:
            ranges = {
                part: (max(begins[part], end - _STEP_LETTERS), end)
                for part, end in at.items()
                if end > begins[part]
            }
            if not ranges:
                break
            async for record in reader.between(ranges):
                letters.append(_letter(record, settings).without_payload())
                read_bytes += len(record.value or b"")
            at |= {part: begin for part, (begin, _) in ranges.items()}
    letters.sort(key=lambda letter: (letter.written_ms, letter.place), reverse=True)
    more = any(end > begins[part] for part, end in at.items())
    return Window(tuple(letters), {part[1]: end for part, end in at.items()} if more else None)


async def _since(reader: TopicReader, since_ms: int | None) -> dict[Position, tuple[int, int]]:
    """Return what to read: all that is there now, but for what is older than `since_ms`."""
    ends = await reader.ends()
    if since_ms is None:
        begins: Mapping[Position, int] = await reader.begins()
    else:
        found = await reader.first_since(max(0, since_ms))
        begins = {part: offset for part, (offset, _) in found.items()}
    return {part: (begin, ends[part]) for part, begin in begins.items()}


async def _record_or_none(settings: Settings, part: Position, offset: int) -> ReadRecord | None:
    topic, _ = part
    async with TopicReader(settings, [topic], start="end") as reader:
        begins, ends = await reader.begins(), await reader.ends()
        if begins.get(part, 0) <= offset < ends.get(part, 0):
            async for record in reader.between({part: (offset, offset + 1)}):
                return record
    return None


def _letter(record: ReadRecord, settings: Settings) -> Letter:
    return read_letter(
        place=Place(record.partition, record.offset),
        written_ms=record.timestamp_ms,
        key=record.key,
        value=record.value,
        headers=record.headers,
        limits=settings.limits,
    )
