"""How soon, how fast and how large a system is after what was done to it."""

from collections.abc import Iterator
from statistics import median

from tests.chaos.case import EVENTS, REQUESTS, Case
from tests.chaos.history import Deed, Place

_LOOKS = 10
_SAYS_SOMETHING_MS = 10_000
_NEVER_MS = 1 << 62
_BACK_WITHIN_S = 10.0
_MOST_RSS = 1.10
_LEAST_THROUGHPUT = 0.3
_STANDSTILL_S = 30.0
_NOT_READY_MS = 10_000
_STALLED = 4


def kills(case: Case) -> int:
    """Return how many processes were ended by SIGKILL: workers, broker and Redis."""
    deeds = case.evidence.deeds
    told = [deed.detail for deed in deeds if deed.what == "inject"]
    services = [each for each in told if each.startswith("SIGKILL of ") and "worker" not in each]
    return len(services) + sum(deed.what == "exit" and deed.code == -9 for deed in deeds)


def outages(case: Case) -> Iterator[tuple[Deed, Deed, int]]:
    """Yield each fault, its heal, and when the next fault came, in Unix milliseconds."""
    injected: Deed | None = None
    deeds = case.evidence.deeds
    for at, deed in enumerate(deeds):
        if deed.what == "inject":
            injected = deed
        elif deed.what == "heal" and injected is not None:
            further = (d.at_ms for d in deeds[at:] if d.what == "inject")
            yield injected, deed, min(further, default=_NEVER_MS)
            injected = None


def recoveries_s(case: Case) -> Iterator[tuple[Deed, str, float]]:
    """Yield how long each lane took after each heal until it was answered again, in s.

    Only answers to what was asked since the fault began count: nobody can have had them ready.
    A lane that got none until the next fault took until then; less than 10 s say nothing.
    """
    for injected, heal, until_ms in outages(case):
        telling = until_ms < _NEVER_MS and until_ms - heal.at_ms > _SAYS_SOMETHING_MS
        for lane, at_ms in _answered_ms(case, injected, heal).items():
            if at_ms < until_ms or telling:
                yield heal, lane, (min(at_ms, until_ms) - heal.at_ms) / 1000


def rss_ratios(case: Case) -> tuple[float, float] | None:
    """Return the memory of workers at the end and at its most, over that before the last fault.

    The first backlog fills a heap that nothing had filled before, by some MB; the next must not add
    to it. None where no worker was ready before it.
    """
    deeds = case.evidence.deeds
    begin_ms = max((deed.at_ms for deed in deeds if deed.what == "inject"), default=0)
    looks = [
        (probe.at_ms, worker.ready == 200, worker.rss_bytes)
        for probe in case.evidence.probes
        for worker in probe.workers
    ]
    before = [rss for at_ms, ready, rss in looks if ready and at_ms < begin_ms][-_LOOKS:]
    after = [rss for at_ms, ready, rss in looks if ready and at_ms >= begin_ms][-_LOOKS:]
    if len(before) < _LOOKS or not after:
        return None
    usual, most = median(before), max(rss for at_ms, _, rss in looks if at_ms >= begin_ms)
    return round(median(after) / usual, 3), round(most / usual, 3)


def throughput_ratio(case: Case) -> float | None:
    """Return the pace of first outcomes from the first fault to the last heal, over that before."""
    deeds = case.evidence.deeds
    ready_ms = min((deed.at_ms for deed in deeds if deed.what == "heal"), default=0)
    begin_ms = min((deed.at_ms for deed in deeds if deed.what == "inject"), default=0)
    end_ms = max((deed.at_ms for deed in deeds if deed.what == "heal"), default=0)
    if not ready_ms < begin_ms < end_ms:
        return None
    at_ms = [answers[0].record.timestamp_ms for answers in case.answers.values()]
    usual = sum(ready_ms <= each < begin_ms for each in at_ms) / (begin_ms - ready_ms)
    disturbed = sum(begin_ms <= each < end_ms for each in at_ms) / (end_ms - begin_ms)
    return round(disturbed / usual, 3) if usual else None


