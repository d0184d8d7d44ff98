"""`python -m tests.chaos.worker`: the product's worker with a stub model, and points where it dies.

Everything is put around the product from outside, at the start of the process. A file in the folder
`CHAOS_BARRIERS`, named after a point and holding a number N, arms the point: at the N-th passage
from then on the process kills itself, once. `CHAOS_MUTATION` names a way in which the worker is
made wrong (`mutations.py`). While there is a file `model-down` in the folder, every run fails.
"""

import inspect
import os
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiokafka.conn

import agents.consumer_thread
import agents.outbox
import agents.track
import cortex_stream.engine.reading
import cortex_stream.kafka.commits
import cortex_stream.kafka.producer
import cortex_stream.scheduling.fair_queue
import cortex_stream.scheduling.waiting
from agents.intake import Intake
from agents.stub_worker import run_worker
from cortex_stream.environment import subprocess_environment
from cortex_stream.errors import InferenceFailed
from cortex_stream.inference.model import LoadedModel
from cortex_stream.inference.tensors import FloatRows
from cortex_stream.inference.tokenizer import TokenRow
from cortex_stream.settings.tree import Settings
from cortex_stream.testing.stub_runner import StubRunner, stub_model, stub_tokenizer
from topics.names import ATTEMPTS

_PRODUCE, _OFFSET_COMMIT = 0, 8  # api keys, Kafka protocol guide
_RUNNERS = 2
_ROW_S = "0.002"
_SLOW_S = 12.0  # twice the grace of a stop

Told = Callable[..., bool]


class Barrier:
    """One point. Passing it costs a look at the file system."""

    def __init__(self, folder: Path, point: str) -> None:
        self._file = folder / point
        self._left: int | None = None
        self._lock = threading.Lock()

    def passed(self) -> None:
        if not self._file.exists():
            return
        with self._lock, suppress(FileNotFoundError):
            if self._left is None:
                self._left = int(self._file.read_text(encoding="utf-8"))
            self._left -= 1
            if self._left <= 0:
                self._file.unlink()  # once, whoever is first
                os.kill(os.getpid(), signal.SIGKILL)


def _always(*_: object) -> bool:
    return True


def _api_key(wanted: int) -> Told:
    def told(_result: object, _connection: object, request: Any, *_: object) -> bool:
        return bool(wanted == request.API_KEY)

    return told


# Where, in what, and after which results and arguments; `before` is passed at the call, where there
# is no result yet, `after` at the return.
POINTS: dict[str, tuple[Any, str, str, Told]] = {
    "after-poll": (
        agents.consumer_thread.EdgeConsumerThread,
        "poll",
        "after",
        lambda polled, *_: polled is not None and bool(polled.taken),
    ),
    "after-parse": (cortex_stream.engine.reading, "decode", "after", _always),
    "after-queue": (cortex_stream.scheduling.fair_queue.FairQueue, "push", "after", _always),
    "after-batch": (
        cortex_stream.scheduling.waiting,
        "form_batch",
        "after",
        lambda batch, *_: bool(batch.rows),
    ),
    "after-infer": (StubRunner, "run", "after", _always),
    # `post` and `send` both come here; suspects are answered by `send` alone.
    "before-produce": (
        cortex_stream.kafka.producer.KafkaProducer,
        "_enqueue",
        "before",
        lambda *passed: passed[-1].topic != ATTEMPTS,
    ),
    "after-produce": (aiokafka.conn.AIOKafkaConnection, "send", "after", _api_key(_PRODUCE)),
    "after-confirm": (agents.outbox.Outbox, "settle", "before", _always),
    "after-finish": (agents.track.Tracks, "finish", "after", _always),
    "during-commit": (aiokafka.conn.AIOKafkaConnection, "send", "after", _api_key(_OFFSET_COMMIT)),
    "after-commit": (
        cortex_stream.kafka.commits,
        "_commit",
        "after",
        lambda committed, *_: bool(committed),
    ),
    "during-drain": (Intake, "drain", "before", _always),
}


def wrap(owner: Any, name: str, *, when: str, told: Told, passed: Callable[[], None]) -> None:
    """Have `passed` called before, or after, a function, whenever `told` says so."""
    original = getattr(owner, name)

    def ends(result: Any, *arguments: Any) -> Any:
        if when == "after" and told(result, *arguments):
            passed()
        return result

    if inspect.iscoroutinefunction(original):

        async def wrapped_coroutine(*arguments: Any, **named: Any) -> Any:
            if when == "before" and told(None, *arguments):
                passed()
            return ends(await original(*arguments, **named), *arguments)

        setattr(owner, name, wrapped_coroutine)
    else:

        def wrapped(*arguments: Any, **named: Any) -> Any:
            if when == "before" and told(None, *arguments):
                passed()
            return ends(original(*arguments, **named), *arguments)

        setattr(owner, name, wrapped)


class PoisonableRunner(StubRunner):
    """Fails, dies or hangs when a text tells it to."""

    def __init__(self) -> None:
        super().__init__(sleep_s_per_row=float(subprocess_environment().get("CHAOS_ROW_S", _ROW_S)))
        tokenizer = stub_tokenizer()
        self._words = {
            word: _ids(tokenizer.encode([f"{word}-THE-WORKER"])[0])
            for word in ("RAISE", "KILL", "STUCK", "SLOW")
        }
        self._down = Path(subprocess_environment()["CHAOS_BARRIERS"]) / "model-down"

    def run(self, rows: Sequence[TokenRow]) -> FloatRows:
        if self._down.exists():
            raise InferenceFailed("the model is down")
        for row in rows:
            ids = row.ids.tobytes()
            if self._words["RAISE"] in ids:
                raise InferenceFailed("this text breaks the model")
            if self._words["KILL"] in ids:
                os.kill(os.getpid(), signal.SIGKILL)
            if self._words["STUCK"] in ids:
                threading.Event().wait()
            if self._words["SLOW"] in ids:
                threading.Event().wait(_SLOW_S)
        return super().run(rows)


def _ids(row: Any) -> bytes:
    """Return the tokens of a word as bytes, without what stands before and after every text."""
    encoded: bytes = row.ids[1:-1].tobytes()
    return encoded


def load_poisonable(_: Settings) -> list[LoadedModel]:
    return [stub_model(runners=tuple(PoisonableRunner() for _ in range(_RUNNERS)))]


def main() -> None:
    environment = subprocess_environment()
    barriers = Path(environment["CHAOS_BARRIERS"])
    for point, (owner, name, when, told) in POINTS.items():
        wrap(owner, name, when=when, told=told, passed=Barrier(barriers, point).passed)
    if mutation := environment.get("CHAOS_MUTATION"):
        from tests.chaos.mutations import MUTATIONS  # noqa: PLC0415 (only the broken worker's)

        MUTATIONS[mutation]()
    run_worker(load_poisonable)


if __name__ == "__main__":
    main()
