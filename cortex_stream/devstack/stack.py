"""Kafka, Redis and PostgreSQL together, in one folder.

Invariants:
    Only one command at a time changes a stack: a file lock beside the folder says which.
    No process is started twice, no foreign process is touched, no foreign file is deleted.

Owner: any thread or process; a `Stack` holds nothing but its address.
"""

import fcntl
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

from cortex_stream.devstack.kafka import MECHANISM, USERNAME, Kafka
from cortex_stream.devstack.ports import HOST
from cortex_stream.devstack.postgres import Postgres
from cortex_stream.devstack.progress import Progress, Quiet
from cortex_stream.devstack.redis import Redis
from cortex_stream.devstack.service import Service, ServiceStatus
from cortex_stream.devstack.state import State, choose_ports, replace_taken_ports
from cortex_stream.errors import StackFailed

DEFAULT_NAME: Final = "default"  # the stack of this name takes the services' usual ports
_SERVICES: Final = ("kafka", "redis", "postgres")
_QUIET: Final = Quiet()
_T = TypeVar("_T")


class Stack:
    """The three services whose data live in `folder`.

    Args:
        folder: made by the first `up`. Stacks of different folders run side by side.
        secure: at the first `up`, also give Kafka a listener with TLS and a password; later the
            stack remembers it.
    """

    def __init__(self, folder: Path, *, secure: bool = False) -> None:
        self.folder = folder.absolute()
        self._secure = secure

    # ---- commands --------------------------------------------------------------------------------

    def up(self, progress: Progress = _QUIET) -> None:
        """Start whatever does not run and return when all three answer. Idempotent.

        Raises:
            StackFailed: a service did not start; the others stay up.
            ArtifactFailed: Kafka could not be downloaded.
        """
        self._start(_SERVICES, progress)

    def start_service(self, name: str, progress: Progress = _QUIET) -> None:
        """Start one service, as `up` does."""
        self._start((name,), progress)

    def stop_service(self, name: str, progress: Progress = _QUIET) -> None:
        """Stop one service, as `down` does."""
        with self._locked():
            self._services(self._known())[name].stop(progress)

    def down(self, progress: Progress = _QUIET) -> None:
        """Stop whatever runs and return when it has ended. The data stay. Idempotent."""
        if self.folder.exists():
            with self._locked():
                self._stop_all(progress)

    def wipe(self, progress: Progress = _QUIET) -> None:
        """Stop everything and delete the data. Idempotent.

        Raises:
            StackFailed: the folder is not a stack's; nothing was touched.
        """
        if not self.folder.exists():
            return
        with self._locked():
            if State.read_or_none(self.folder) is None:
                raise StackFailed(f"wiping {self.folder}: it holds no stack.json, so no stack")
            self._stop_all(progress)
            for name in _SERVICES:
                shutil.rmtree(self.folder / name, ignore_errors=True)
            (self.folder / "stack.json").unlink()
            if not any(self.folder.iterdir()):  # else something of the user's lies here too
                self.folder.rmdir()

    # ---- answers ---------------------------------------------------------------------------------

    def status(self) -> list[ServiceStatus]:
        """Ask every service how it is."""
        services = self._services(self._known()).values()
        return _in_parallel(Service.status, services)

    def pid(self, name: str) -> int | None:
        """Return the process id of a service, None while it does not run."""
        running = self._services(self._known())[name].process_or_none()
        return running.pid if running else None

    @property
    def kafka_brokers(self) -> str:
        """The bootstrap address: of the secure listener if the stack has one."""
        state = self._known()
        return f"{HOST}:{state.ports['kafka-secure' if state.secure else 'kafka']}"

    @property
    def redis_url(self) -> str:
        """The address of Redis."""
        return f"redis://{HOST}:{self._known().ports['redis']}/0"

    @property
    def postgres_url(self) -> str:
        """The address of the default database, which has the extension `vector`."""
        return f"postgresql://postgres@{HOST}:{self._known().ports['postgres']}/postgres"

    def environment(self) -> dict[str, str]:
        """Return the variables that point cortex-stream to this stack.

        Raises:
            StackFailed: the stack was never started.
        """
        variables = {
            "KAFKA_BROKERS": self.kafka_brokers,
            "REDIS_URL": self.redis_url,
            "POSTGRES_URL": self.postgres_url,
        }
        if self._known().secure:
            kafka = self._kafka(self._known())
            security = {
                "PROTOCOL": "SASL_SSL",
                "CA_FILE": str(kafka.authority_file),
                "MECHANISM": MECHANISM,
                "USERNAME": USERNAME,
                "PASSWORD_FILE": str(kafka.password_file),
            }
            variables |= {f"CORTEX_KAFKA__SECURITY__{k}": v for k, v in security.items()}
        return variables

    # ---- inside ----------------------------------------------------------------------------------

    def _start(self, names: Iterable[str], progress: Progress) -> None:
        with self._locked():
            self.folder.mkdir(parents=True, exist_ok=True)
            state = self._checked_state(progress)
            try:
                self._start_at(state, names, progress)
            except StackFailed:
                # A port that was free when it was chosen may be taken by now, as by another stack.
                moved = self._checked_state(progress)
                if moved == state:
                    raise
                self._start_at(moved, names, progress)

    def _start_at(self, state: State, names: Iterable[str], progress: Progress) -> None:
        state.write(self.folder)
        services = self._services(state)
        _in_parallel(lambda service: service.start(progress), [services[n] for n in names])

    def _checked_state(self, progress: Progress) -> State:
        state = State.read_or_none(self.folder)
        if state is None:
            if any(self.folder.iterdir()):
                raise StackFailed(f"starting in {self.folder}: it holds something else")
            usual = self.folder.name == DEFAULT_NAME
            ports = choose_ports(secure=self._secure, usual=usual)
            return State(secure=self._secure, ports=ports)
        if self._secure and not state.secure:
            raise StackFailed(
                f"starting {self.folder} with a secure listener: it was made without",
                repair="choose another --name, or cortex-stream stack wipe",
            )
        running = {n for n, s in self._services(state).items() if s.process_or_none() is not None}
        return replace_taken_ports(state, running=running, progress=progress)

    def _stop_all(self, progress: Progress) -> None:
        state = State.read_or_none(self.folder)
        if state is not None:
            _in_parallel(lambda service: service.stop(progress), self._services(state).values())

    def _known(self) -> State:
        state = State.read_or_none(self.folder)
        if state is None:
            raise StackFailed(
                f"looking for a stack in {self.folder}: none was ever started",
                repair="cortex-stream stack up",
            )
        return state

    def _kafka(self, state: State) -> Kafka:
        return Kafka(
            folder=self.folder / "kafka",
            port=state.ports["kafka"],
            controller_port=state.ports["kafka-controller"],
            secure_port=state.ports.get("kafka-secure"),
        )

    def _services(self, state: State) -> dict[str, Service]:
        recipes = (
            self._kafka(state),
            Redis(self.folder / "redis", state.ports["redis"]),
            Postgres(self.folder / "postgres", state.ports["postgres"]),
        )
        return {recipe.name: Service(recipe) for recipe in recipes}

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Wait for other commands on this stack. The lock file outlives a wipe, as it must."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with self.folder.with_name(f"{self.folder.name}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _in_parallel(action: Callable[[Service], _T], services: Iterable[Service]) -> list[_T]:
    """Run the action on all; raise the first error when all have ended."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(action, services))
