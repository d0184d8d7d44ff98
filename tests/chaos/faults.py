"""Which faults there are: what is done, under which load, and what must hold nevertheless."""

import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from tests.chaos import nemesis, outages
from tests.chaos.case import GIVEN_UP
from tests.chaos.checker import ENDINGS
from tests.chaos.load import USUAL
from tests.chaos.scene import Scene

Inject = Callable[[Scene, random.Random], Awaitable[None]]

_ALWAYS = ("I1", "I2", "I3", "I4", "I12")
_OUTAGE = (*_ALWAYS, "I5", "I7", "I10", "recovery", "memory")
_FAST_RETRIES = {"CORTEX_RETRIES__FIRST_DELAY_S": "0.5"}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of the plan.

    Attributes:
        bound_s: within so long it has healed, and everything is answered that was asked before.
        invariants: rules of the checker.
        mix: parts of the load by kind.
        proxied: workers reach the broker through the proxy.
        allowed: further endings of a kind.
        exits: exit codes that workers may have besides 0.
        environment: of the workers, on top of the usual.
    """

    what: str
    inject: Inject
    bound_s: float
    invariants: tuple[str, ...] = (*_ALWAYS, "exits")
    mix: Mapping[str, int] = field(default_factory=lambda: USUAL)
    rate_per_s: float = 100.0
    deadline_ms: int = 60_000
    lane_shares: tuple[int, ...] = (1, 1, 1, 1)
    proxied: bool = False
    allowed: Mapping[str, frozenset[str]] = field(default_factory=dict)
    exits: tuple[int, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


_KILLED: Mapping[str, frozenset[str]] = {kind: frozenset({GIVEN_UP}) for kind in ENDINGS}
"""Where workers are killed again and again, a record that ran alone may be taken for the cause."""

FAULTS: Mapping[str, Fault] = {
    "F01": Fault(
        "kill -9 of the worker at twelve code points",
        nemesis.killed_at_every_point,
        bound_s=300,
        invariants=(*_ALWAYS, "I5", "I7", "I8", "I10", "repeats", "exits"),
        allowed=_KILLED,
    ),
    "F01r": Fault(
        "kill -9 of the worker at ten random moments",
        nemesis.killed_at_random,
        bound_s=300,
        invariants=(*_ALWAYS, "I5", "I7", "I8", "I10", "repeats", "exits"),
        allowed=_KILLED,
    ),
    "F02": Fault(
        "SIGTERM under load, also while a run takes twice the grace",
        nemesis.terminated,
        bound_s=120,
        environment={"CORTEX_KAFKA__DRAIN_TIMEOUT_S": "2"},
    ),
    "F03": Fault(
        "the broker stops cleanly for 20 s",
        outages.broker_restarted,
        bound_s=180,
        invariants=(*_OUTAGE, "exits"),
    ),
    "F04": Fault(
        "kill -9 of the broker",
        outages.broker_killed,
        bound_s=180,
        invariants=(*_OUTAGE, "exits"),
    ),
    "F05": Fault(
        "the broker is frozen for 5, 15 or 60 s",
        outages.broker_frozen,
        bound_s=240,
        invariants=_OUTAGE,
    ),
    "F05l": Fault(
        "the broker is frozen for 60 s, twice",
        partial(outages.broker_frozen, for_s=(60,), times=2),
        bound_s=240,
        invariants=_OUTAGE,
    ),
    "F06": Fault(
        "a worker is frozen for longer than its session",
        nemesis.frozen,
        bound_s=120,
        invariants=(*_ALWAYS, "I5", "I10", "exits"),
    ),
    "F06l": Fault(
        "a worker is frozen for 60 s",
        partial(nemesis.frozen, sessions=20),
        bound_s=240,
        invariants=(*_ALWAYS, "I5", "I10", "recovery", "exits"),
    ),
    "F07": Fault(
        "nothing arrives for 5 s, three times",
        outages.disconnected,
        bound_s=240,
        invariants=(*_OUTAGE, "exits"),
        proxied=True,
    ),
    "F08": Fault(
        "one way silent, half-open, reset every 2 s",
        outages.cut_off,
        bound_s=240,
        invariants=(*_ALWAYS, "I7", "I10"),
        proxied=True,
    ),
    "F09": Fault(
        "1 Mbit/s and 200 ms of jitter",
        outages.slow_link,
        bound_s=240,
        invariants=(*_ALWAYS, "I7", "exits"),
        rate_per_s=40,
        proxied=True,
    ),
    "F10": Fault(
        "the broker comes and goes",
        outages.flapping,
        bound_s=300,
        invariants=(*_ALWAYS, "I7", "I10", "connections"),
        proxied=True,
    ),
    "F11": Fault(
        "the broker is away for longer than CORTEX_KAFKA__STALL_TIMEOUT_S, shortened to 20 s",
        partial(outages.broker_gone, for_s=32),
        bound_s=240,
        invariants=(*_OUTAGE, "exits", "stall"),
        exits=(4,),
        environment={"CORTEX_KAFKA__STALL_TIMEOUT_S": "20"},
    ),
    "F11l": Fault(
        "the broker is away for longer than CORTEX_KAFKA__STALL_TIMEOUT_S, 120 s",
        partial(outages.broker_gone, for_s=140),
        bound_s=400,
        invariants=(*_OUTAGE, "exits", "stall"),
        exits=(4,),
    ),
    "F13": Fault(
        "workers join and leave every 3 s, and none stays",
        nemesis.crowded,
        bound_s=180,
        allowed=_KILLED,
        invariants=(*_ALWAYS, "I5", "exits"),
    ),
    "F13l": Fault(
        "two workers join and leave every 3 s beside one that stays, for three minutes",
        nemesis.visited,
        bound_s=400,
        allowed=_KILLED,
        invariants=(*_ALWAYS, "I5", "storm", "exits"),
        rate_per_s=250,  # enough to keep them busy, else the throughput would be that of the load
    ),
    "F14": Fault(
        "a static member is away for less than its session, twice, and then for longer",
        nemesis.restarted_in_time,
        bound_s=240,
        invariants=(*_ALWAYS, "I5", "I7", "I10", "exits"),
    ),
    "F16": Fault(
        "Redis killed, then frozen",
        outages.redis_away,
        bound_s=120,
        invariants=(*_ALWAYS, "I7", "I10", "exits"),
    ),
    "F16l": Fault(
        "Redis is away for a minute",
        outages.redis_gone,
        bound_s=240,
        invariants=(*_OUTAGE, "exits"),
    ),
    "F21": Fault(
        "a worker may open no more files; another may open few from its start",
        nemesis.out_of_descriptors,
        bound_s=240,
        invariants=(*_ALWAYS, "I5", "I7", "I10"),
        proxied=True,
    ),
    "F23": Fault(
        "records dated 1970, 2100, six days ago and an hour ahead",
        nemesis.left_alone,
        bound_s=90,
        mix={"odd_time": 50, "embed": 50},
    ),
    "F25": Fault(
        "a fifth of a processor",
        nemesis.starved,
        bound_s=180,
        invariants=(*_ALWAYS, "I5", "exits"),
        rate_per_s=40,
    ),
    "F26": Fault(
        "a run that never comes back",
        nemesis.stuck,
        bound_s=240,
        invariants=_ALWAYS,
        allowed={kind: frozenset({"dead_letter", GIVEN_UP}) for kind in ENDINGS},
        environment={"CORTEX_INFERENCE__RUN_TIMEOUT_S": "2", **_FAST_RETRIES},
    ),
    "F31": Fault(
        "texts that break the model or kill the worker",
        nemesis.poisoned,
        bound_s=300,
        invariants=_ALWAYS,
        environment=_FAST_RETRIES,
    ),
    "F32": Fault(
        "records at and beyond the size limit",
        nemesis.left_alone,
        bound_s=120,
        mix={"embed": 80, "oversized": 20},
        rate_per_s=10,
    ),
    "F33": Fault(
        "malformed records, two in three",
        nemesis.left_alone,
        bound_s=90,
        mix={"malformed": 65, "embed": 30, "event": 5},
    ),
    "F34": Fault(
        "the same id again, with the same payload and with another",
        nemesis.left_alone,
        bound_s=90,
        mix={"embed": 40, "duplicate": 40, "conflict": 20},
    ),
    "F35": Fault(
        "deadlines before, at and after the answer",
        nemesis.left_alone,
        bound_s=90,
        invariants=(*_ALWAYS, "I8", "exits"),
        mix={"embed": 20, "patient": 50, "expired": 30},
        deadline_ms=15,
    ),
    "F36": Fault(
        "three times as much as one worker can do, with a deadline of 2 s",
        nemesis.left_alone,
        bound_s=90,
        invariants=(*_ALWAYS, "I7", "I8", "exits"),
        mix={"patient": 100},
        rate_per_s=300,
        deadline_ms=2000,
        environment={"CHAOS_ROW_S": "0.02"},
    ),
    "F37": Fault(
        "a flood of low priority beside a few critical requests",
        nemesis.left_alone,
        bound_s=180,
        invariants=(*_ALWAYS, "I6", "I7", "exits"),
        mix={"embed": 100},
        rate_per_s=250,
        lane_shares=(1, 1, 1, 60),
        environment={"CHAOS_ROW_S": "0.01"},
    ),
    "F37c": Fault(
        "a flood of critical requests beside more low ones than their share",
        nemesis.left_alone,
        bound_s=180,
        invariants=(*_ALWAYS, "floor", "I7", "exits"),
        mix={"embed": 100},
        rate_per_s=250,
        lane_shares=(60, 1, 1, 10),
        environment={"CHAOS_ROW_S": "0.01"},
    ),
    "F38": Fault(
        "five replays of one lane at once, one killed and resumed, one cancelled",
        nemesis.replayed,
        bound_s=240,
        invariants=(*_ALWAYS, "I5", "I6", "I7", "I10", "I11", "exits"),
        mix={"embed": 85, "duplicate": 10, "event": 5},
    ),
    "F39": Fault(
        "every run fails for some seconds",
        nemesis.model_down,
        bound_s=240,
        invariants=(*_ALWAYS, "I5", "I7", "I10", "retries", "exits"),
        allowed={kind: frozenset({"dead_letter"}) for kind in ENDINGS},
        environment={"CORTEX_RETRIES__FIRST_DELAY_S": "4"},
    ),
    "F40": Fault(
        "the topic of results refuses writes",
        outages.results_refused,
        bound_s=180,
        invariants=(*_ALWAYS, "I10"),
    ),
    "F41": Fault(
        "broker, Redis and worker killed and frozen in a drawn order",
        outages.swizzled,
        bound_s=400,
        invariants=_ALWAYS,
        allowed=_KILLED,
    ),
}
ONE_KILL = Fault(
    "kill -9 of the worker, once: what a worker that was made wrong must not survive",
    nemesis.killed_once,
    bound_s=120,
    invariants=("I1", "I2", "I3", "I12"),
    mix={"embed": 70, "malformed": 20, "event": 10},
)
SMOKE = ("F01", "F02", "F04", "F06", "F13", "F31", "F33")
"""Those that every run of the tests injects."""

NOT_INJECTED: Mapping[str, str] = {
    "F12": "one silent partition: the proxy does not read the protocol; see the watchdog's tests",
    "F15": "topics deleted or made anew end the worker with a message: see the tests of the edge",
    "F17": "the cache that it concerns is not built",
    "F18": "no worker uses PostgreSQL yet",
    "F19": "no worker uses PostgreSQL yet",
    "F20": "a file system of its own to fill needs rights that a developer's machine may not give",
    "F22": "a preloaded library could fake the clock; no C compiler and no such library is assumed",
    "F24": "a control group needs rights; see the tests of the memory watch",
    "F27": "needs real models: see the tests of the registry",
    "F28": "needs real models: see the tests of the registry",
    "F29": "needs real models: see the tests of the registry",
    "F30": "models are not deployed into running workers yet",
    "F42": "needs an earlier release",
}
"""Faults of the plan that this suite leaves out, and why."""
CAUGHT_BY: Mapping[str, str] = {
    "acknowledge-early": "I3",
    "commit-past-unfinished": "I3",
    "drop-dead-letters": "I12",
    "lose-every-100th": "I1",
    "answer-twice-differently": "I2",
    "swap-priorities": "I6",
    "starve-low-ones": "floor",
}
"""The invariant that each mutation breaks."""
SHOWN_BY: Mapping[str, str] = {"swap-priorities": "F37", "starve-low-ones": "F37c"}
"""The faults under which mutations show that one kill does not bring to light."""