def standstills_s(case: Case) -> dict[Place, float]:
    """Return the longest time that each partition had lag and did not move, in s.

    A look at which the broker gave no answer says nothing.
    """
    longest: dict[Place, float] = {}
    since: dict[Place, tuple[int, int]] = {}
    for probe in case.evidence.probes:
        for place in probe.ends:
            if place[0] not in {*REQUESTS, EVENTS}:  # a retry waits on purpose
                continue
            offset = probe.committed.get(place, 0)
            known, at_ms = since.get(place, (-1, 0))
            if offset != known or offset >= probe.ends[place]:
                at_ms = probe.at_ms
                since[place] = offset, at_ms
            longest[place] = max(longest.get(place, 0.0), (probe.at_ms - at_ms) / 1000)
    return longest


def processing_is_soon_back(case: Case) -> Iterator[str]:
    """Of outages: ten seconds after the heal every lane is answered again."""
    yield from _without_outage(case)
    for heal, lane, took_s in recoveries_s(case):
        if took_s > _BACK_WITHIN_S:
            yield f"{lane}: answered again {took_s:.1f} s after {heal.detail}"


def memory_comes_back(case: Case) -> Iterator[str]:
    """Of outages: what a worker holds in the end is what it held before."""
    yield from _without_outage(case)
    ratios = rss_ratios(case)
    if ratios is None:
        yield "no worker was ready before the fault and after it"
    elif ratios[0] > _MOST_RSS:
        yield f"workers hold {ratios[0]:.2f} times the memory of before"


def joining_and_leaving_leaves_time_to_work(case: Case) -> Iterator[str]:
    """Of rebalances without end: a third of the usual pace, and no partition waits for long."""
    yield from _without_outage(case)
    ratio = throughput_ratio(case)
    if ratio is None or ratio < _LEAST_THROUGHPUT:
        yield f"{ratio} of the usual throughput"
    for place, longest_s in standstills_s(case).items():
        if longest_s > _STANDSTILL_S:
            yield f"{place} stood still for {longest_s:.0f} s"


def a_stalled_worker_gives_up(case: Case) -> Iterator[str]:
    """Of a broker that is gone: not ready within 10 s; the exit code tells the supervisor why."""
    yield from _without_outage(case)
    for injected, heal, _ in outages(case):
        for probe in case.evidence.probes:
            if injected.at_ms + _NOT_READY_MS <= probe.at_ms < heal.at_ms:
                for worker in probe.workers:
                    if worker.ready == 200:
                        late_s = (probe.at_ms - injected.at_ms) / 1000
                        yield f"worker {worker.pid} was ready {late_s:.1f} s after the fault"
        codes = [
            deed.code
            for deed in case.evidence.deeds
            if deed.what == "exit" and injected.at_ms <= deed.at_ms < heal.at_ms
        ]
        if codes != [_STALLED]:
            yield f"workers ended with {codes}, not once with {_STALLED}"


def _without_outage(case: Case) -> Iterator[str]:
    """Say so where nothing was broken and healed: then nothing has been shown."""
    if not any(outages(case)):
        yield "no fault with its heal was noted"


def _answered_ms(case: Case, injected: Deed, heal: Deed) -> dict[str, int]:
    """Return by lane when the first request since a fault was answered after its heal."""
    found: dict[str, int] = {}
    for outcome_id, asked in case.asked.items():
        record = asked[0].record
        if record.timestamp_ms >= injected.at_ms:
            at_ms = [answer.record.timestamp_ms for answer in case.answers.get(outcome_id, ())]
            if not at_ms or at_ms[-1] >= heal.at_ms:
                after_ms = min((each for each in at_ms if each >= heal.at_ms), default=_NEVER_MS)
                found[record.topic] = min(found.get(record.topic, _NEVER_MS), after_ms)
    return found
