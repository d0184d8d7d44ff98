"""Which record ended its worker: what is remembered of deliveries, and what follows. Pure.

A worker that ends by itself may have been ended by one of the records that it had begun. Which one,
nobody knows: all of them are *suspects* of the next owner. It counts each before it runs it, alone if
they are few, else few of them beside each other; one that was counted when a worker ended again runs
alone, twice; and one that ends its worker even then is given up. So no record is given up for what
another one did, nor easily for what somebody did to its worker from outside.

Invariants (`tests/unit/agents/test_suspects.py` kills workers to prove them):
    A record that ends its worker whenever it runs is delivered `DELIVERIES` times, and once more if
        more than `COMPANY_RECORDS` were suspects.
    A record is given up only if two workers in a row ended while it ran and nothing else did.
"""

import re
from collections.abc import Iterable
from enum import Enum
from typing import Final, NamedTuple

import orjson

from cortex_stream.record import OutgoingRecord
from topics.names import ATTEMPTS

DELIVERIES: Final = 3
"""After so many a record is given up: one among all others, or in company, and two alone."""
COMPANY_RECORDS: Final = 32
"""Suspects that run beside each other. All of them run alone once a worker ends under them."""
LEAST_AHEAD_RECORDS: Final = 32
MOST_AHEAD_RECORDS: Final = 2_000
"""How many records of a partition may begin before a commit has to say so: twice what began between
the last two commits, so that the commit that is due each second nearly always comes in time."""

_UNTIL: Final = re.compile(r"until=([0-9]{1,18})")


class Trial(Enum):
    """How a suspect is run; the value is how many of its deliveries are counted then.

    Where suspects are few, the delivery in which they became some counts as the one in company.
    """

    IN_COMPANY = 1
    ALONE = 2
    ALONE_AGAIN = 3
    GIVEN_UP = 4  # not run, but read once more: its outcome tells who asked
    UNREAD = 5  # reading it is what ends workers


class Mark(NamedTuple):
    """What a commit says of a partition, for whoever owns it next.

    Attributes:
        offset: of the first unfinished record.
        until: records before it may have begun; None once whoever owned it has left it in order.
    """

    offset: int
    until: int | None = None

    @property
    def metadata(self) -> str:
        """The text beside the offset in the commit."""
        return "" if self.until is None else f"until={self.until}"

    @property
    def suspects(self) -> range:
        """The offsets of records that may have begun and are not finished."""
        return range(self.offset, self.until or 0)


def read_mark(offset: int, metadata: str) -> Mark:
    """Return what a commit says. Texts of others, such as of an earlier release, say nothing."""
    match = _UNTIL.fullmatch(metadata)
    return Mark(offset, None if match is None else int(match[1]))


def mark_begun(offset: int, *, before: int, begun: int, suspects: range) -> Mark:
    """Return the mark of a worker that goes on.

    Args:
        offset: of the first unfinished record.
        before: after the last record that had begun at the last commit.
        begun: after the last record that has begun now.
        suspects: what the worker itself has found.
    """
    ahead = min(max(LEAST_AHEAD_RECORDS, 2 * (begun - before)), MOST_AHEAD_RECORDS)
    return Mark(offset, max(begun + ahead, suspects.stop))


def mark_left(offset: int, *, suspects: range) -> Mark:
    """Return the mark of a worker that has finished or undone all it began: what it found remains."""
    return Mark(offset, suspects.stop if offset < suspects.stop else None)


def decide_trial(deliveries: int, *, suspects: int) -> Trial:
    """Return how to run one of so many suspects.

    Args:
        deliveries: of it, as counted; 0 if none were.
        suspects: of one worker. If they all fit in one company, they have run in none larger.
    """
    first = Trial.ALONE if suspects <= COMPANY_RECORDS else Trial.IN_COMPANY
    return Trial(min(max(deliveries + 1, first.value), Trial.UNREAD.value))


def attempts_key(*, topic: str, partition: int, offset: int) -> bytes:
    """Return the key under which the deliveries of a record are counted."""
    return f"{topic}/{partition}/{offset}".encode()


def count_record(key: bytes, deliveries: int) -> OutgoingRecord:
    """Return what makes the count durable; of 0, what removes it."""
    value = orjson.dumps({"deliveries": deliveries}) if deliveries else None
    return OutgoingRecord(ATTEMPTS, key, value)


def read_counts(records: Iterable[tuple[bytes | None, bytes | None]]) -> dict[bytes, int]:
    """Return the count of each key, from keys and values in the order of the log.

    What nobody here has written counts as nothing.
    """
    counts: dict[bytes, int] = {}
    for key, value in records:
        deliveries = _deliveries(value)
        if key is not None and deliveries:
            counts[key] = deliveries
        elif key is not None:
            counts.pop(key, None)
    return counts


def _deliveries(value: bytes | None) -> int:
    try:
        counted = orjson.loads(value or b"{}")["deliveries"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return 0
    return counted if isinstance(counted, int) and counted > 0 else 0
