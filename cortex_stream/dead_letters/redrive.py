"""What a redrive sends, and which letters it leaves alone. Pure.

A redrive puts the request of a dead letter back: a hand-over to `validation` on the topic for that
of its lane, with the original key, value and headers byte for byte. Its replay id is a function of
the letter and of how often this letter was redriven before, so that repeating a redrive that was
interrupted leads to the same outcome, and a second redrive to another one.

Before it is sent `dead_letter.redrive` is written to `cortex.audit`, and `dead_letter.redriven`
after: a letter with the first alone was cut in between, and may be sent again under the same id.
"""

import hashlib
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal, NamedTuple

from pydantic import ValidationError

from cortex_stream.dead_letters.letter import Letter, Origin
from cortex_stream.delivery.outcome import rfc3339
from cortex_stream.record import Headers, OutgoingRecord
from schemas.audit import AuditRecord
from schemas.handovers import HANDOVER, VECTORS, Handover, Reinjection
from schemas.priority import Lane
from topics.catalogue import LARGE_BYTES
from topics.names import (
    AUDIT,
    DEAD_LETTERS,
    EVENTS,
    HANDOVER_STAGES,
    RETRIES,
    VALIDATION,
    request_topic,
    retry_topic,
    stage_topic,
)

MOST_REDRIVES: Final = 3
"""A request that failed again after so many redrives is refused: it goes in a circle."""
MOST_RECORD_BYTES: Final = LARGE_BYTES - (16 << 10)
"""Of value, key and headers; the rest is for our own header and for the producer's frame."""

_HEADER_FRAME_BYTES: Final = 10
_LANES: Final[Mapping[str, Lane]] = {
    **{request_topic(lane): lane for lane in Lane},
    **{stage_topic(s, lane): lane for s in (VALIDATION, *HANDOVER_STAGES) for lane in Lane},
}
_INTERNAL: Final = frozenset(
    {
        *(topic for topic in _LANES if topic.startswith("cortex.stages.")),
        *(retry_topic(retry) for retry in range(1, RETRIES + 1)),
        request_topic(Lane.REPLAY),
    }
)
"""Topics whose records carry a hand-over behind the headers of the source record."""
_READ: Final = frozenset({EVENTS, *_LANES, *_INTERNAL})


class Turns(NamedTuple):
    """How often one letter was redriven, by the audit."""

    begun: int = 0
    done: int = 0

    @property
    def cut(self) -> bool:
        """Whether it is unknown if the last redrive was sent."""
        return self.begun > self.done


