"""Judges a round by what it left behind. Shares no code with the worker.

Each rule yields what it found wrong, in words; a rule that yields nothing holds.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from tests.chaos.bounds import (
    connections_are_few,
    low_requests_get_on,
    retries_are_few_and_not_early,
    urgent_requests_are_quick,
)
from tests.chaos.case import (
    EVENTS,
    FAILED,
    GIVEN_UP,
    INVALIDATIONS,
    REQUESTS,
    Answer,
    Asked,
    Case,
    before,
    committed,
    sha256,
    spot,
)
from tests.chaos.evidence import Record
from tests.chaos.figures import figures, redone
from tests.chaos.history import Place, Probe, Snapshot
from tests.chaos.recovery import (
    a_stalled_worker_gives_up,
    joining_and_leaving_leaves_time_to_work,
    memory_comes_back,
    processing_is_soon_back,
)
from tests.chaos.replayed import replays_are_whole_and_apart

ENDINGS: Mapping[str, frozenset[str]] = {
    "embed": frozenset({"result"}),
    "large": frozenset({"result", "rejected"}),
    "binary": frozenset({"result"}),
    "duplicate": frozenset({"result"}),
    "conflict": frozenset({"result", "rejected"}),
    "patient": frozenset({"result", "expired"}),
    "expired": frozenset({"expired"}),
    "malformed": frozenset({"rejected"}),
    "poison": frozenset({"dead_letter", GIVEN_UP}),
    "slow": frozenset({"result"}),
}
"""How what was asked may end, by kind."""

COMMITTED_WITHIN_S = 3.0
"""An outcome is committed after one interval of 1 s and one commit, on a busy machine."""
_IGNORED = frozenset({"expired", "dead_letter", GIVEN_UP})
_PROGRESS_MS = 30_000
_LATE_MS = 1000
_MAX_RSS_BYTES = 700 << 20
_MAX_FDS = 256
_MORE_FDS = 24
_MAX_HEADER_BYTES = 8 << 10


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found wrong, by invariant, and figures that say how close it was."""

    violations: Mapping[str, list[str]]
    figures: Mapping[str, float]

    @property
    def holds(self) -> bool:
        return not any(self.violations.values())


def every_request_has_an_outcome(case: Case) -> Iterator[str]:
    """I1: what the broker confirmed is on its topic; all that is there ended as it may."""
    there = {spot(r): sha256(r) for r in case.evidence.of(*REQUESTS, EVENTS)}
    for sent in case.evidence.sent:
        at = (sent.topic, sent.partition, sent.offset)
        if sent.state == "ok" and there.get(at) != sent.sha256:
            yield f"the broker confirmed {at} and does not have it"
    reused = _reused(case)
    for outcome_id, asked in case.asked.items():
        answers = case.answers.get(outcome_id)
        if not answers:
            yield f"lost: {_which(asked)} has no outcome {outcome_id}"
            continue
        may: set[str] = set()
        for each in asked:
            may |= ENDINGS[each.sent.kind] | case.allowed.get(each.sent.kind, frozenset())
        ending = _final(answer.ending for answer in answers)
        lost_to_another = answers[0].code == "conflict" and asked[0].sent.request_id in reused
        if ending not in may and not lost_to_another:
            yield f"{_which(asked)} ended as {ending} ({answers[0].code}), not as {sorted(may)}"
        if answers[0].data["request_id"] != asked[0].sent.request_id:
            yield f"{_which(asked)}: the outcome names {answers[0].data['request_id']!r}"
    for outcome_id in case.answers.keys() - case.asked.keys():
        yield f"outcome {outcome_id} answers nothing that was asked"


