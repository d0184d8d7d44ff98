"""A whole system of a command's own: services, topics, model, worker; gone when it is left.

Invariants:
    Nothing of the user's is touched: its own stack, its own folder of models, its own ports.
    However the block ends, by an error, Ctrl-C or a signal, what was started is stopped and wiped,
    unless `keep` was asked for and the block ended well.
"""

import asyncio
import os
import shutil
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final, TypeVar

from cortex_stream.cli.steps import Steps
from cortex_stream.devstack.service import Condition
from cortex_stream.devstack.stack import Stack
from cortex_stream.errors import OperatorError
from cortex_stream.interrupts import SIGNALS, deferred_signals
from cortex_stream.kafka.admin import TopicAdmin
from cortex_stream.loadtest.worker_process import WorkerProcess
from cortex_stream.registry.pull import pull
from cortex_stream.registry.store import ModelVersion
from cortex_stream.settings.tree import Settings, enter_environment

STACKS: Final = Path(".cortex", "stack")  # where `cortex-stream stack` looks by default
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PrivateServices:
    """Services that run, and a model; `logs` is a folder for what is started beside them."""

    settings: Settings
    model: ModelVersion
    logs: Path


@dataclass(frozen=True, slots=True)
class PrivateSystem:
    """What runs. `page` is the address of the worker's status page."""

    settings: Settings
    model: ModelVersion
    worker: WorkerProcess
    page: str


@contextmanager
def private_system(
    name: str, *, model: str, steps: Steps, keep_models: Path | None = None
) -> Iterator[PrivateSystem]:
    """Start services, topics and a worker, yield them once it takes work, then take all away.

    Args:
        name: see `private_services`, as for the others.
        model: what the worker serves.
        steps: is told what happens.
        keep_models: leave everything running when the block ends well.

    Raises:
        OperatorError: a part does not start. The worker's log stays where the text says.
    """
    with private_services(name, model=model, steps=steps, keep_models=keep_models) as services:
        settings = services.settings
        steps.begin("topics")
        steps.say(f"{run_interruptibly(lambda: _apply_topics(settings))} created")
        steps.begin("worker")
        with WorkerProcess(log=services.logs / "worker.log") as worker:
            page = worker.wait_ready()
            steps.say(f"ready: {page}")
            yield PrivateSystem(settings, services.model, worker, page)
            worker.check()
            if keep_models is not None:
                worker.release()


@contextmanager
def private_services(
    name: str, *, model: str, steps: Steps, keep_models: Path | None = None
) -> Iterator[PrivateServices]:
    """Start services, get the model, yield both, then take all of it away.

    This process's environment points to them from then on.

    Args:
        name: of the stack, which must not run already.
        model: what workers serve.
        steps: is told what happens.
        keep_models: leave everything running when the block ends well, with the models in this
            folder; None: leave nothing.

    Raises:
        OperatorError: a part does not start, or the block failed: then the logs stay.
    """
    folder = Path(".cortex", name).absolute()
    models = (keep_models or folder / "models").absolute()
    stack = Stack((STACKS / name).absolute())
    _refuse_running(stack, name)
    with ExitStack() as undo:
        _interrupt_once(undo)
        undo.callback(_remove_empty, folder.parent, STACKS.absolute(), folder)
        undo.callback(stack.folder.with_suffix(".lock").unlink, missing_ok=True)
        undo.callback(stack.wipe)
        undo.callback(shutil.rmtree, folder / "models", ignore_errors=True)
        steps.begin("services")
        stack.wipe()  # what an earlier run could not, for it was killed
        stack.up(steps)
        settings = enter_environment(
            {
                **stack.environment(),
                "CORTEX_MODELS__FOLDER": str(models),
                "CORTEX_MODELS__SERVE": f'["{model}"]',
                "CORTEX_MODELS__EMBED_DEFAULT": model,
                "CORTEX_WEB__PORT": "6066" if keep_models else "0",
            }
        )
        steps.begin("model")
        version = pull(
            model,
            settings.models,
            progress=lambda done, total: steps.advanced(model, done=done, total=total),
        ).version
        steps.say(f"{version.name}@{version.version}, {version.digest[:19]}…")
        logs = folder / "logs"
        undo.push(_remove_unless_failed(logs))
        yield PrivateServices(settings, version, logs)
        if keep_models is not None:
            undo.pop_all()


def run_interruptibly(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run `main()` to its end as `asyncio.run` does; the first signal cancels it.

    Once it has ended the signal has its usual effect.
    """
    with deferred_signals() as caught:

        async def interruptible() -> T:
            loop, task = asyncio.get_running_loop(), asyncio.current_task()

            def interrupt(number: int) -> None:
                caught.append(number)
                if task is not None and len(caught) == 1:
                    task.cancel()

            for each in SIGNALS:
                loop.add_signal_handler(each, interrupt, each)
            if caught:
                raise asyncio.CancelledError
            return await main()

        with asyncio.Runner() as runner:
            return runner.run(interruptible())


def _refuse_running(stack: Stack, name: str) -> None:
    try:
        running = [each for each in stack.status() if each.state is not Condition.STOPPED]
    except OperatorError:  # never started
        return
    if running:
        raise OperatorError(
            f"starting the stack {name!r}: one runs already in {stack.folder}",
            repair=f"cortex-stream stack wipe --name {name}",
        )


def _interrupt_once(undo: ExitStack) -> None:
    """Make the first signal end the block and later ones wait for the clean-up."""

    def interrupt(number: int, _frame: FrameType | None) -> None:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        # Not through the console: whom the signal interrupted may hold its lock.
        os.write(2, b"\ninterrupted: stopping and wiping what was started ...\n")
        raise KeyboardInterrupt(signal.Signals(number).name)

    for each in SIGNALS:
        undo.callback(signal.signal, each, signal.signal(each, interrupt))


def _remove_unless_failed(logs: Path) -> Callable[..., None]:
    def leave(error: type[BaseException] | None, *_: object) -> None:
        if error is None or not issubclass(error, Exception):  # well, or interrupted
            shutil.rmtree(logs, ignore_errors=True)

    return leave


def _remove_empty(*folders: Path) -> None:
    """Remove those of the folders that hold nothing, the last first."""
    for folder in reversed(folders):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


async def _apply_topics(settings: Settings) -> int:
    async with TopicAdmin(settings) as admin:
        changes = (await admin.plan()).changes
        await admin.apply(changes)
    return len(changes)
