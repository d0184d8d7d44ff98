"""Whether a runner can be trusted with work, by its runs and its probes. Pure.

A run that gives numbers proves a runner as well as a probe does, so a busy one is never probed. A
runner goes out of service after several failed probes in a row, or at once when its device fails
under a run; the first probe that passes brings it back.

Invariants: a runner that is out is probed at most every `probe_every_s`, and never run otherwise.
Owner: whoever calls it; it holds no lock.
"""

from dataclasses import dataclass
from enum import StrEnum


class RunnerState(StrEnum):
    """What a runner is doing for its model."""

    HEALTHY = "healthy"  # takes batches
    STANDBY = "standby"  # could take batches, and leaves them to runners on a better device
    OUT = "out"  # failed; probed until it works again


@dataclass(frozen=True, slots=True)
class HealthRule:
    """When a runner is probed, and what follows.

    Attributes:
        probe_every_s: a runner without a success for so long is probed.
        probe_timeout_s: a probe that is not back after it has failed, and again after each more.
        max_failed_probes: so many in a row put a runner out of service.
        give_up_after_s: without any runner in service for so long, only a restart can help. It is
            the time of three more probes.
    """

    probe_every_s: float = 5.0
    probe_timeout_s: float = 3.0
    max_failed_probes: int = 3
    give_up_after_s: float = 15.0


class Health:
    """The health of one runner, which has just been proven when this is made."""

    def __init__(self, rule: HealthRule, *, now_s: float) -> None:
        self._rule = rule
        self._failed_probes = 0
        self._probe_at_s = now_s + rule.probe_every_s
        self.out = False
        """Whether it must not be given work."""

    def passed(self, *, now_s: float) -> None:
        """A run or a probe gave numbers: whatever was before is forgotten."""
        self._failed_probes = 0
        self._probe_at_s = now_s + self._rule.probe_every_s
        self.out = False

    def probe_failed(self, *, now_s: float) -> None:
        """A probe raised, or was not back in time."""
        self._failed_probes += 1
        self._probe_at_s = now_s + self._rule.probe_every_s
        self.out = self.out or self._failed_probes >= self._rule.max_failed_probes

    def device_failed(self, *, now_s: float) -> None:
        """A run found the device lost or out of memory: there is nothing to wait for."""
        self._probe_at_s = now_s + self._rule.probe_every_s
        self.out = True

    def probe_in_s(self, *, now_s: float) -> float:
        """Return the seconds until it must be probed; 0 when that is due."""
        return max(0.0, self._probe_at_s - now_s)