def no_answer_is_anothers(case: Case) -> Iterator[str]:
    """I2, too: equal texts have equal vectors, and no two texts share one."""
    vector_of: dict[str, str] = {}
    text_of: dict[str, str] = {}
    for outcome_id, asked in case.asked.items():
        for answer in case.answers.get(outcome_id, []):
            if answer.ending != "result":
                continue
            value = json.loads(asked[0].record.value or b"")
            texts, vectors = value.get("data", value)["texts"], answer.data["output"]["vectors"]
            if len(texts) != len(vectors):
                yield f"{_which(asked)}: {len(vectors)} vectors for {len(texts)} texts"
            for text, vector in zip(texts, vectors, strict=False):
                if vector_of.setdefault(text, vector) != vector:
                    yield f"{_which(asked)}: another vector for {text[:60]!r}"
                if text_of.setdefault(vector, text) != text and len(text) < _LATE_MS:
                    yield f"{_which(asked)}: the vector of {text_of[vector][:60]!r}"


def outcomes_agree(case: Case) -> Iterator[str]:
    """I2: whatever has one outcome id says one thing; the first in the partition counts."""
    for outcome_id, answers in case.answers.items():
        if len({answer.record.partition for answer in answers}) > 1:
            yield f"outcome {outcome_id} is in several partitions: nobody knows the first"
        asked = case.asked.get(outcome_id, [])
        first = answers[0]
        for later in answers[1:]:
            if later.says != first.says and not _may_differ(first, later, asked):
                yield (
                    f"{_which(asked)}: {first.ending} at {first.record.offset}, then another"
                    f" {later.ending} at {later.record.offset} under one outcome id"
                )


def commits_follow_outcomes(case: Case) -> Iterator[str]:
    """I3: below what a dead group had committed, everything was durable."""
    for snapshot in case.evidence.snapshots:
        for record in (*_requests_too_early(case, snapshot), *_events_too_early(case, snapshot)):
            yield f"{snapshot.label}: committed past {spot(record)}, of which nothing was durable"


def _requests_too_early(case: Case, snapshot: Snapshot) -> Iterator[Record]:
    """Yield what was committed with neither outcome nor hand-over, hand-overs themselves too."""
    for record in case.evidence.of(*REQUESTS):
        at = spot(record)
        handed = any(before(each.record, snapshot) for each in case.handed.get(at, []))
        done = handed or case.answered(case.id_at[at], snapshot)
        if committed(record, snapshot) and not done:
            yield record
    for origin, hand_overs in case.handed.items():
        durable = [each for each in hand_overs if before(each.record, snapshot)]
        for each in durable:
            further = any(other.attempt > each.attempt for other in durable)
            done = further or case.answered(case.id_at[origin], snapshot)
            if committed(each.record, snapshot) and not done:
                yield each.record


def _events_too_early(case: Case, snapshot: Snapshot) -> Iterator[Record]:
    effects = {_told(r) for r in case.evidence.of(INVALIDATIONS) if before(r, snapshot)}
    for record in case.evidence.of(EVENTS):
        if committed(record, snapshot) and _document(record.value) not in effects:
            yield record


def repeats_have_a_cause(case: Case) -> Iterator[str]:
    """Of F01: only what was finished since the last commit is done again."""
    again = redone(case)
    for snapshot, (_, oldest_s) in again.items():
        if oldest_s > COMMITTED_WITHIN_S:
            yield f"{snapshot}: an outcome of {oldest_s:.1f} s ago was not committed"
    excused = {outcome_id for outcome_ids, _ in again.values() for outcome_id in outcome_ids}
    for outcome_id, answers in case.answers.items():
        asked = case.asked.get(outcome_id, [])
        if len(answers) > max(1, len(asked)) and outcome_id not in excused:
            yield f"{_which(asked)}: answered {len(answers)} times without a cause"


def events_take_effect_in_order(case: Case) -> Iterator[str]:
    """I4: the first effects of a subject's events come in the order of the events."""
    effects = list(dict.fromkeys(_told(record) for record in case.evidence.of(INVALIDATIONS)))
    rank = {document: number for number, document in enumerate(effects)}
    by_subject: dict[bytes | None, list[str]] = defaultdict(list)
    for record in case.evidence.of(EVENTS):
        by_subject[record.key].append(_document(record.value))
    for subject, documents in by_subject.items():
        ranks = [rank[document] for document in documents if document in rank]
        if len(ranks) < len(documents):
            yield f"{subject!r}: {len(documents) - len(ranks)} events had no effect"
        if ranks != sorted(ranks):
            yield f"{subject!r}: effects out of order"