class Reason(StrEnum):
    """Why a letter is left alone."""

    REDRIVEN = "redriven"
    LOOP = "loop"
    EVENT = "event"
    NO_ORIGIN = "no_origin"
    NO_PAYLOAD = "no_payload"
    TOO_LARGE = "too_large"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A letter is left alone."""

    letter: Letter
    reason: Reason
    text: str


@dataclass(frozen=True, slots=True)
class Redrive:
    """What is sent for a letter.

    Attributes:
        turn: which redrive of this letter it is, from 1.
        edited: whether a person has changed the payload.
    """

    letter: Letter
    replay_id: str
    turn: int
    redrives: int
    edited: bool
    record: OutgoingRecord


def decide_redrive(
    letter: Letter, turns: Turns, *, prefix: str, again: bool = False, edited: bool = False
) -> Redrive | Refusal:
    """Return what is sent for `letter`, or why nothing is.

    Args:
        letter: with its payload; that of a letter in pointer form was fetched, or it is refused.
        turns: of this letter so far.
        prefix: of the topics of this system.
        again: redrive what was redriven before, too, and what goes in a circle.
        edited: whether the payload is another one than the original.
    """
    origin, topic = letter.origin, source_topic(letter, prefix=prefix)
    if origin is None or topic is None:
        text = "its headers name no topic that workers of this system read"
        return Refusal(letter, Reason.NO_ORIGIN, text)
    why_not = _why_not(letter, topic, turns, again=again, edited=edited)
    if why_not is not None:
        return why_not
    source = _source_of(letter, origin, topic)
    if _size_bytes(letter, source.headers) > MOST_RECORD_BYTES:
        return Refusal(letter, Reason.TOO_LARGE, f"it has more than {MOST_RECORD_BYTES} bytes")
    turn = turns.done + 1
    replay_id = f"{letter_id(letter, prefix=prefix)}-{turn}"
    deadline_ms = letter.asked.deadline_ms
    handover = Handover(
        version=1,
        stage=VALIDATION,
        topic=source.origin.topic,
        partition=source.origin.partition,
        offset=source.origin.offset,
        timestamp_ms=source.origin.timestamp_ms,
        attempt=1,
        spent_ms=0.0,
        left_ms=None if deadline_ms is None else float(deadline_ms),
        progress=None,
        reinjection=Reinjection(
            replay_id=replay_id, publish_to=source.publish_to, redrives=letter.redrives + turn
        ),
    )
    ours = (HANDOVER, handover.model_dump_json(exclude_defaults=True).encode())
    record = OutgoingRecord(_way_in(source.lane), letter.key, letter.value, (*source.headers, ours))
    return Redrive(letter, replay_id, turn, letter.redrives + turn, edited, record)


def letter_id(letter: Letter, *, prefix: str) -> str:
    """Return what names this letter in replay ids and in the audit.

    The time distinguishes it from a letter at the same place of a topic that was created anew.
    """
    place = letter.place
    named = f"{prefix}/{place.partition}/{place.offset}/{letter.written_ms}"
    return f"redrive-{hashlib.sha256(named.encode()).hexdigest()[:24]}"


def source_topic(letter: Letter, *, prefix: str) -> str | None:
    """Return the topic that the failed record lies on, by its name in the catalogue.

    None where it is no topic that workers of this system read.
    """
    start = f"{prefix}." if prefix else ""
    if letter.origin is None or not letter.origin.topic.startswith(start):
        return None
    name = letter.origin.topic.removeprefix(start)
    return name if name in _READ else None


def audit_record(
    redrive: Redrive, *, done: bool, principal: str, now_unix_ms: int
) -> OutgoingRecord:
    """Return what is written to the audit before a redrive is sent, and after (`done`)."""
    letter = redrive.letter
    record = AuditRecord(
        schema_version="cortex.audit.v1",
        at=rfc3339(now_unix_ms),
        principal=principal,
        action="dead_letter.redriven" if done else "dead_letter.redrive",
        subject=f"{DEAD_LETTERS}/{letter.place.partition}/{letter.place.offset}",
        details={
            "replay_id": redrive.replay_id,
            "turn": redrive.turn,
            "redrives": redrive.redrives,
            "edited": redrive.edited,
            "request_id": letter.asked.request_id,
        },
    )
    return OutgoingRecord(AUDIT, principal.encode(), record.model_dump_json().encode())


def remember(turns: MutableMapping[str, Turns], value: bytes | None) -> None:
    """Count a record of the audit in `turns`, by `letter_id`; what is no redrive does not count."""
    try:
        record = AuditRecord.model_validate_json(value or b"")
    except ValidationError:
        return
    named, _, turn = str(record.details.get("replay_id")).rpartition("-")
    if not named.startswith("redrive-") or not (turn.isascii() and turn.isdigit()):
        return
    before = turns.get(named, Turns())
    if record.action == "dead_letter.redrive":
        turns[named] = before._replace(begun=max(before.begun, int(turn)))
    elif record.action == "dead_letter.redriven":
        turns[named] = before._replace(done=max(before.done, int(turn)))


class _Source(NamedTuple):
    """The record that a client or a replay wrote."""

    lane: Lane
    origin: Origin
    headers: Headers
    publish_to: Literal["results", "replays"]


def _why_not(
    letter: Letter, topic: str, turns: Turns, *, again: bool, edited: bool
) -> Refusal | None:
    """Return why a letter from `topic` is left alone, or None."""
    if topic == EVENTS:
        return Refusal(
            letter,
            Reason.EVENT,
            "events are handled in the order of their subject, and an old one would come behind"
            " newer ones; its producer can send it again",
        )
    if letter.truncated or not letter.value:
        text = "there is no payload to send; --edit gives it one"
        return Refusal(letter, Reason.NO_PAYLOAD, text)
    if not again and turns.done and not turns.cut:
        text = f"it was redriven {turns.done} times; --again does it once more"
        return Refusal(letter, Reason.REDRIVEN, text)
    if not (again or edited) and letter.redrives >= MOST_REDRIVES:
        text = f"its request failed again after {letter.redrives} redrives; --edit it, or --again"
        return Refusal(letter, Reason.LOOP, text)
    return None


def _source_of(letter: Letter, origin: Origin, topic: str) -> _Source:
    """Return what the source record of a letter from `topic` was.

    A letter of an internal topic is of a hand-over that could not be gone on with. What it says of
    the source record is taken if it can be read; if not, the least that it can have been.
    """
    headers = list(letter.original_headers)
    if topic not in _INTERNAL:
        return _Source(_LANES[topic], origin, headers, "results")
    lane = _LANES.get(topic, Lane.LOW)
    replayed: Literal["results", "replays"] = "replays" if lane is Lane.REPLAY else "results"
    if headers and headers[-1][0] == VECTORS:
        headers.pop()
    if not headers or headers[-1][0] != HANDOVER:
        return _Source(lane, origin, headers, replayed)
    try:
        said = Handover.model_validate_json(headers.pop()[1] or b"")
    except ValidationError:
        return _Source(lane, origin, headers, replayed)
    return _Source(
        lane if topic in _LANES or said.waiting is None else said.waiting.lane,
        Origin(said.topic, said.partition, said.offset, said.timestamp_ms),
        headers,
        replayed if said.reinjection is None else said.reinjection.publish_to,
    )


def _way_in(lane: Lane) -> str:
    """Return the topic of `lane` whose records begin with validation."""
    return request_topic(lane) if lane is Lane.REPLAY else stage_topic(VALIDATION, lane)


def _size_bytes(letter: Letter, headers: Headers) -> int:
    return (
        len(letter.value or b"")
        + len(letter.key or b"")
        + sum(len(n.encode()) + len(data or b"") + _HEADER_FRAME_BYTES for n, data in headers)
    )
