"""What a stack remembers between commands: `stack.json`, the mark of a stack's folder."""

from pathlib import Path
from typing import Final, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from cortex_stream.devstack import ports
from cortex_stream.devstack.progress import Progress
from cortex_stream.errors import StackFailed

_USUAL_PORTS: Final = {
    "kafka": 9092,
    "kafka-controller": 9093,
    "kafka-secure": 9094,
    "redis": 6379,
    "postgres": 5432,
}


_RELEASE_S: Final = 3.0  # a killed JVM holds its port for a few hundred milliseconds


class State(BaseModel):
    """Ports by listener, and whether Kafka demands a password on one of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    secure: bool
    ports: dict[str, int]

    @classmethod
    def read_or_none(cls, folder: Path) -> Self | None:
        """Return what the folder remembers, or None when no stack was ever started there.

        Raises:
            StackFailed: the file is there and cannot be read.
        """
        path = folder / "stack.json"
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (ValidationError, OSError) as error:
            raise StackFailed(
                f"reading {path}: {error}", repair=f"remove the folder {folder}"
            ) from error

    def write(self, folder: Path) -> None:
        """Keep this in the folder, whole or not at all."""
        unfinished = folder / "stack.json.new"
        unfinished.write_text(self.model_dump_json(indent=2), encoding="utf-8")
        unfinished.replace(folder / "stack.json")


def choose_ports(*, secure: bool, usual: bool) -> dict[str, int]:
    """Return a free port for every listener; the usual ones where they are wanted and free."""
    chosen: dict[str, int] = {}
    for listener, port in _USUAL_PORTS.items():
        if secure or listener != "kafka-secure":
            chosen[listener] = ports.choose(
                preferred=port if usual else None, avoid=chosen.values()
            )
    return chosen


def replace_taken_ports(state: State, *, running: set[str], progress: Progress) -> State:
    """Return the state with new ports for those stopped services whose port others hold now."""
    chosen = dict(state.ports)
    for listener, port in state.ports.items():
        service = listener.partition("-")[0]
        if service not in running and not ports.becomes_free(port, within_s=_RELEASE_S):
            chosen[listener] = ports.choose(preferred=None, avoid=chosen.values())
            progress.say(
                f"port {port} is taken by another program: {listener} moves to {chosen[listener]}"
            )
    return state.model_copy(update={"ports": chosen})