def commits_never_go_back(case: Case) -> Iterator[str]:
    """I5: a member that lost its partitions moves no offset any more."""
    seen: dict[Place, int] = {}
    for probe in case.evidence.probes:
        for place, offset in probe.committed.items():
            if offset < seen.get(place, 0):
                yield f"{place}: committed {seen[place]}, later {offset}"
            seen[place] = offset


def the_worker_stays_small(case: Case) -> Iterator[str]:
    """I7: memory and file descriptors stay below their caps and come back."""
    of_pid: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for probe in case.evidence.probes:
        for worker in probe.workers:
            if worker.ready == 200:
                of_pid[worker.pid].append((worker.rss_bytes, worker.fds))
    for pid, samples in of_pid.items():
        if (rss := max(rss for rss, _ in samples)) > _MAX_RSS_BYTES:
            yield f"worker {pid} held {rss >> 20} MiB"
        if (fds := max(fds for _, fds in samples)) > _MAX_FDS:
            yield f"worker {pid} held {fds} file descriptors"
        if samples[-1][1] > samples[0][1] + _MORE_FDS:
            yield f"worker {pid} began with {samples[0][1]} descriptors and ended with {fds}"


def deadlines_count(case: Case) -> Iterator[str]:
    """I8: who has no deadline never expires; no result comes long after one."""
    for outcome_id, asked in case.asked.items():
        deadlines = [each.sent.deadline_ms for each in asked]
        for answer in case.answers.get(outcome_id, []):
            if answer.ending == "expired" and None in deadlines:
                yield f"{_which(asked)} has no deadline and expired"
            latest = max((d for d in deadlines if d is not None), default=None)
            late_ms = 0 if latest is None else answer.record.timestamp_ms - latest
            if answer.ending == "result" and None not in deadlines and late_ms > _LATE_MS:
                yield f"{_which(asked)}: a result {late_ms} ms after the deadline"


def work_goes_on_after_healing(case: Case) -> Iterator[str]:
    """I10: within 30 s of a heal every partition with lag moves, unless the next fault came."""
    deeds, probes = case.evidence.deeds, [p for p in case.evidence.probes if p.committed]
    for deed in deeds:
        if deed.what != "heal":
            continue
        until = min(
            (d.at_ms for d in deeds if d.what == "inject" and d.at_ms > deed.at_ms),
            default=deed.at_ms + _PROGRESS_MS + 1,
        )
        window = [p for p in probes if deed.at_ms <= p.at_ms <= deed.at_ms + _PROGRESS_MS]
        if until > deed.at_ms + _PROGRESS_MS and window:
            for place in _stuck(window):
                yield f"{place} stood still for 30 s after {deed.detail}"


def workers_end_as_told(case: Case) -> Iterator[str]:
    """A supervisor must not hide a crash: each end of a worker was asked for."""
    for deed in case.evidence.deeds:
        if deed.what == "exit" and not deed.expected:
            yield f"a worker ended with {deed.code}: {deed.detail}"


def letters_are_faithful(case: Case) -> Iterator[str]:
    """I12: failed records are kept byte for byte, with bounded headers, and only those."""
    records = {spot(r): r for r in case.evidence.of(*REQUESTS, EVENTS)}
    for outcome_id, asked in case.asked.items():
        ends = {answer.ending for answer in case.answers.get(outcome_id, [])}
        kept = [at for each in asked if (at := spot(each.record)) in case.letters]
        if ends & FAILED and not kept:
            yield f"{_which(asked)} failed and left no dead letter"
        if kept and not ends & FAILED:
            yield f"{_which(asked)} left a dead letter and no failure"
    for at, letters in case.letters.items():
        original = records[at]
        for letter in letters:
            mine, theirs = letter.headers[: len(original.headers)], letter.headers
            if letter.key != original.key or tuple(mine) != tuple(original.headers):
                yield f"{at}: the dead letter has another key or other headers"
            if (letter.value or b"") != (original.value or b""):
                yield f"{at}: the dead letter has another value"
            ours = theirs[len(original.headers) :]
            if any(len(data or b"") > _MAX_HEADER_BYTES for _, data in ours):
                yield f"{at}: a header of the dead letter is too long"
            if not all(name.startswith("cortex_dlt-") for name, _ in ours):
                yield f"{at}: the dead letter has foreign headers"


