"""What a round leaves behind, one JSON object a line, and how it is read again.

`history.jsonl` holds what the load did: `invoke`, then `ok`, `fail` or `info` (nobody knows).
`nemesis.jsonl` holds what was done to the system, `probe.jsonl` what it looked like meanwhile, and
`snapshots.jsonl` what was committed while no worker ran.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

Identity = Literal["data", "bytes", "place"]
Place = tuple[str, int]  # topic without prefix, partition


@dataclass(frozen=True, slots=True)
class Sent:
    """One produce.

    Attributes:
        kind: what was asked, which decides how it may end.
        topic: without prefix.
        sha256: of the value, in hex.
        request_id: what the outcome must name; None where none can be read.
        identity: what its outcome id is made of: type and data, the value's bytes, or the place.
        deadline_ms: when the caller stops waiting, in Unix milliseconds.
        state: `info` until the broker answered.
    """

    number: int
    kind: str
    topic: str
    sha256: str
    request_id: str | None
    identity: Identity = "data"
    deadline_ms: int | None = None
    state: Literal["ok", "fail", "info"] = "info"
    partition: int = -1
    offset: int = -1


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the group had committed, then how far the topics reached; no worker ran meanwhile."""

    label: str
    at_ms: int
    committed: Mapping[Place, int]
    ends: Mapping[Place, int]


@dataclass(frozen=True, slots=True)
class WorkerProbe:
    """One worker process. `ready` is the status of `/readyz`, 0 when nobody answered."""

    pid: int
    rss_bytes: int
    fds: int
    ready: int


@dataclass(frozen=True, slots=True)
class Probe:
    """One look at the system; committed and ends are empty when the broker gave no answer.

    Attributes:
        connections: that were ever made to the proxy.
    """

    at_ms: int
    committed: Mapping[Place, int]
    ends: Mapping[Place, int]
    workers: tuple[WorkerProbe, ...]
    connections: int = 0


@dataclass(frozen=True, slots=True)
class Deed:
    """Something that happened: `inject`, `heal`, or the `exit` of a worker with its code."""

    at_ms: int
    what: Literal["inject", "heal", "exit"]
    detail: str
    code: int = 0
    expected: bool = True


class Journal:
    """Appends JSON lines to a file."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8", buffering=1)

    def write(self, **fields: Any) -> None:
        self._file.write(json.dumps(fields) + "\n")

    def close(self) -> None:
        self._file.close()


def invoked(journal: Journal, sent: Sent) -> None:
    """Note a produce before it happens, so that no crash of ours can hide it."""
    fields = asdict(sent)
    for unknown in ("state", "partition", "offset"):
        del fields[unknown]
    journal.write(op="invoke", **fields)


def read_sent(path: Path) -> list[Sent]:
    found: dict[int, Sent] = {}
    for line in _lines(path):
        op, number = line.pop("op"), line["number"]
        if op == "invoke":
            found[number] = Sent(**line)
        else:
            found[number] = replace(found[number], state=op, **line)
    return list(found.values())


def read_snapshots(path: Path) -> list[Snapshot]:
    return [
        Snapshot(
            line["label"], line["at_ms"], read_places(line["committed"]), read_places(line["ends"])
        )
        for line in _lines(path)
    ]


def read_probes(path: Path) -> list[Probe]:
    return [
        Probe(
            line["at_ms"],
            read_places(line["committed"]),
            read_places(line["ends"]),
            tuple(WorkerProbe(**worker) for worker in line["workers"]),
            line["connections"],
        )
        for line in _lines(path)
    ]


def read_deeds(path: Path) -> list[Deed]:
    return [Deed(**line) for line in _lines(path)]


def written_places(offsets: Mapping[Place, int]) -> dict[str, int]:
    """Return offsets as JSON can hold them."""
    return {f"{topic}/{partition}": offset for (topic, partition), offset in offsets.items()}


def read_places(written: Mapping[str, int]) -> dict[Place, int]:
    return {
        (topic, int(partition)): offset
        for place, offset in written.items()
        for topic, _, partition in (place.rpartition("/"),)
    }


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if path.exists():
        yield from map(json.loads, path.read_text(encoding="utf-8").splitlines())
