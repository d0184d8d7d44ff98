"""Histories written by hand: a round in which everything went well, to be spoilt in one way."""

import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import Any

from tests.chaos.case import Case
from tests.chaos.checker import RULES, Verdict, check
from tests.chaos.evidence import Evidence, Record
from tests.chaos.history import Deed, Place, Probe, Sent, Snapshot, WorkerProbe
from tests.chaos.identity import expected_outcome_id

PREFIX = "chaos-test"
LANE, EVENTS = "cortex.requests.medium", "cortex.events"
RESULTS, LETTERS = "cortex.results", "cortex.dead-letters"
INVALIDATIONS = "cortex.invalidations"
MOMENT_MS = 1_700_000_000_000

OF_OUTAGES = ("recovery", "memory", "storm", "stall")
OF_FAULTS = (*OF_OUTAGES, "retries", "I11")
"""Rules that say so where nothing was done that they could judge."""
USUAL = tuple(name for name in RULES if name not in OF_FAULTS)


@dataclass
class Story:
    """What was sent and answered so far; every method adds to it."""

    sent: list[Sent] = field(default_factory=list)
    records: dict[str, list[Record]] = field(default_factory=dict)
    snapshots: list[Snapshot] = field(default_factory=list)
    probes: list[Probe] = field(default_factory=list)
    deeds: list[Deed] = field(default_factory=list)

    def add(
        self, topic: str, value: bytes, *, key: bytes = b"k", headers: Any = (), at_ms: int = 0
    ) -> Record:
        """Append a record to partition 0 of a topic."""
        records = self.records.setdefault(topic, [])
        record = Record(topic, 0, len(records), MOMENT_MS + at_ms, key, value, tuple(headers))
        records.append(record)
        return record

    def ask(
        self,
        name: str,
        *,
        kind: str = "embed",
        text: str = "",
        at_ms: int = 0,
        lane: str = "medium",
        **more: Any,
    ) -> Record:
        """A request that the broker confirmed."""
        value = json.dumps(
            {"id": name, "type": "cortex.nlp.embed.v1", "data": {"texts": [text or name]}}
        ).encode()
        topic = f"cortex.requests.{lane}"
        record = self.add(topic, value, key=name.encode(), at_ms=at_ms)
        self._confirm(record, kind, name, **more)
        return record

    def happen(self, subject: str, number: int) -> Record:
        """An event."""
        data = {"collection": "c", "document_id": f"{subject}-{number}"}
        record = self.add(EVENTS, json.dumps({"data": data}).encode(), key=subject.encode())
        self._confirm(record, "event", None)
        return record

    def effect(self, subject: str, number: int) -> None:
        """The effect of an event."""
        value = {"value": f"document:c/{subject}-{number}"}
        self.add(INVALIDATIONS, json.dumps(value).encode())

    def answer(
        self,
        asked: Record,
        *,
        ending: str = "result",
        vector: str = "",
        code: str = "",
        at_ms: int = 1,
        digest: str | None = None,
        topic: str = RESULTS,
        **more: Any,
    ) -> None:
        """An outcome under the right id; by default the vector is made of the text."""
        event = json.loads(asked.value or b"")
        outcome_id = expected_outcome_id(
            asked, prefix=PREFIX, identity="data", request_id=event["id"]
        )
        good = ending == "result"
        texts = event["data"]["texts"]
        data = {
            "request_id": event["id"],
            "output": {"vectors": [vector or f"v({text})" for text in texts]} if good else None,
            "error": None if good else {"code": code or "invalid_field"},
            "model": {"digest": digest or "sha256:0"} if good or digest else None,
            **more,
        }
        outcome = {"id": outcome_id, "type": f"cortex.outcome.{ending}.v1", "data": data}
        self.add(topic, json.dumps(outcome).encode(), at_ms=at_ms)

    def hand_over(self, topic: str, original: Record, **said: Any) -> None:
        """A record that is put where it waits, or put back."""
        at = {"topic": f"{PREFIX}.{original.topic}", "partition": 0, "offset": original.offset}
        headers = [("cortex_handover", json.dumps({**at, **said}).encode())]
        self.add(topic, original.value or b"", key=original.key or b"", headers=headers)

    def letter(self, original: Record, **changed: Any) -> None:
        """The dead letter of a record; `changed` replaces what it copied."""
        ours = [
            ("cortex_dlt-original-topic", f"{PREFIX}.{original.topic}".encode()),
            ("cortex_dlt-original-partition", b"%d" % original.partition),
            ("cortex_dlt-original-offset", b"%d" % original.offset),
        ]
        copy = replace(original, **changed)
        headers = (*copy.headers, *ours)
        self.add(LETTERS, copy.value or b"", key=copy.key or b"", headers=headers)

    def die(self, *, committed: int, at_ms: int = 1000, ends: dict[str, int] | None = None) -> None:
        """The group is dead: `committed` of the lane and the events, the topics as they are now."""
        reached = {(t, 0): len(records) for t, records in self.records.items()}
        reached |= {(topic, 0): end for topic, end in (ends or {}).items()}
        places: dict[Place, int] = {(LANE, 0): committed, (EVENTS, 0): committed}
        self.snapshots.append(
            Snapshot(f"death {len(self.snapshots)}", MOMENT_MS + at_ms, places, reached)
        )

    def look(self, *, at_ms: int, committed: int, end: int = 10, **worker: int) -> None:
        """A probe."""
        seen = {"pid": 1, "rss_bytes": 1 << 20, "fds": 20, "ready": 200, **worker}
        places = {(LANE, 0): committed}
        self.probes.append(
            Probe(MOMENT_MS + at_ms, places, {(LANE, 0): end}, (WorkerProbe(**seen),))
        )

    def deed(
        self,
        what: Any,
        *,
        at_ms: int = 0,
        detail: str = "test",
        code: int = 0,
        expected: bool = True,
    ) -> None:
        """Something the nemesis did or saw."""
        self.deeds.append(Deed(MOMENT_MS + at_ms, what, detail, code, expected))

    def verdict(self, *invariants: str) -> Verdict:
        """What the checker says, unless some are named of all invariants that need no fault."""
        evidence = Evidence(
            PREFIX, self.sent, self.records, self.snapshots, self.probes, self.deeds
        )
        return check(Case(evidence), invariants or USUAL)

    def _confirm(self, record: Record, kind: str, request_id: str | None, **more: Any) -> None:
        self.sent.append(
            Sent(
                len(self.sent),
                kind,
                record.topic,
                hashlib.sha256(record.value or b"").hexdigest(),
                request_id,
                state="ok",
                partition=record.partition,
                offset=record.offset,
                **more,
            )
        )