RULES: Mapping[str, tuple[Callable[[Case], Iterator[str]], ...]] = {
    "I1": (every_request_has_an_outcome,),
    "I2": (outcomes_agree, no_answer_is_anothers),
    "I3": (commits_follow_outcomes,),
    "I4": (events_take_effect_in_order,),
    "I5": (commits_never_go_back,),
    "I6": (urgent_requests_are_quick, low_requests_get_on),
    "I7": (the_worker_stays_small,),
    "I8": (deadlines_count,),
    "I10": (work_goes_on_after_healing,),
    "I11": (replays_are_whole_and_apart,),
    "I12": (letters_are_faithful,),
    "floor": (low_requests_get_on,),
    "retries": (retries_are_few_and_not_early,),
    "connections": (connections_are_few,),
    "repeats": (repeats_have_a_cause,),
    "exits": (workers_end_as_told,),
    "recovery": (processing_is_soon_back,),
    "memory": (memory_comes_back,),
    "storm": (joining_and_leaving_leaves_time_to_work,),
    "stall": (a_stalled_worker_gives_up,),
}


def check(case: Case, invariants: tuple[str, ...]) -> Verdict:
    """Return what the rules of these invariants find."""
    violations = {
        name: [found for rule in RULES[name] for found in rule(case)] for name in invariants
    }
    counted = figures(
        case,
        conflicting=len(violations.get("I2", ())),
        past_unfinished=len(violations.get("I3", ())),
    )
    return Verdict(violations, counted)


def _reused(case: Case) -> set[str | None]:
    """Return the request ids under which different things were asked; one of them is answered."""
    names = Counter(asked[0].sent.request_id for asked in case.asked.values())
    return {name for name, count in names.items() if name is not None and count > 1}


def _may_differ(first: Answer, later: Answer, asked: list[Asked]) -> bool:
    """Tell whether readers have a rule for the two: docs/operations/one-outcome.md.

    A result is taken over what was late or failed, which is ignored after it. It comes when the
    request was sent again, or, after an expiry, when it was delivered again to a worker with less
    before it. A conflict that was not seen, for Redis was slow, or seen only the second time, is
    decided by the first record.
    """
    if "conflict" in {first.code, later.code}:
        return {first.ending, later.ending} == {"rejected", "result"}
    if first.ending == "result":
        return later.ending in _IGNORED
    again = len(asked) > 1 or first.ending == "expired"
    return later.ending == "result" and first.ending in _IGNORED and again


def _stuck(window: list[Probe]) -> Iterator[Place]:
    """Yield the places that have lag all the time and never move."""
    first = window[0]
    for place in first.ends:
        if place[0] not in {*REQUESTS, EVENTS}:  # a retry waits on purpose
            continue
        begin = first.committed.get(place, 0)
        if begin < first.ends[place] and all(
            probe.committed.get(place, 0) == begin for probe in window
        ):
            yield place


def _final(endings: Iterator[str]) -> str:
    """Return what a reader goes by: the first, but a result supersedes what was late or failed."""
    all_ = list(endings)
    return "result" if "result" in all_ and all_[0] in _IGNORED else all_[0]


def _document(value: bytes | None) -> str:
    data = json.loads(value or b"")["data"]
    return f"document:{data['collection']}/{data['document_id']}"


def _told(record: Record) -> str:
    value: str = json.loads(record.value or b"")["value"]
    return value


def _which(asked: list[Asked]) -> str:
    if not asked:
        return "an unknown request"
    first = asked[0]
    return f"{first.sent.kind} {first.sent.request_id} at {spot(first.record)}"
