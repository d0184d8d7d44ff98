"""Judges replays: what was put back, and what it did to everybody else.

Shares no code with the worker.
"""

import json
from collections import defaultdict
from collections.abc import Iterator

from tests.chaos.case import REPLAYED, REPLAYS, REQUESTS, Answer, Case, spot

LOW = REQUESTS[3]
"""The lane that is replayed."""
BEGUN, CANCELLED = "replay ", "cancel "
"""How deeds tell of a replay: with its id after it."""


def replays_are_whole_and_apart(case: Case) -> Iterator[str]:
    """I11: what a replay chose is put back, answered under its id, and as it was the first time.

    That live outcomes and offsets stay as they are is what I1, I2 and I5 say. A replay that was
    cancelled need not be whole.
    """
    deeds = case.evidence.deeds
    begun = {
        deed.detail.removeprefix(BEGUN): deed.at_ms
        for deed in deeds
        if deed.detail.startswith(BEGUN)
    }
    cancelled = {d.detail.removeprefix(CANCELLED) for d in deeds if d.detail.startswith(CANCELLED)}
    put_back: dict[str, set[tuple[str, int, int]]] = defaultdict(set)
    for record in case.evidence.of(REPLAYS):
        said = json.loads(dict(record.headers)["cortex_handover"] or b"")
        topic = said["topic"].removeprefix(f"{case.evidence.prefix}.")
        put_back[said["reinjection"]["replay_id"]].add((topic, said["partition"], said["offset"]))
    if not begun:
        yield "no replay was noted"
    for name, at_ms in begun.items():
        chosen = {spot(r) for r in case.evidence.of(LOW) if r.timestamp_ms < at_ms}
        if name not in cancelled and (missing := chosen - put_back[name]):
            yield f"{name}: {len(missing)} of {len(chosen)} records were not put back"
    yield from _answers(case, put_back)


def _answers(case: Case, put_back: dict[str, set[tuple[str, int, int]]]) -> Iterator[str]:
    """Judge the outcomes of replays."""
    found: dict[tuple[str | None, str | None], list[Answer]] = defaultdict(list)
    for record in case.evidence.of(REPLAYED):
        event = json.loads(record.value or b"")
        answer = Answer(record, event["type"].split(".")[2], event["data"])
        found[answer.data["replay_id"], answer.data["request_id"]].append(answer)
    asked = {
        (name, case.asked[case.id_at[at]][0].sent.request_id): case.id_at[at]
        for name, spots in put_back.items()
        for at in spots
    }
    for (name, request_id), outcome_id in asked.items():
        answers = found.get((name, request_id), [])
        if not answers:
            yield f"{name}: {request_id} was put back and not answered"
        live = case.answers.get(outcome_id, [])[:1]
        if any(each.says != live[0].says for each in answers if live):
            yield f"{name}: {request_id} is answered otherwise than the first time"
    for stranger, request_id in found.keys() - asked.keys():
        yield f"an outcome of {stranger} for {request_id}, which it did not put back"