def found(story: Story) -> set[str]:
    """Return the invariants that the checker finds violated."""
    return {name for name, all_ in story.verdict().violations.items() if all_}


def well() -> Story:
    """A round without fault: three requests, one refused, two events, one death after all of it."""
    story = Story()
    for name in ("a", "b", "c"):
        story.answer(story.ask(name))
    refused = story.ask("d", kind="malformed")
    story.answer(refused, ending="rejected")
    story.letter(refused)
    for number in (1, 2):
        story.happen("s", number)
        story.effect("s", number)
    story.die(committed=4)
    story.look(at_ms=0, committed=0, end=4)
    story.look(at_ms=200, committed=4, end=4)
    return story


def outage(*, answered_after_s: float = 1.0, rss_bytes: int = 100 << 20) -> Story:
    """A fault from second 10 to second 20: what was asked meanwhile is answered so long after it.

    Args:
        answered_after_s: the heal.
        rss_bytes: of the worker from then on; before it is 100 MiB.
    """
    story = Story()
    story.deed("heal", at_ms=0)
    for at_s in range(10):
        story.look(at_ms=at_s * 1000, committed=10, rss_bytes=100 << 20)
    story.deed("inject", at_ms=10_000)
    asked = story.ask("during", at_ms=15_000)
    story.deed("heal", at_ms=20_000)
    story.answer(asked, at_ms=20_000 + round(answered_after_s * 1000))
    for at_s in range(21, 32):
        story.look(at_ms=at_s * 1000, committed=10, rss_bytes=rss_bytes)
    return story
