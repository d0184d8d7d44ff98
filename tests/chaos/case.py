"""The evidence of a round, joined: what each record asked, and what came back under its outcome id."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from tests.chaos.evidence import Evidence, Record
from tests.chaos.history import Identity, Sent, Snapshot
from tests.chaos.identity import expected_outcome_id

RESULTS, DEAD_LETTERS = "cortex.results", "cortex.dead-letters"
EVENTS, INVALIDATIONS = "cortex.events", "cortex.invalidations"
_LANES = ("critical", "high", "medium", "low")
REQUESTS = tuple(f"cortex.requests.{lane}" for lane in _LANES)
REPLAYS, REPLAYED = "cortex.requests.replay", "cortex.replays"
"""What replays put back, and the outcomes of it."""
RETRIES = tuple(f"cortex.retries.{number}" for number in (1, 2, 3))
HANDED = (*(f"cortex.stages.validation.{lane}" for lane in _LANES), *RETRIES)
READ_BY_WORKERS = (*REQUESTS, EVENTS, *HANDED, REPLAYS)
WRITTEN_BY_WORKERS = (RESULTS, DEAD_LETTERS, INVALIDATIONS, *HANDED, REPLAYED)
TOPICS = tuple(dict.fromkeys((*READ_BY_WORKERS, *WRITTEN_BY_WORKERS)))

GIVEN_UP = "given up"
"""How a record ends that ended its workers, or that was run while somebody killed them."""
FAILED = frozenset({"rejected", "dead_letter", GIVEN_UP})
_UNREAD: tuple[Identity, ...] = ("bytes", "place")

Spot = tuple[str, int, int]  # topic, partition, offset


class Answer(NamedTuple):
    """One outcome record, read. `kind` is the last word of its type but the version."""

    record: Record
    kind: str
    data: Mapping[str, Any]

    @property
    def ending(self) -> str:
        return GIVEN_UP if self.code == "poisonous_record" else self.kind

    @property
    def code(self) -> str | None:
        error = self.data["error"]
        return None if error is None else error["code"]

    @property
    def says(self) -> tuple[object, ...]:
        """What duplicates must agree on. Which model did not come to answer is nobody's concern."""
        output, model = self.data["output"], self.data["model"] or {}
        return self.ending, output, self.code, None if output is None else model.get("digest")


class Asked(NamedTuple):
    """One record of a client, and what the load says of it."""

    record: Record
    sent: Sent


class Handed(NamedTuple):
    """One hand-over record, and where the request came from. `due_ms`: where it is a retry."""

    record: Record
    origin: Spot
    attempt: int
    due_ms: int | None = None


@dataclass(frozen=True)
class Case:
    """All lookups that the rules need.

    Attributes:
        allowed: further endings that the fault may give a kind.
    """

    evidence: Evidence
    allowed: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @cached_property
    def answers(self) -> Mapping[str, list[Answer]]:
        """By outcome id, the first of a partition first."""
        found: dict[str, list[Answer]] = defaultdict(list)
        for record in self.evidence.of(RESULTS):
            event = json.loads(record.value or b"")
            answer = Answer(record, event["type"].split(".")[2], event["data"])
            given_up = answer.ending == GIVEN_UP
            outcome_id = self._unread.get(event["id"], event["id"]) if given_up else event["id"]
            found[outcome_id].append(answer)
        return dict(found)

    @cached_property
    def _unread(self) -> Mapping[str, str]:
        """The id of a request by those it gets where reading it is what ends workers."""
        return {
            expected_outcome_id(
                each.record,
                prefix=self.evidence.prefix,
                identity=identity,
                request_id=each.sent.request_id,
            ): outcome_id
            for outcome_id, all_ in self.asked.items()
            for each in all_
            for identity in _UNREAD
        }

    @cached_property
    def asked(self) -> Mapping[str, list[Asked]]:
        """By the outcome id that must answer it. Read from the topics: a produce of which nobody
        knows the end may have reached them, too."""
        by_spot = {(s.topic, s.partition, s.offset): s for s in self.evidence.sent}
        by_digest = {(s.topic, s.sha256): s for s in self.evidence.sent}
        found: dict[str, list[Asked]] = defaultdict(list)
        for record in self.evidence.of(*REQUESTS):
            sent = by_spot.get(spot(record)) or by_digest[record.topic, sha256(record)]
            outcome_id = expected_outcome_id(
                record,
                prefix=self.evidence.prefix,
                identity=sent.identity,
                request_id=sent.request_id,
            )
            found[outcome_id].append(Asked(record, sent))
        return dict(found)

    @cached_property
    def letters(self) -> Mapping[Spot, list[Record]]:
        """Dead letters by the place of the record that they keep."""
        found: dict[Spot, list[Record]] = defaultdict(list)
        for letter in self.evidence.of(DEAD_LETTERS):
            said = {name.removeprefix("cortex_dlt-"): data for name, data in letter.headers}
            topic = self._without_prefix((said["original-topic"] or b"").decode())
            partition, offset = (
                int(said[f"original-{part}"] or b"-1") for part in ("partition", "offset")
            )
            found[topic, partition, offset].append(letter)
        return dict(found)

    @cached_property
    def handed(self) -> Mapping[Spot, list[Handed]]:
        """Hand-overs, set-backs and retries by the place of the client's record."""
        found: dict[Spot, list[Handed]] = defaultdict(list)
        for record in self.evidence.of(*HANDED):
            said = json.loads(dict(record.headers)["cortex_handover"] or b"")
            origin = (self._without_prefix(said["topic"]), said["partition"], said["offset"])
            waiting = said.get("waiting") if record.topic in RETRIES else None
            due_ms = None if waiting is None else waiting["due_unix_ms"]
            found[origin].append(Handed(record, origin, said["attempt"], due_ms))
        return dict(found)

    @cached_property
    def id_at(self) -> Mapping[Spot, str]:
        return {
            spot(each.record): outcome_id
            for outcome_id, all_ in self.asked.items()
            for each in all_
        }

    def answered(self, outcome_id: str, snapshot: Snapshot) -> bool:
        """Tell whether outcome and dead letter, where one belongs, lay on the log by then."""
        durable = [a for a in self.answers.get(outcome_id, []) if before(a.record, snapshot)]
        if not durable:
            return False
        if durable[0].ending not in FAILED:
            return True
        spots = [spot(each.record) for each in self.asked[outcome_id]]
        return any(before(each, snapshot) for at in spots for each in self.letters.get(at, []))

    def _without_prefix(self, topic: str) -> str:
        return topic.removeprefix(f"{self.evidence.prefix}.")


def spot(record: Record) -> Spot:
    return record.topic, record.partition, record.offset


def sha256(record: Record) -> str:
    return hashlib.sha256(record.value or b"").hexdigest()


def before(record: Record, snapshot: Snapshot) -> bool:
    """Tell whether the record lay on its topic when the snapshot was taken."""
    return record.offset < snapshot.ends.get(record.place, 0)


def committed(record: Record, snapshot: Snapshot) -> bool:
    """Tell whether the group would not read the record again."""
    return record.offset < snapshot.committed.get(record.place, 0)
